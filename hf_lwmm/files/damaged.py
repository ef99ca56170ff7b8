"""Set damaged files aside, so that nothing is lost and the work goes on."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

_log = logging.getLogger("hf_lwmm")  # goes to stderr, where no program has set up logging of its own


def set_aside(file: Path, aside: Path) -> None:
    """Rename a damaged file to `aside`, which may replace an older one, and say so in a line on stderr."""
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        file.replace(aside)
        _log.warning("%s was damaged and is not used; it is %s now.", file, aside.name)
