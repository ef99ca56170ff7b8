"""A folder in which files appear whole or not at all, and out of which no link leads."""

from __future__ import annotations

import contextlib
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hf_lwmm.errors import DocumentError
from hf_lwmm.files.documents import read_json
from hf_lwmm.files.scratch import PREFIX, locked_folder
from hf_lwmm.files.syncing import sync_file, sync_path
from hf_lwmm.localhub.records import DamagedError


class Disk:
    """The folder of a store. Files are written in scratch folders in `incoming`, and moved to their places."""

    def __init__(self, root: Path) -> None:
        self._incoming = root / "incoming"
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root.resolve()
        self._incoming = self._own(self.root / "incoming")

    def clear(self) -> None:
        """Remove what servers that were killed had not written in full."""
        for folder in self._incoming.glob(f"{PREFIX}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def scratch(self) -> AbstractContextManager[Path]:
        """Return a context whose value is an empty folder, which vanishes in any case. It raises OSError."""
        return locked_folder(self._incoming)

    def place(self, made: Path, target: Path) -> None:
        """Move a file or folder that was written in full to its place; a file that is there is replaced."""
        folder = self._own(target.parent)
        new = not folder.exists()
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            made.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()  # which it refuses if anything is there
            raise
        with contextlib.suppress(OSError):  # the name is given; only a power cut in this moment could undo it
            sync_path(folder)
            if new:
                sync_path(folder.parent)

    def write(self, target: Path, content: bytes) -> None:
        """Write a file in place of the one that is there."""
        with self.scratch() as folder:
            write(folder / "file", content)
            self.place(folder / "file", target)

    def remove(self, folder: Path) -> None:
        """Remove a folder at once, however much is in it."""
        with self.scratch() as scratch:
            self._own(folder).rename(scratch / "removed")

    def file(self, path: Path) -> Path:
        """Return the path of a file that is there. Raises DamagedError if it is not, or if links lead to it."""
        if not self._own(path).is_file():
            raise DamagedError(f"{path.relative_to(self.root)} is missing from this Hub's folder.")
        return path

    def json(self, path: Path) -> Any:
        """Return the content of a JSON file. Raises DamagedError."""
        try:
            return read_json(self.file(path), str(path.relative_to(self.root)))
        except DocumentError as error:
            raise DamagedError(str(error)) from None

    def _own(self, path: Path) -> Path:
        try:
            linked = path.resolve() != path
        except (OSError, RuntimeError):  # a link to itself
            linked = True
        if linked:
            raise DamagedError(f"{path.relative_to(self.root)} in this Hub's folder is reached over a link.")
        return path


def write(path: Path, content: bytes) -> None:
    """Write a new file, which is its owner's alone, down to the disk."""
    path.touch(0o600, exist_ok=False)
    with path.open("wb") as file:
        file.write(content)
        sync_file(file)
