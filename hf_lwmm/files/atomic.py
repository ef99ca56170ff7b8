"""Write atomically: output appears complete, or not at all, and replaces only what it was meant to replace."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from hf_lwmm.errors import MergeError
from hf_lwmm.files.renaming import exchange, rename_new
from hf_lwmm.files.scratch import REPLACED, scratch_folder, tidy

_State = tuple[tuple[str, int, int, int], ...]  # of each file below: its name, inode, size in bytes and time


@dataclass(frozen=True)
class Target:
    """A place for output; `before` tells what stood there when the work began, None for nothing."""

    path: Path
    before: _State | None


def check_target(path: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> Target:
    """Return the place that output is to take, before any work is done for it.

    Args:
        path: the file or folder to write.
        overwrite: replace what stands there, as it is now.
        inputs: files and folders that the output is made of, which it never replaces.

    Raises:
        MergeError: if something stands there that is not to be replaced.
    """
    tidy(path.parent)
    exists = os.path.lexists(path)
    for each in inputs if exists or overwrite else ():
        _check_apart(path, each)
    if not exists:
        return Target(path, None)
    if not overwrite:
        raise MergeError(f"{path} exists already. Choose another output, or replace it with --overwrite.")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise MergeError(f"{path}: is neither a file nor a folder. Choose another output.")
    return Target(path, _state(path))


@contextlib.contextmanager
def atomic(target: Target | Path | None) -> Iterator[Path]:
    """Return a context whose value is a free path; what stands there in the end, file or folder, becomes the target.

    The path lies in a scratch folder beside the target, which other files may use too and which vanishes in any case.
    Without a target nothing is kept. What stood at the target is there until the new one is whole and on the disk.

    A path is replaced whatever stands there. A `Target` is replaced only if what stands there is what stood there when
    the work began; if another program has written it since, that stays and the output gets a name beside it.

    Raises:
        MergeError: if the target cannot be written, or was written by another program.
    """
    path = target.path if isinstance(target, Target) else target
    parent = path.parent if path is not None else None
    with contextlib.ExitStack() as stack:
        try:
            if parent is not None:
                stack.callback(_remove_empty, [each for each in (parent, *parent.parents) if not each.exists()])
                parent.mkdir(parents=True, exist_ok=True)
            scratch = stack.enter_context(scratch_folder(parent))
            place = scratch / "new" / (path.name if path is not None else "output")
            place.parent.mkdir()
        except OSError as error:
            raise MergeError(f"{parent}: cannot be written to: {error.strerror or error}.") from None
        try:
            yield place
            if target is not None:
                _sync_all(place)
                _take_place(place, target, scratch / REPLACED)
        except OSError as error:
            raise MergeError(
                f"Could not write {path or place.name}: {_reason(error, scratch)}. Nothing was kept."
            ) from error
        if parent is not None:
            with contextlib.suppress(OSError):  # the name is given; only a power cut in this moment could undo it
                _sync(parent)


def _reason(error: OSError, scratch: Path) -> str:
    """The system's words, and the file that they are about if it is one that was read."""
    named = isinstance(error.filename, str) and scratch not in Path(error.filename).parents
    return f"{error.filename}: {error.strerror}" if named else error.strerror or str(error)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_apart(path: Path, given: Path) -> None:
    output, source = path.resolve(), given.resolve()
    if output == source:
        relation = "is"
    elif output in source.parents:
        relation = "contains"
    elif source in output.parents:
        relation = "lies inside"
    else:
        return
    raise MergeError(f"{path} {relation} {given}, which the output is made of. Choose another output.")


def _state(path: Path) -> _State | None:
    """A value that changes when a file, or any file in a folder, is replaced or changed; None if there is nothing."""
    if not os.path.lexists(path):
        return None
    if not path.is_dir() or path.is_symlink():
        return (_entry(path, ""),)
    found = [(*_entry(path, "")[:2], 0, 0)]
    for folder, folders, files in os.walk(path):
        below = [Path(folder, name) for name in (*folders, *files)]
        found += [_entry(each, each.relative_to(path).as_posix()) for each in below]
    return tuple(sorted(found))


def _entry(path: Path, name: str) -> tuple[str, int, int, int]:
    found = path.lstat()
    return name, found.st_ino, found.st_size, found.st_mtime_ns


def _take_place(place: Path, target: Target | Path, aside: Path) -> None:
    """Give finished output its name. `aside` is free; what waits there is given back its name by the next run."""
    if isinstance(target, Path):
        place.replace(target)
        return
    try:
        if _state(target.path) != target.before:
            raise FileExistsError
        if target.before is None:
            rename_new(place, target.path)
        elif not exchange(place, target.path):
            _replace_in_steps(place, target.path, aside)
        elif _state(place) != target.before:  # it was written in the moment between
            exchange(place, target.path)
            raise FileExistsError
    except FileExistsError:
        how = "appeared" if target.before is None else "was changed"
        raise MergeError(
            f"{target.path} {how} while this ran, so it was left as it is. The output is whole: it is "
            f"{_keep_beside(place, target.path)} now."
        ) from None


def _replace_in_steps(place: Path, target: Path, aside: Path) -> None:
    if place.is_file() and (target.is_file() or target.is_symlink()):
        place.replace(target)
        return
    aside.mkdir()
    target.rename(aside / target.name)
    try:
        place.rename(target)
    except BaseException:
        (aside / target.name).rename(target)
        raise


def _keep_beside(place: Path, target: Path) -> Path:
    """Give output a free name like the target's."""
    stem, suffix = (target.name, "") if place.is_dir() else (target.stem, target.suffix)
    for number in count(2):
        kept = target.with_name(f"{stem}-{number}{suffix}")
        with contextlib.suppress(FileExistsError):
            rename_new(place, kept)
            return kept
    raise AssertionError


def _sync_all(path: Path) -> None:
    """Bring a file, or a folder with all in it, onto the disk."""
    if path.is_dir():
        for folder, _, files in os.walk(path):
            for name in files:
                _sync(Path(folder, name))
            _sync(Path(folder))
    else:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that have no such thing for folders
            raise
    finally:
        os.close(descriptor)
