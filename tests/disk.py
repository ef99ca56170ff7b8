"""A disk that fails, or a process that dies, at the n-th step that changes the disk."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hf_lwmm.files.renaming as renaming
from hf_lwmm.errors import HfLwmmError

# What changes a disk: each is a place at which it may be full, or the process be killed.
_WRITING = (
    "mkdir", "rename", "replace", "link", "pwrite", "write", "ftruncate", "truncate", "posix_fallocate", "fsync",
    "fdatasync", "chmod", "utime",
)  # fmt: skip
_REMOVING = ("unlink", "remove", "rmdir")  # a full disk does this


class DiedError(BaseException):
    """The process is dead: whatever it still tries to do to the disk does not happen."""


class Disk:
    """Count the steps that change the disk, and let the one with the number `at`, and all after a death, not happen."""

    def __init__(self, at: int, death: bool) -> None:
        self.steps = 0
        self._at, self._death, self._lock = at, death, threading.Lock()

    @property
    def reached(self) -> bool:
        """True if there was a step with that number."""
        return self.steps > self._at

    def step(self) -> None:
        with self._lock:
            self.steps += 1
            number = self.steps - 1
        if self._death and number >= self._at:
            raise DiedError
        if number == self._at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def failing(at: int, death: bool) -> Iterator[Disk]:
    """Return a context in which step `at` fails: with the error of a full disk, or with the death of the process."""
    disk = Disk(at, death)

    def counted(call: Callable[..., Any], changes: Callable[..., bool] = lambda *given: True) -> Callable[..., Any]:
        def stepping(*given: Any, **named: Any) -> Any:
            if changes(*given, *named.values()):
                disk.step()
            return call(*given, **named)

        return stepping

    def creates(path: Any, flags: int, *rest: Any) -> bool:
        return bool(flags & (os.O_CREAT | os.O_TRUNC))

    def writes(path: Any, mode: Any = "r", *rest: Any) -> bool:
        return not isinstance(path, int) and isinstance(mode, str) and mode[0] in "wxa"

    with pytest.MonkeyPatch.context() as patch:
        for name in (*_WRITING, *_REMOVING) if death else _WRITING:
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(os, "open", counted(os.open, creates))
        patch.setattr(io, "open", counted(io.open, writes))
        patch.setattr("builtins.open", counted(open, writes))
        patch.setattr(renaming, "_rename", counted(renaming._rename))
        yield disk


def each_step(work: Callable[[], object], before: Callable[[], object], after: Callable[[bool], object]) -> int:
    """Carry `work` out again and again, each time with another step that fails, until none does; return their number.

    Before each, `before` puts things in order, and after it `after` is called with True if the process died.
    """
    at = 0
    for death in (False, True):
        at = 0
        while True:
            before()
            with failing(at, death) as disk, contextlib.suppress(DiedError, HfLwmmError):
                work()
            if not disk.reached:
                break
            after(death)
            at += 1
    return at
