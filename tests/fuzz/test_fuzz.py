"""Changed files of every kind are read right or refused by name, in little time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.harness import MEGABYTES, SECONDS, TARGETS, fuzz, make

SLOW = ("network", "processor", "card", "config")  # milliseconds a case: half of them here, all in the marked test
COUNTS = [(target, 500 if target in SLOW else 1000) for target in TARGETS]


@pytest.mark.filterwarnings("ignore")  # what torch and Pillow say of damage
@pytest.mark.parametrize(
    ("target", "count"), [*COUNTS, *(pytest.param(target, 100_000, marks=pytest.mark.slow) for target in TARGETS)]
)
def test_changed_files_are_read_right_or_refused(
    target: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = fuzz(make(target, tmp_path), count, seed=0)
    assert result["others"] == []
    assert result["slowest"][0] < SECONDS and result["megabytes"] < MEGABYTES
    counts = result["found"]
    assert sum(counts.values()) == count and 0 < counts["read"] < count
