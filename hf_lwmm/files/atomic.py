"""Write atomically: output appears complete, or not at all, and replaces only what it was meant to replace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from hf_lwmm.errors import MergeError
from hf_lwmm.files.names import fitted
from hf_lwmm.files.renaming import exchange, rename_new
from hf_lwmm.files.scratch import REPLACED, scratch_folder
from hf_lwmm.files.syncing import sync_all, sync_path
from hf_lwmm.files.targets import Target, state

_LONGEST_SUFFIX = 20  # characters; what is longer is no suffix, but a name with a dot


class DisplacedError(MergeError):
    """Another program took the place of output, which is whole, and is at `path`."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


@contextlib.contextmanager
def atomic(target: Target | Path | None) -> Iterator[Path]:
    """Return a context whose value is a free path; what stands there in the end, file or folder, becomes the target.

    The path lies in a scratch folder beside the target, which other files may use too and which vanishes in any case.
    Without a target nothing is kept. What stood at the target is there until the new one is whole and on the disk.

    A path is replaced whatever stands there. A `Target` is replaced only if what stands there is what stood there when
    the work began; if another program has written it since, that stays and the output gets a name beside it.

    Raises:
        MergeError: if the target cannot be written.
        DisplacedError: if it was written by another program.
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
                sync_all(place)
                _take_place(place, target, scratch / REPLACED)
        except OSError as error:
            raise MergeError(
                f"Could not write {path or place.name}: {_reason(error, scratch)}. Nothing was kept."
            ) from error
        if parent is not None:
            with contextlib.suppress(OSError):  # the name is given; only a power cut in this moment could undo it
                sync_path(parent)


def _reason(error: OSError, scratch: Path) -> str:
    """The system's words, and the file that they are about if it is one that was read."""
    named = isinstance(error.filename, str) and scratch not in Path(error.filename).parents
    return f"{error.filename}: {error.strerror}" if named else error.strerror or str(error)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _take_place(place: Path, target: Target | Path, aside: Path) -> None:
    """Give finished output its name. `aside` is free; what waits there is given back its name by the next run."""
    if isinstance(target, Path):
        place.replace(target)
        return
    try:
        if state(target.path) != target.before:
            raise FileExistsError
        if target.before is None:
            rename_new(place, target.path)
        elif not exchange(place, target.path):
            _replace_in_steps(place, target.path, aside)
        elif state(place) != target.before:  # it was written in the moment between
            exchange(place, target.path)
            raise FileExistsError
    except (FileExistsError, FileNotFoundError):  # the second if another program removes what is to be replaced
        how, kept = "appeared" if target.before is None else "was changed", _keep_beside(place, target.path)
        raise DisplacedError(
            f"{target.path} {how} while this ran, so it was left as it is. The output is whole: it is {kept} now.", kept
        ) from None


def _replace_in_steps(place: Path, target: Path, aside: Path) -> None:
    if place.is_file() and (target.is_file() or target.is_symlink()):
        place.replace(target)
        return
    aside.mkdir()
    target.rename(aside / target.name)  # where it is given its name back from, unless the new one has it
    place.rename(target)


def _keep_beside(place: Path, target: Path) -> Path:
    """Give output a free name like the target's."""
    plain = place.is_dir() or len(target.suffix) > _LONGEST_SUFFIX
    stem, suffix = (target.name, "") if plain else (target.stem, target.suffix)
    for number in count(2):
        kept = target.with_name(fitted(stem, f"-{number}{suffix}"))
        with contextlib.suppress(FileExistsError):
            rename_new(place, kept)
            return kept
    raise AssertionError
