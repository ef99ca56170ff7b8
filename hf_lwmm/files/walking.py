"""List the files below a folder, linked folders included."""

from __future__ import annotations

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """Return the files at any depth below a folder, sorted; none if there is no such folder.

    Linked folders are entered, each under the name of its link, unless they lead back to a folder around them, be it
    outside of the one that is searched.
    """
    found: list[Path] = []
    outside = frozenset(map(str, Path(os.path.realpath(folder)).parents))
    waiting: list[tuple[Path, frozenset[str]]] = [(folder, outside)]
    while waiting:
        inside, around = waiting.pop()
        if (place := os.path.realpath(inside)) in around:
            continue
        try:
            entries = [*inside.iterdir()]
        except OSError:  # no folder, or one that must not be read
            continue
        for entry in entries:
            if entry.is_dir():
                waiting.append((entry, around | {place}))
            elif entry.is_file():
                found.append(entry)
    return sorted(found)
