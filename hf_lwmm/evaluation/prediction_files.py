"""The files that hold what a network finds in a picture."""

from __future__ import annotations

from dataclasses import dataclass

from hf_lwmm.files.names import fitted
from hf_lwmm.files.targets import Target, TargetFolder


@dataclass(frozen=True)
class PredictionFiles:
    """The places of the files for one picture; segments are for panoptic networks, boxes for detectors."""

    overlay: Target
    labels: Target
    segments: Target
    table: Target
    boxes: Target


# Of the names, in the fields' order.
_ENDINGS = ("_overlay.png", "_labels.png", "_segments.png", "_segments.json", "_boxes.json")


def prediction_files(folder: TargetFolder, stem: str) -> PredictionFiles:
    """Return the places in a folder whose names begin with `stem`. Raises MergeError if one is taken."""
    return PredictionFiles(*(folder.file(fitted(stem, ending)) for ending in _ENDINGS))
