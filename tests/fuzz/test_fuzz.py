"""Changed files of every kind are read right or refused by name, in little time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.harness import MEGABYTES, SECONDS, TARGETS

HARNESS = Path(__file__).with_name("harness.py")


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", TARGETS)
def test_changed_files_are_read_right_or_refused(target: str, count: int) -> None:
    command = [sys.executable, HARNESS, target, "--count", str(count)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["others"] == []
    assert result["slowest"][0] < SECONDS and result["megabytes"] < MEGABYTES
    counts = result["found"]
    assert sum(counts.values()) == count and 0 < counts["read"] < count
