"""Find the file or folder that a misspelt path may mean."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


def nearest_path(text: str) -> str | None:
    """Return the existing path whose parts are nearest to those of a path that does not exist; None if none is near.

    The parts before the first misspelt one are taken as they are, so that only folders on the way are listed. The name
    of a file may be further from one with the same suffix, which says what is meant.
    """
    try:
        parts = Path(text).expanduser().parts
        found = Path()
        for part in parts:
            if part == ".." or (found / part).exists():
                found /= part
                continue
            names = [each.name for each in found.iterdir()]
            suffix = Path(part).suffix
            alike = [name for name in names if suffix and Path(name).suffix == suffix]
            near = get_close_matches(part, names, n=1, cutoff=0.75) or get_close_matches(part, alike, n=1, cutoff=0.5)
            if not near:
                return None
            found /= near[0]
    except (OSError, RuntimeError, ValueError):  # a part that is a file, a folder that may not be listed, no home
        return None
    return str(found) if parts else None


def or_nearest(text: str) -> str:
    """Return a sentence that suggests the nearest path of this machine, empty if none is near."""
    near = nearest_path(text)
    return f" Did you mean {near}?" if near else ""
