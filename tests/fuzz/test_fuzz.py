"""Changed files of every kind are read right or refused by name, in little time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.harness import MEGABYTES, SECONDS, TARGETS, fuzz, make


@pytest.mark.filterwarnings("ignore")  # what torch and Pillow say of damage
@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", TARGETS)
def test_changed_files_are_read_right_or_refused(
    target: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = fuzz(make(target, tmp_path), count, seed=0)
    assert result["others"] == []
    assert result["slowest"][0] < SECONDS and result["megabytes"] < MEGABYTES
    counts = result["found"]
    assert sum(counts.values()) == count and 0 < counts["read"] < count
