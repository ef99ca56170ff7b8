"""Folders for work in progress, which vanish with the work: at its end, or, after a kill, at the next run.

A folder is locked as long as its process lives. On network drives a lock may be known to its own machine alone, so
the name of a folder says where it was made: `.hf-lwmm-`, a mark of the host's name, one of the time since the machine
started, and eight random characters. What another machine made is abandoned only after a week without a change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hf_lwmm.errors import MergeError
from hf_lwmm.files.renaming import rename_new

PREFIX = ".hf-lwmm-"  # of the names of all such folders
_NAME = re.compile(re.escape(PREFIX) + "(?:([0-9a-f]{6})-([0-9a-f]{6})-)?[a-z0-9_]{8}")
_ABANDONED = 7 * 24 * 3600  # seconds without a change
REPLACED = "replaced"  # folder of a scratch folder in which something waits while its name changes hands


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Return a context whose value is an empty folder in `parent`, or where the system keeps temporary files.

    Those in the same place whose processes are dead are removed first; if such a process was replacing a folder and
    got half the way, that folder has its name again.

    Raises:
        MergeError: if the folder cannot be made.
    """
    place = parent or Path(tempfile.gettempdir())
    tidy(place)
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(locked_folder(place))
        except OSError as error:
            raise MergeError(f"{place}: cannot be written to: {error.strerror or error}.") from None
        yield path


@contextlib.contextmanager
def locked_folder(place: Path) -> Iterator[Path]:
    """Return a context as `scratch_folder` does, without looking for abandoned ones. Raises OSError."""
    path, lock = _made(place)
    try:
        yield path
    finally:
        try:
            _restore(path / REPLACED, place)  # what was to be replaced, and was not
            shutil.rmtree(path, ignore_errors=True)
        finally:
            if lock is not None:
                os.close(lock)


def tidy(parent: Path) -> None:
    """Remove the scratch folders in a folder whose processes are dead, and give back names that they held."""
    for path in _scratch_folders(parent):
        with contextlib.suppress(OSError, _TakenError):
            lock = _locked(path)
            try:
                _restore(path / REPLACED, parent)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _scratch_folders(parent: Path) -> list[Path]:
    """The scratch folders of this user in a folder that this machine made, or nobody has touched for long."""
    try:
        with os.scandir(parent) as entries:
            named = [each for each in entries if _NAME.fullmatch(each.name) and each.is_dir(follow_symlinks=False)]
            own = [Path(each) for each in named if each.stat(follow_symlinks=False).st_uid == os.getuid()]
    except OSError:
        return []
    return [each for each in own if _made_here(each.name) or _untouched(each)]


def _made_here(name: str) -> bool:
    """True if this machine made a scratch folder: before it was last started, or in another container of it, too."""
    found = _NAME.fullmatch(name)
    return found is not None and any(mark == own for mark, own in zip(found.groups(), _marks(), strict=True))


@cache
def _marks() -> tuple[str, str]:
    """The marks of the host's name, and of the time since the machine started or, if unknown, again of the name."""
    name = socket.gethostname()
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except (OSError, ValueError):
        started = name
    host, boot = (hashlib.sha256(text.encode(errors="replace")).hexdigest()[:6] for text in (name, started))
    return host, boot


def _untouched(path: Path) -> bool:
    """True if nothing in a folder was changed for so long that no process can be at work in it."""
    try:
        times = [Path(folder, name).lstat().st_mtime for folder, _, files in os.walk(path) for name in (".", *files)]
    except OSError:
        return False
    return max(times, default=0) < time.time() - _ABANDONED


def _made(place: Path) -> tuple[Path, int | None]:
    """A new scratch folder, and the descriptor that holds its lock."""
    while True:
        path = Path(tempfile.mkdtemp(dir=place, prefix=f"{PREFIX}{'-'.join(_marks())}-"))
        try:
            return path, _locked(path)
        except OSError:  # without locks, as on some network drives, nobody removes it but this process
            return path, None
        except _TakenError:  # another process took it for an abandoned one in the moment before it was locked
            continue


class _TakenError(Exception):
    """A folder is locked by another process, or was removed by it."""


def _locked(path: Path) -> int:
    """Lock a folder, and return the descriptor that holds the lock. Raises _TakenError, or OSError without locks."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise _TakenError from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino != os.fstat(lock).st_ino:
            raise _TakenError
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        raise _TakenError from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _restore(waiting: Path, parent: Path) -> None:
    for each in waiting.iterdir() if waiting.is_dir() else ():
        with contextlib.suppress(FileExistsError):  # what was to take its place has it
            if not os.path.lexists(parent / each.name):
                rename_new(each, parent / each.name)
