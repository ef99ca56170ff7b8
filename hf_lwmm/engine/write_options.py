"""Declare how a merged model is written."""

from __future__ import annotations

from dataclasses import dataclass

from hf_lwmm.options import option
from hf_lwmm.planning.file_options import FileOptions


@dataclass(frozen=True)
class WriteOptions(FileOptions):
    """The options of writing a merged model."""

    overwrite: bool = option(False, "Replace an existing output.")
    allow_nonfinite: bool = option(False, "Merge infinities, NaNs and negative variances too.")
    license: str | None = option(None, "License to state in place of the one that follows from the parents'.")
