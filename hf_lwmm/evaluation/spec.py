"""Declare the options of an evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hf_lwmm.options import option
from hf_lwmm.planning.scoring import ScoringOptions

EXAMPLE_NAMES = ("[0-9][0-9]*_*.png",)  # patterns of the names of drawn examples


@dataclass(frozen=True)
class EvaluationSpec(ScoringOptions):
    """The options of an evaluation: how a score is made, speed, pictures."""

    ensemble: bool = option(False, "Also score the average of all models' outputs.")
    groups: str | None = option(
        None, "Images that intervals draw together: a column's equal values, or films (runs of frames, by file names)."
    )
    batch_size: int = option(1, "Images in a batch.", minimum=1)
    workers: int | None = option(
        None, "Threads that read and prepare images ahead of the networks.", minimum=1, shown="cores, at most 8"
    )
    examples: int = option(
        0, "Draw this many images on which the best other model and the anchor differ most.", minimum=0
    )

    @property
    def threads(self) -> int:
        """The number of threads that read images: `workers`, or as many as there are cores, at most 8."""
        return self.workers or min(os.cpu_count() or 1, 8)
