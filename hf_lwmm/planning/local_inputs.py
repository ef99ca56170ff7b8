"""Tell which files and folders of this machine output is made of, so that it never replaces them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from hf_lwmm.hub import ModelRef, Ref, Source, parse_ref
from hf_lwmm.planning.images import ImageSource


class Loaded(Protocol):
    """A network that was loaded from somewhere."""

    @property
    def source(self) -> Source:
        """Where it was loaded from."""


def local_inputs(*given: Ref | Loaded | ImageSource | None) -> list[Path]:
    """Return the files and folders of this machine that models and images are read from. Raises RefError."""
    paths = []
    for each in given:
        if isinstance(each, ImageSource):
            paths += [Path(each.data)] if Path(each.data).exists() else []
        elif each is not None:
            ref = parse_ref(each) if isinstance(each, str | Path | ModelRef) else each.source.ref
            paths += [ref.path] if ref.path is not None else []
    return paths
