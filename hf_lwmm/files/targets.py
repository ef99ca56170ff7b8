"""Choose places for output before any work is done: nothing is replaced that the user did not give up.

Every file and folder that a command writes for its user gets its place here: a `Target` for one file or folder, a
`TargetFolder` for files that join what else is in a folder. `hf_lwmm.files.atomic` writes them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

from hf_lwmm.errors import MergeError
from hf_lwmm.files.names import LONGEST
from hf_lwmm.files.scratch import tidy

_NO_NAME = "{} is a folder that other things are in. Give the output a name of its own."
State = tuple[tuple[str, int, int, int], ...]  # of each file below: its name, inode, size in bytes and time


@dataclass(frozen=True)
class Target:
    """A place for output; `before` tells what stood there when the work began, None for nothing."""

    path: Path
    before: State | None


def check_target(path: Path, overwrite: bool, inputs: Iterable[Path] = (), *, folder: bool = False) -> Target:
    """Return the place that output is to take, before any work is done for it.

    Args:
        path: the file or folder to write.
        overwrite: replace what stands there, as it is now.
        inputs: files and folders that the output is made of, which it never replaces, and never joins.
        folder: whether the output is a folder. A file never takes the place of a folder, nor a folder that of a file.

    Raises:
        MergeError: if something stands there that is not to be replaced, or nothing can be written there.
    """
    if path.name in ("", ".."):
        raise MergeError(_NO_NAME.format(path))
    _check_way(path.parent, path.name)
    tidy(path.parent)
    for each in inputs:
        _check_apart(path, each)
    if _is_around_us(path):
        raise MergeError(_NO_NAME.format(path))
    if not os.path.lexists(path):
        return Target(path, None)
    if not overwrite:
        raise MergeError(f"{path} exists already. Choose another output, or replace it with --overwrite.")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise MergeError(f"{path}: is neither a file nor a folder. Choose another output.")
    if path.exists() and path.is_dir() is not folder:
        kinds = ("file", "folder") if folder else ("folder", "file")
        raise MergeError("{} is a {}, and the output is a {}. Choose another output.".format(path, *kinds))
    return Target(path, state(path))


@dataclass(frozen=True)
class TargetFolder:
    """A folder that output of several files goes into, beside what is there; `before` is that, when the work began."""

    path: Path
    overwrite: bool
    before: Mapping[str, State]
    inputs: frozenset[tuple[int, int]] = frozenset()  # device and inode of each

    def file(self, name: str) -> Target:
        """Return the place of a file. Raises MergeError if it was there and is not to be replaced, or is an input."""
        path = self.path / name
        if name not in self.before:
            return Target(path, None)
        if not self.overwrite:
            raise MergeError(f"{path} exists already. Choose another folder, or replace it with --overwrite.")
        if not path.is_file():
            raise MergeError(f"{path}: is not a file. Choose another folder.")
        if _identity(path) in self.inputs:
            raise MergeError(f"{path} is one of the files that the output is made of. Choose another folder.")
        return Target(path, self.before[name])

    def check_free(self, *patterns: str) -> None:
        """Refuse files that are to be written, by patterns such as `*.png`, as `file` does. Raises MergeError."""
        wanted = re.compile("|".join(map(translate, patterns)))
        for name in filter(wanted.match, sorted(self.before)):
            self.file(name)


def check_target_folder(path: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> TargetFolder:
    """Return the folder that files are to be written into, before any work is done for it.

    Args:
        path: the folder, which need not exist.
        overwrite: replace files that are there, as they are now, if they have the names of new ones.
        inputs: files and folders that the files are made of. None of the files is replaced, and no file goes into one
            of the folders.

    Raises:
        MergeError: if the folder cannot be made or written into, or is an input, or in one.
    """
    _check_way(path)
    tidy(path)
    given = [each for each in inputs if os.path.exists(each)]  # noqa: PTH110  (pathlib's fails for long texts)
    for each in given:
        if each.is_dir():
            _check_apart(path, each, contains=False)
    before = {}
    try:
        for each in path.iterdir() if path.exists() else ():
            with contextlib.suppress(FileNotFoundError):  # another process removed it just now
                before[each.name] = _state_of_file(each)
    except OSError as error:
        raise MergeError(f"{path}: cannot be read: {error.strerror or error}.") from None
    return TargetFolder(path, overwrite, before, frozenset(map(_identity, given)))


def as_target_folder(folder: Path | TargetFolder) -> TargetFolder:
    """Return a folder that was chosen; in one that a path alone names, files are replaced. Raises MergeError."""
    return folder if isinstance(folder, TargetFolder) else check_target_folder(folder, overwrite=True)


def state(path: Path) -> State | None:
    """Return a value that changes when a file, or any file in a folder, is replaced or changed; None for nothing."""
    try:
        if not path.is_dir() or path.is_symlink():
            return _state_of_file(path)
        found = [(*_entry(path, "")[:2], 0, 0)]
    except (FileNotFoundError, NotADirectoryError):
        return None
    for folder, folders, files in os.walk(path):
        for each in (Path(folder, name) for name in (*folders, *files)):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # another program removed it just now
                found.append(_entry(each, each.relative_to(path).as_posix()))
    return tuple(sorted(found))


def _state_of_file(path: Path) -> State:
    return (_entry(path, ""),)


def _entry(path: Path, name: str) -> tuple[str, int, int, int]:
    found = path.lstat()
    return name, found.st_ino, found.st_size, found.st_mtime_ns


def _is_around_us(path: Path) -> bool:
    """True for the working folder, or a folder that it lies in: once that is moved, relative paths mean others."""
    if os.path.islink(path) or not os.path.isdir(path):  # noqa: PTH112, PTH114  (pathlib's fail for long texts)
        return False
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was deleted
        return False
    return any(os.path.lexists(each) and path.samefile(each) for each in (here, *here.parents))


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _check_way(folder: Path, name: str = "") -> None:
    """Refuse a folder that cannot be made or written into, and a name in it that is too long. Raises MergeError."""
    way = (folder, *folder.parents)
    try:
        there = next((each for each in way if os.path.lexists(each)), Path())
        fresh = way[: way.index(there)] if there in way else way
        longest = max(len(os.fsencode(part)) for part in (name, *(each.name for each in fresh)))
        with contextlib.suppress(OSError):
            (folder / name).lstat()
        is_folder, writable = there.is_dir(), os.access(there, os.W_OK | os.X_OK)
    except (OSError, ValueError):  # links in a circle, or characters that no name has
        raise MergeError(f"{folder / name!r} cannot be a path. Choose another output.") from None
    if not is_folder:
        raise MergeError(f"{folder / name}: {there} is not a folder, so nothing can be written into it.")
    if any(each.name == ".." for each in fresh):
        raise MergeError(f"{folder / name}: goes back from a folder that does not exist. Choose another output.")
    if longest > LONGEST:
        raise MergeError(f"{folder / name}: a name of {longest} bytes is too long; up to {LONGEST} are possible.")
    if not writable:
        raise MergeError(f"{there}: cannot be written to. Choose another output.")


def _check_apart(path: Path, given: Path, contains: bool = True) -> None:
    """Refuse a path that is an input, contains it or lies inside it. Raises MergeError."""
    output, source = (Path(os.path.realpath(each)) for each in (path, given))  # of links in a circle, too
    if output == source or (output.exists() and source.exists() and output.samefile(source)):
        relation = "is"
    elif contains and output in source.parents:
        relation = "contains"
    elif source in output.parents:
        relation = "lies inside"
    else:
        return
    raise MergeError(f"{path} {relation} {given}, which the output is made of. Choose another output.")
