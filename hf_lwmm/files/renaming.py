"""Give files and folders their names in one step: without replacing anything, or in exchange for what has the name."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths are relative to the working directory
_NO_REPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def rename_new(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that nothing has.

    Raises:
        FileExistsError: if something has it.
        OSError: if the system refuses.
    """
    if _rename(source, target, _NO_REPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    if source.is_dir():
        source.rename(target)  # takes the place of nothing but an empty folder
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        source.rename(target)
    else:
        source.unlink()


def exchange(source: Path, target: Path) -> bool:
    """Let two files or folders change names in one step; return False if the system cannot. Raises OSError."""
    return _rename(source, target, _EXCHANGE)


def _rename(source: Path, target: Path, flags: int) -> bool:
    """Call Linux's renameat2; return False if the system, or this file system, does not have it."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))
