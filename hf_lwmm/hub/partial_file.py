"""The bytes of a remote file that are on disk already, and which ones these are."""

from __future__ import annotations

import hashlib
import os
import re
import weakref
from pathlib import Path

from hf_lwmm.errors import HubError, MergeError
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.byte_file import fill
from hf_lwmm.files.damaged import set_aside
from hf_lwmm.hub.calls import disk_errors
from hf_lwmm.hub.ranges import Span

BLOCK = 4096  # bytes that are there, or not, together
_COPIED = 1 << 20  # bytes at a time

# macOS has no fdatasync.
_sync = getattr(os, "fdatasync", os.fsync)


class OtherContentError(HubError):
    """A file that is whole is not the one that was asked for."""


class PartialFile:
    """A sparse file that holds some blocks of a remote file, and behind them a byte for each block that is there.

    That byte is written when the block is safe on disk, so whatever a killed process leaves can be used. Both are one
    file, which appears and goes as one: no process can meet the blocks of one file with the record of another. Several
    processes may fill it at once, since all of them write the same.
    """

    def __init__(self, path: Path, size: int, descriptor: int, there: bytearray) -> None:
        """Take over an open file, of `size` bytes, whose blocks are there where `there` has a 1."""
        self.path, self.size = path, size
        self._descriptor, self._there = descriptor, there
        # Threads that outlive an interruption may be writing: the descriptor is closed after the last of them.
        weakref.finalize(self, os.close, descriptor).atexit = False

    @classmethod
    def open(cls, path: Path, size: int) -> PartialFile | None:
        """Open the partial file of a remote file of `size` bytes for reading; None if there is none."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        return cls(path, size, descriptor, _record(descriptor, size))

    @classmethod
    def create(cls, path: Path, size: int) -> PartialFile:
        """Open the partial file of a remote file of `size` bytes, made if there is none, for reading and writing.

        Raises:
            HubError: if it cannot be written.
        """
        length = size + -(-size // BLOCK)
        with disk_errors(path):
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                if os.fstat(descriptor).st_size in (0, length):
                    os.truncate(descriptor, length)  # changes nothing if another process has just done so
                    return cls(path, size, descriptor, _record(descriptor, size))
                os.close(descriptor)
                cls.set_aside(path)

    @staticmethod
    def set_aside(path: Path) -> None:
        """Rename a partial file that is damaged; the cache's own tools find and delete it under its new name, too."""
        with disk_errors(path):
            set_aside(path, path.with_suffix(".damaged.incomplete"))

    @classmethod
    def of_whole(cls, path: Path) -> PartialFile:
        """Open a file that is whole, for reading."""
        descriptor = os.open(path, os.O_RDONLY)
        size = os.fstat(descriptor).st_size
        return cls(path, size, descriptor, bytearray(b"\x01" * -(-size // BLOCK)))

    def held(self, start: int = 0, end: int | None = None) -> list[Span]:
        """Return the spans between two bytes of the file, all of it if none are given, that are on disk."""
        end = self.size if end is None else end
        first = start // BLOCK
        runs = re.finditer(b"\x01+", bytes(self._there[first : -(-end // BLOCK)]))
        return [(max(start, (first + r.start()) * BLOCK), min(end, (first + r.end()) * BLOCK)) for r in runs]

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with bytes that are held, from `start` on. Raises HubError if the file was cut meanwhile."""
        if not fill(buffer, self._descriptor, start):
            raise HubError(f"{self.path}: was cut by another program. Delete it and run again.")

    def write(self, start: int, data: bytes) -> None:
        """Write bytes of the file; `keep` makes them count. Raises HubError if the disk does not take them."""
        with disk_errors(self.path):
            while data:
                count = os.pwrite(self._descriptor, data, start)
                start, data = start + count, data[count:]

    def keep(self, start: int, end: int) -> int:
        """Record that the whole blocks from `start`, where one begins, up to `end` are there, once the disk has them.

        Returns the byte up to which they are. Raises HubError if the disk does not take them.
        """
        first, last = start // BLOCK, len(self._there) if end == self.size else end // BLOCK
        if first >= last:
            return start
        with disk_errors(self.path):
            _sync(self._descriptor)
            os.pwrite(self._descriptor, b"\x01" * (last - first), self.size + first)
        self._there[first:last] = b"\x01" * (last - first)
        return last * BLOCK

    def complete(self, target: Path, sha256: str) -> None:
        """Copy the file, of which all blocks must be held, to `target`.

        It is a copy that is checked and gets the name, since another process may be writing to this file still.

        Raises:
            OtherContentError: if it does not have this SHA-256.
            HubError: if the copy cannot be written.
        """
        try:
            self._complete(target, sha256)
        except MergeError as error:
            raise HubError(f"{error} Free some space, or set HF_HUB_CACHE to a folder on another disk.") from error

    def _complete(self, target: Path, sha256: str) -> None:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_COPIED))
        with atomic(target) as place, place.open("xb") as copy:
            for start in range(0, self.size, _COPIED):
                piece = buffer[: min(_COPIED, self.size - start)]
                self.read(start, piece)
                digest.update(piece)
                copy.write(piece)
            if digest.hexdigest() != sha256:
                raise OtherContentError


def _record(descriptor: int, size: int) -> bytearray:
    """A byte for each block of an open partial file, all 0 if it does not have the length that it should."""
    count = -(-size // BLOCK)
    whole = os.fstat(descriptor).st_size == size + count
    return bytearray(os.pread(descriptor, count, size) if whole else count)
