"""Folders for work in progress, which vanish with the work: at its end, or, after a kill, at the next run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hf_lwmm.errors import MergeError
from hf_lwmm.files.renaming import rename_new

_PREFIX = ".hf-lwmm-"
_NAME = re.compile(re.escape(_PREFIX) + "[a-z0-9_]{8}")
REPLACED = "replaced"  # folder of a scratch folder in which something waits while its name changes hands


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Return a context whose value is an empty folder in `parent`, or where the system keeps temporary files.

    The folder is locked as long as its process lives. Those in the same place whose processes are dead are removed
    first; if such a process was replacing a folder and got half the way, that folder has its name again.

    Raises:
        MergeError: if the folder cannot be made.
    """
    place = parent or Path(tempfile.gettempdir())
    tidy(place)
    try:
        path, lock = _made(place)
    except OSError as error:
        raise MergeError(f"{place}: cannot be written to: {error.strerror or error}.") from None
    try:
        yield path
    finally:
        try:
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
    """The scratch folders of this user in a folder."""
    try:
        with os.scandir(parent) as entries:
            named = [each for each in entries if _NAME.fullmatch(each.name) and each.is_dir(follow_symlinks=False)]
            return [Path(each) for each in named if each.stat(follow_symlinks=False).st_uid == os.getuid()]
    except OSError:
        return []


def _made(place: Path) -> tuple[Path, int | None]:
    """A new scratch folder, and the descriptor that holds its lock."""
    while True:
        path = Path(tempfile.mkdtemp(dir=place, prefix=_PREFIX))
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
            rename_new(each, parent / each.name)
