"""The bytes of a remote file that are on disk already, and which ones these are."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import weakref
import zlib
from array import array
from pathlib import Path

from hf_lwmm.errors import HubError, MergeError
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.byte_file import fill, write_all
from hf_lwmm.files.damaged import set_aside
from hf_lwmm.hub.calls import disk_errors
from hf_lwmm.hub.ranges import Span, cut

BLOCK = 4096  # bytes that are there, or not, together
_STEP = 1 << 20  # bytes that are read at a time
_MARK = 4  # bytes for each block
_ABSENT, _RECORDED, _CHECKED = b"\0", b"\1", b"\2"  # the states of a block

_log = logging.getLogger("hf_lwmm")  # goes to stderr, where no program has set up logging of its own

# macOS has no fdatasync.
_sync = getattr(os, "fdatasync", os.fsync)


class OtherContentError(HubError):
    """A file that is whole is not the one that was asked for."""


class PartialFile:
    """A sparse file that holds some blocks of a remote file, and behind them a mark for each block that is there.

    The mark is the block's CRC-32, and is written when the block is safe on disk, so whatever a killed process leaves
    can be used, and a block that was damaged since counts as one that is not there. Both are one file, which appears
    and goes as one: no process can meet the blocks of one file with the marks of another. Several processes may fill
    it at once, since all of them write the same.
    """

    def __init__(self, path: Path, size: int, descriptor: int, marks: array[int]) -> None:
        """Take over an open file of `size` bytes; `marks` has the CRC-32 of each block that is there, else 0."""
        self.path, self.size = path, size
        self._descriptor, self._marks = descriptor, marks
        self._states = bytearray(map(bool, marks))
        self._warned = False
        # Threads that outlive an interruption may be writing: the descriptor is closed after the last of them.
        weakref.finalize(self, os.close, descriptor).atexit = False

    @classmethod
    def open(cls, path: Path, size: int) -> PartialFile | None:
        """Open the partial file of a remote file of `size` bytes for reading; None if there is none."""
        for mode in (os.O_RDWR, os.O_RDONLY):  # to write is only needed to forget blocks that are damaged
            with contextlib.suppress(OSError):
                descriptor = os.open(path, mode)
                return cls(path, size, descriptor, _read_marks(descriptor, size))
        return None

    @classmethod
    def create(cls, path: Path, size: int) -> PartialFile:
        """Open the partial file of a remote file of `size` bytes, made if there is none, for reading and writing.

        Raises:
            HubError: if it cannot be written.
        """
        length = size + _MARK * _blocks(size)
        with disk_errors(path):
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                if os.fstat(descriptor).st_size in (0, length):
                    os.truncate(descriptor, length)  # changes nothing if another process has just done so
                    return cls(path, size, descriptor, _read_marks(descriptor, size))
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
        whole = cls(path, size, descriptor, array("I"))
        whole._states = bytearray(_CHECKED * _blocks(size))
        return whole

    def recorded(self) -> list[Span]:
        """Return the spans of the file that were on disk once, and most probably still are."""
        return self._runs(_RECORDED + _CHECKED, 0, self.size)

    def held(self, start: int = 0, end: int | None = None) -> list[Span]:
        """Return the spans between two bytes of the file, all of it if none are given, that are on disk, undamaged.

        Blocks are read and compared with their marks the first time that they are asked for. Those that are damaged
        are forgotten, with a line on stderr.
        """
        end = self.size if end is None else end
        for first, last in cut(self._runs(_RECORDED, start // BLOCK * BLOCK, _up(end, self.size)), _STEP):
            self._check(first // BLOCK, _blocks(last))
        return self._runs(_CHECKED, start, end)

    def _runs(self, states: bytes, start: int, end: int) -> list[Span]:
        """The spans between two bytes whose blocks are in one of some states."""
        first = start // BLOCK
        runs = re.finditer(b"[%b]+" % states, bytes(self._states[first : _blocks(end)]))
        return [(max(start, (first + r.start()) * BLOCK), min(end, (first + r.end()) * BLOCK)) for r in runs]

    def _check(self, first: int, last: int) -> None:
        """Compare blocks with their marks, and forget those that are damaged."""
        marks, found = self._marks[first:last], self._checksums(first, last)
        if marks == found:
            self._states[first:last] = _CHECKED * (last - first)
            return
        for number, same in enumerate(map(int.__eq__, marks, found), first):
            self._states[number : number + 1] = _CHECKED if same else _ABSENT
            if not same:
                self._marks[number] = 0
                with contextlib.suppress(OSError):  # it cannot be written, or is damaged here, too
                    os.pwrite(self._descriptor, bytes(_MARK), self.size + number * _MARK)
        if not self._warned:
            self._warned = True
            _log.warning("%s was damaged in places; these are fetched again where they are needed.", self.path)

    def _checksums(self, first: int, last: int) -> array[int]:
        """The marks that blocks on disk should have, of no more than `_STEP` bytes; 0 if they cannot be read."""
        start, end = first * BLOCK, min(last * BLOCK, self.size)
        content = memoryview(bytearray(end - start))
        with contextlib.suppress(OSError):
            if fill(content, self._descriptor, start):
                return array("I", [zlib.crc32(content[at : at + BLOCK]) or 1 for at in range(0, end - start, BLOCK)])
        return array("I", bytes(_MARK * (last - first)))

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with bytes that are held, from `start` on. Raises HubError if the disk does not give them."""
        with disk_errors(self.path):
            if not fill(buffer, self._descriptor, start):
                raise HubError(f"{self.path}: was cut by another program. Delete it and run again.")

    def write(self, start: int, data: bytes) -> None:
        """Write bytes of the file; `keep` makes them count. Raises HubError if the disk does not take them."""
        with disk_errors(self.path):
            write_all(self._descriptor, data, start)

    def keep(self, start: int, end: int) -> int:
        """Record that the whole blocks from `start`, where one begins, up to `end` are there, once the disk has them.

        Returns the byte up to which they are. Raises HubError if the disk does not take them.
        """
        first, last = start // BLOCK, _blocks(self.size) if end == self.size else end // BLOCK
        if first >= last:
            return start
        marks = array("I")
        for begin, stop in cut([(first * BLOCK, min(last * BLOCK, self.size))], _STEP):
            marks += self._checksums(begin // BLOCK, _blocks(stop))
        with disk_errors(self.path):
            _sync(self._descriptor)
            write_all(self._descriptor, marks.tobytes(), self.size + first * _MARK)
        self._marks[first:last] = marks
        self._states[first:last] = bytes(_CHECKED[0] if mark else _ABSENT[0] for mark in marks)
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
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_STEP))
        with atomic(target) as place, place.open("xb") as copy:
            for start in range(0, self.size, _STEP):
                piece = buffer[: min(_STEP, self.size - start)]
                self.read(start, piece)
                digest.update(piece)
                copy.write(piece)
            if digest.hexdigest() != sha256:
                raise OtherContentError


def _blocks(end: int) -> int:
    """The number of blocks up to a byte."""
    return -(-end // BLOCK)


def _up(end: int, size: int) -> int:
    """The end of the block that ends at a byte or behind it."""
    return min(_blocks(end) * BLOCK, size)


def _read_marks(descriptor: int, size: int) -> array[int]:
    """The marks in an open partial file, all 0 if it does not have the length that it should."""
    count = _MARK * _blocks(size)
    raw = os.pread(descriptor, count, size) if os.fstat(descriptor).st_size == size + count else b""
    return array("I", raw if len(raw) == count else bytes(count))
