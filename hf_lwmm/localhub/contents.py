"""Content under its hash: kept for repositories, sent along with a commit, or uploaded before one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Sequence, Set
from pathlib import Path

from hf_lwmm.localhub.disk import Disk, write
from hf_lwmm.localhub.records import DamagedError, File

_HOUR, _KEPT = 3600, 24 * 3600  # seconds
_RESERVE = 64 * 2**20  # bytes of the disk that are left free, so that things can still be deleted


class Draft:
    """The small files of one commit that is being received."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Return the path at which content of this hash is, or would be."""
        return self._folder / sha256

    def add(self, content: bytes) -> File:
        """Take content, and return it as a regular file."""
        digest = hashlib.sha256(content).hexdigest()
        if not self.path(digest).exists():
            write(self.path(digest), content)
        return File(digest, len(content), _git_blob_id(content), lfs=False)


class Contents:
    """The content that repositories hold (`blobs`), and that users have uploaded and not committed yet (`uploads`).

    To know a hash is not to have its content: an upload counts only for the user who sent it.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._looked = 0.0  # when uploads were last looked at

    def path(self, sha256: str) -> Path:
        """Return the path at which content of this hash is, or would be."""
        return self._disk.root / "blobs" / sha256[:2] / sha256

    def file(self, file: File) -> Path:
        """Return the path of a file's content. Raises DamagedError if it is not there, or not of its size."""
        path = self._disk.file(self.path(file.sha256))
        if path.stat().st_size != file.size:
            raise DamagedError(f"blobs: the content {file.sha256} is incomplete in this Hub's folder.")
        return path

    def start(self, file: File, count: int) -> bytes:
        """Return the first `count` bytes of a file. Raises DamagedError."""
        with self.file(file).open("rb") as opened:
            return opened.read(count)

    def take_upload(self, user: str, sha256: str, path: Path) -> None:
        """Keep a file, which must have this hash, as a user's upload."""
        self._disk.place(path, self._upload(user, sha256))

    def expire(self) -> None:
        """Remove uploads that have not been committed for a day; to be called often, it looks once an hour."""
        now = time.time()
        if now - self._looked < _HOUR:
            return
        self._looked = now
        for path in (self._disk.root / "uploads").glob("*/*"):
            with contextlib.suppress(OSError):
                if not path.parent.is_symlink() and now - path.lstat().st_mtime > _KEPT:
                    path.unlink()

    def check_room(self, size: int) -> None:
        """Raise the error of a full disk if it would be full, but for a reserve, with `size` bytes more."""
        if size > shutil.disk_usage(self._disk.root).free - _RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def available_size(self, user: str, sha256: str, readable: Sequence[Set[str]]) -> int | None:
        """Return the size of content that a user uploaded, or that is in a set of `readable`; None for other."""
        known = any(sha256 in hashes for hashes in readable)
        for path in (self._upload(user, sha256), *([self.path(sha256)] if known else [])):
            if path.is_file():
                return path.stat().st_size
        return None

    def keep(self, file: File, user: str, draft: Draft) -> None:
        """Make content of a draft, or a user's upload, content of the repositories."""
        target, upload = self.path(file.sha256), self._upload(user, file.sha256)
        for source in (draft.path(file.sha256), upload):
            if source.is_file() and not _is_whole(target, file.size):  # which also mends a damaged one
                self._disk.place(source, target)
        upload.unlink(missing_ok=True)
        self.file(file)

    def _upload(self, user: str, sha256: str) -> Path:
        return self._disk.root / "uploads" / user / sha256


def _is_whole(path: Path, size: int) -> bool:
    return not path.is_symlink() and path.is_file() and path.stat().st_size == size


def lfs_file(sha256: str, size: int) -> File:
    """Return content as a large file."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return File(sha256, size, _git_blob_id(pointer), lfs=True)


def _git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
