"""Tell which files and folders of this machine output is made of, so that it never replaces them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, TypeAlias

from hf_lwmm.hub import ModelRef, Ref, Source, parse_ref
from hf_lwmm.planning.images import ImageSource
from hf_lwmm.planning.inputs import MergeInputs, ReadingOptions
from hf_lwmm.planning.scoring import ScoringOptions


class Loaded(Protocol):
    """A network that was loaded from somewhere."""

    @property
    def source(self) -> Source:
        """Where it was loaded from."""


Input: TypeAlias = Ref | Loaded | ImageSource | ReadingOptions | ScoringOptions | MergeInputs | None


def local_inputs(*given: Input) -> list[Path]:
    """Return the files and folders of this machine that models, images and options are read from. Raises RefError."""
    return [path for each in given for path in _read_for(each)]


def _read_for(given: Input) -> list[Path]:
    if isinstance(given, MergeInputs):
        images = (given.tune_images, given.bn_images, given.eval_images)
        return local_inputs(given.base, *given.measurements, *images, given.network)
    if isinstance(given, ImageSource):
        return _existing(given.data)
    if isinstance(given, ReadingOptions):
        return list(given.label_files)
    if isinstance(given, ScoringOptions):
        return _existing(given.protocol) if given.reads_file else []
    if given is None:
        return []
    ref = parse_ref(given) if isinstance(given, str | Path | ModelRef) else given.source.ref
    return [ref.path] if ref.path is not None else []


def _existing(name: str | None) -> list[Path]:
    return [Path(name)] if name and os.path.exists(name) else []  # noqa: PTH110  (pathlib's fails for long texts)
