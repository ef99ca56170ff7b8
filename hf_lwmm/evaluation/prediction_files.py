"""The files that hold what a network finds in a picture."""

from __future__ import annotations

from dataclasses import dataclass

from hf_lwmm.files.names import fitted
from hf_lwmm.files.targets import Target, TargetFolder


@dataclass(frozen=True)
class PredictionFiles:
    """The places of the files for one picture; those of the segments are for panoptic networks."""

    overlay: Target
    labels: Target
    segments: Target
    table: Target


_ENDINGS = ("_overlay.png", "_labels.png", "_segments.png", "_segments.json")  # of the names, in the fields' order


def prediction_files(folder: TargetFolder, stem: str) -> PredictionFiles:
    """Return the places in a folder whose names begin with `stem`. Raises MergeError if one is taken."""
    return PredictionFiles(*(folder.file(fitted(stem, ending)) for ending in _ENDINGS))
