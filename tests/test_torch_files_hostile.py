"""Torch files that would take all memory or time are refused at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile import HOSTILE

SECONDS, MEGABYTES = 25, 256  # on a slow machine; an ordinary one takes less than 5 seconds


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of each file, with time and memory; each is read in a process of its own."""
    folder, found = tmp_path_factory.mktemp("hostile"), {}
    script = Path(__file__).with_name("measured.py")
    paths = []
    for name, (make, _) in HOSTILE.items():
        paths.append(folder / name)
        paths[-1].write_bytes(make())
    ran = subprocess.run([sys.executable, script, *paths], capture_output=True, text=True, check=True)
    for path, line in zip(paths, ran.stdout.splitlines(), strict=True):
        path.unlink()
        found[path.name] = json.loads(line)
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_exhaust_the_reader_does_not(name: str, measured: dict[str, Any]) -> None:
    result = measured[name]
    assert re.search(HOSTILE[name][1], result["outcome"])
    assert len(result["outcome"]) < 500
    assert result["seconds"] < SECONDS and result["megabytes"] < MEGABYTES
