"""Atomic writing: what is made appears under its name whole, or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hf_lwmm.errors import MergeError

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")


@contextlib.contextmanager
def staged(target: Path | None) -> Iterator[Path]:
    """A temporary folder that becomes `target` when all went well, and vanishes in any other case.

    A `target` with the suffix of a weight file becomes the one file of that suffix in the folder.

    Raises:
        MergeError: if the target cannot be written.
    """
    parent = target.parent if target is not None else None
    if parent is not None:
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MergeError(f"{parent}: cannot be made: {error.strerror}.") from None
    prefix = f".{target.name}." if target is not None else "hf-lwmm-"
    try:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    except OSError as error:
        raise MergeError(f"{parent}: cannot be written to: {error.strerror}.") from None
    try:
        yield folder
        if target is not None:
            _replace(_finished(folder, target), target)
    except OSError as error:
        raise MergeError(f"Could not write {target or folder}: {error.strerror or error}. Nothing was kept.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Raises MergeError if something is there that nobody allowed to replace."""
    if target.exists() and not overwrite:
        raise MergeError(f"{target} exists already. Choose another --output, or replace it with --overwrite.")


def _finished(folder: Path, target: Path) -> Path:
    if target.suffix in WEIGHT_SUFFIXES:
        return next(path for path in folder.iterdir() if path.suffix == target.suffix)
    folder.chmod(0o755)
    return folder


def _replace(folder: Path, target: Path) -> None:
    if not target.exists():
        folder.rename(target)
        return
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.")) / "replaced"
    target.rename(aside)
    try:
        folder.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)
