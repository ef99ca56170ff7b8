"""Wait until the disk has what was written, so that a power cut takes nothing back."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO


def sync_file(file: BinaryIO) -> None:
    """Bring what was written to an open file onto the disk. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """Bring a file, or the names in a folder, onto the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that have no such thing for folders
            raise
    finally:
        os.close(descriptor)


def sync_all(path: Path) -> None:
    """Bring a file, or a folder with all in it, onto the disk. Raises OSError."""
    if path.is_dir():
        for folder, _, files in os.walk(path):
            for name in files:
                sync_path(Path(folder, name))
            sync_path(Path(folder))
    else:
        sync_path(path)
