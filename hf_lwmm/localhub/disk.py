"""A folder in which files appear whole or not at all, and out of which no link leads."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hf_lwmm.errors import DocumentError
from hf_lwmm.files.documents import read_json
from hf_lwmm.localhub.records import DamagedError

_SCRATCH = "hf-lwmm-"  # how the names of folders begin that may be removed


class Disk:
    """The folder of a store. Files are written in scratch folders in `incoming`, and moved to their places."""

    def __init__(self, root: Path) -> None:
        self._incoming = root / "incoming"
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root.resolve()
        self._incoming = self._own(self.root / "incoming")

    def clear(self) -> None:
        """Remove what servers that were killed had not written in full."""
        for folder in self._incoming.glob(f"{_SCRATCH}*"):
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Return a context whose value is an empty folder, which vanishes in any case."""
        folder = Path(tempfile.mkdtemp(dir=self._incoming, prefix=_SCRATCH))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

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
        _sync_folder(folder)
        if new:
            _sync_folder(folder.parent)

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
        sync(file)


def sync(file: BinaryIO) -> None:
    """Wait until the disk has what was written to a file."""
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, where a file system can do that."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
