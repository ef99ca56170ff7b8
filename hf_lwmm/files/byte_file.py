"""Read the bytes of a file by position, wherever the file is, and write those of an open one."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Protocol

from hf_lwmm.errors import CheckpointError

_MOST = 1 << 26  # bytes that one step of a stream may ask for


class ByteFile(Protocol):
    """A file whose bytes are read by position; several threads may do so at once. `name` is for messages."""

    name: str
    size: int

    @property
    def path(self) -> Path | None:
        """Where the whole file is on this machine, if it is."""

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `start` on. Raises CheckpointError or HubError if it cannot."""

    def close(self) -> None:
        """Close the file, which cannot be read again."""


class LocalFile:
    """A file on disk."""

    def __init__(self, path: Path, name: str = "") -> None:
        """Open a file, which messages call `name`, or as its path's last part.

        Raises:
            CheckpointError: if there is none that may be read.
        """
        self.name, self.path = name or path.name, path
        try:
            self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}.") from None
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise CheckpointError(f"{path}: is not a file.")
        self.size, self._state = found.st_size, _state(found)

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `start` on.

        Raises:
            CheckpointError: if the file is closed, ends before, or the disk does not give it.
        """
        if self._descriptor is None:
            raise CheckpointError(f"{self.name}: was closed, so its tensors cannot be read. Open the model again.")
        try:
            whole = fill(buffer, self._descriptor, start)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror or error}.") from None
        if not whole:
            raise CheckpointError(f"{self.name}: ends too early; it is truncated, or changed while being read.")

    def check_unchanged(self) -> None:
        """Raise CheckpointError if something else is at the file's path by now, or its content was changed."""
        try:
            state = _state(self.path.stat())
        except OSError:
            state = None
        if state != self._state:
            raise CheckpointError(
                f"{self.name}: was replaced or changed while it was being read. Start again when it is complete."
            )

    def close(self) -> None:
        """Close the file, which cannot be read again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _state(found: os.stat_result) -> tuple[int, ...]:
    """The marks that differ between two files, and between a file and itself after it was written to."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def fill(buffer: memoryview, descriptor: int, start: int) -> bool:
    """Fill `buffer` with an open file's bytes from `start` on; return False if the file ends before."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], start + done)
        if count == 0:
            return False
        done += count
    return True


def write_all(descriptor: int, data: memoryview | bytes, start: int) -> None:
    """Write bytes to an open file from `start` on, however many the system takes at a time. Raises OSError."""
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], start + done)


def read_bytes(file: ByteFile, start: int, count: int) -> bytes:
    """Return `count` bytes of a file from `start` on. Raises CheckpointError if they lie outside."""
    if start < 0 or count < 0 or start + count > file.size:
        raise CheckpointError(f"{file.name}: ends too early; it is truncated or damaged. Download or save it again.")
    buffer = bytearray(count)
    file.read(start, memoryview(buffer))
    return bytes(buffer)


def stream(file: ByteFile, start: int = 0, count: int | None = None, most: int = _MOST) -> io.BufferedReader:
    """Return `count` bytes of a file (all if None) from `start` on as a binary file that is read in order, or sought.

    It gives no more than `most` bytes at a time, whatever a damaged file claims.
    """
    return io.BufferedReader(_Raw(file, start, file.size - start if count is None else count, most), 1 << 16)


class _Raw(io.RawIOBase):
    def __init__(self, file: ByteFile, start: int, size: int, most: int) -> None:
        self._file, self._start, self._size, self._most, self._position = file, start, size, most, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning of the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._size - self._position))
        if count > self._most:
            raise CheckpointError(f"{self._file.name}: its directory claims {count:,} bytes; it is damaged.")
        self._file.read(self._start + self._position, memoryview(buffer)[:count])
        self._position += count
        return count
