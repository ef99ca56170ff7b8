"""Score the winner of a sweep on images that did not choose it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import PlanError
from hf_lwmm.evaluation.per_image import padded
from hf_lwmm.evaluation.report import EvaluationReport, report
from hf_lwmm.evaluation.task_metrics import METRICS
from hf_lwmm.evaluation.verdict import Verdict
from hf_lwmm.planning.images import ImageSource
from hf_lwmm.sweeping.grid import Candidate, singles
from hf_lwmm.sweeping.scorer import CandidateScorer, SweepData


@dataclass(frozen=True)
class Confirmation:
    """The scores of a sweep's winner and of all single models on another split.

    `report` has the winner last, unless it is a single model itself; `winner` is its place there.
    """

    split: str
    report: EvaluationReport = field(repr=False)
    winner: int

    @property
    def sentence(self) -> str:
        """The winner's score there, and how far it is from the best single model."""
        found, own = self.report, self.report.models[self.winner]
        runs = "" if found.drawn == "images" else f", {found.drawn}"
        text = (
            f"On {self.split} ({found.images} images{runs}), which did not choose it, {own.name} has "
            f"{100 * own.mean:.2f} {found.metric.name}"
        )
        if own.to_best is None or own.to_best_interval is None or found.best_parent is None:
            return f"{text}."
        low, high = (100 * end for end in own.to_best_interval)
        best = found.models[found.best_parent].name
        return f"{text}, {100 * own.to_best:+.2f} ({low:+.2f} to {high:+.2f}) to the best single model there, {best}."

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the winner, a merge, by its scores there; None if a single model won."""
        found = self.report.verdict
        if found is None or self.report.models[self.winner].kind != "merge":
            return None
        return replace(found, sentence=f"{found.sentence.removesuffix('.')}, on {self.split}.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the split, the winner's name, and the report on the split."""
        return {"split": self.split, "winner": self.report.models[self.winner].name, **self.report.to_dict()}


def confirming_images(images: ImageSource, split: str, task: str) -> ImageSource:
    """Return the images that the winner is scored on, after a look whether they are others than those that choose it.

    Args:
        images: the images that choose it.
        split: the name of another split.
        task: the kind of labels to read where there are several.

    Raises:
        DatasetError: if there is no such split.
        PlanError: if it holds the images that choose the winner, or the data set has no splits.
    """
    chosen = open_images(images, task=task)
    if not chosen.has_splits:
        folder, other = Path(images.data), "test" if split in ("val", "validation") else split
        raise PlanError(
            f"--confirm {split}: {folder} has no splits, so that all its images choose the winner. Put some of them "
            f"into {folder / other}/images and their labels into {folder / other}/labels, the others into "
            f"{folder / 'val'}/images and {folder / 'val'}/labels; then --confirm {other}."
        )
    others = replace(images, split=split)
    found = open_images(others, task=task)
    used = {*chosen.origins()[: chosen.count]}
    if shared := sum(origin in used for origin in found.origins()[: found.count]):
        raise PlanError(
            f"--confirm {split}: {shared} of the {found.count} images of {found.name} choose the winner; name another "
            "split."
        )
    ends = (0, chosen.count - 1)
    same = chosen.count == found.count and all(
        np.array_equal(np.asarray(chosen.read(end).image), np.asarray(found.read(end).image)) for end in ends
    )
    if same:
        raise PlanError(f"--confirm {split}: {found.name} holds the images that choose the winner; name another split.")
    return others


def confirm(
    scorer: CandidateScorer, data: SweepData, images: ImageSource, split: str, winner: Candidate
) -> Confirmation:
    """Score a winner and all single models on images that did not choose it.

    Args:
        scorer: the sweep's models and networks.
        data: what the images are, as `CandidateScorer.data` tells.
        images: the images to score on.
        split: the name of their split.
        winner: the model or merge with the highest score of the sweep.
    """
    compared = list(dict.fromkeys([*singles(len(scorer.models)), winner]))
    scored = [scorer.score(candidate, images) for candidate in compared]
    found = report(
        METRICS[scored[0].task],
        data.name,
        [candidate.name(scorer.labels) for candidate in compared],
        padded([each.counts for each in scored], axis=1),
        data.classes,
        kinds=[candidate.kind for candidate in compared],
        groups=data.groups,
    )
    return Confirmation(split, replace(found, commit=data.commit), compared.index(winner))
