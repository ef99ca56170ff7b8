"""Write atomically: output appears complete, or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hf_lwmm.errors import MergeError


@contextlib.contextmanager
def atomic(target: Path | None) -> Iterator[Path]:
    """Return a context whose value is a free path; what stands there in the end, file or folder, becomes `target`.

    The path lies in a scratch folder beside the target, which other files may use too and which vanishes in any case.
    Without a target nothing is kept. A file or folder that stood at the target is there until the new one is whole.

    Raises:
        MergeError: if the target cannot be written.
    """
    parent = target.parent if target is not None else None
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{target.name}." if target is not None else "hf-lwmm-"
        scratch = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    except OSError as error:
        raise MergeError(f"{parent}: cannot be written to: {error.strerror or error}.") from None
    place = scratch / (target.name if target is not None else "output")
    try:
        yield place
        if target is not None:
            _replace(place, target, scratch / "replaced")
    except OSError as error:
        raise MergeError(f"Could not write {target or place}: {error.strerror or error}. Nothing was kept.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a target that exists, unless `overwrite` is set. Raises MergeError."""
    if target.exists() and not overwrite:
        raise MergeError(f"{target} exists already. Choose another output, or replace it with --overwrite.")


def _replace(place: Path, target: Path, aside: Path) -> None:
    if not target.is_dir() and not place.is_dir():
        place.replace(target)
        return
    if not target.exists():
        place.rename(target)
        return
    target.rename(aside)
    try:
        place.rename(target)
    except BaseException:
        aside.rename(target)
        raise
