"""The metric of each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.metrics.bootstrap import ResampleScore, summed
from hf_lwmm.metrics.classification import class_accuracy, overall_accuracy
from hf_lwmm.metrics.detection import average_precision, mean_ap
from hf_lwmm.metrics.panoptic import panoptic_scores, pq
from hf_lwmm.metrics.ratios import mean
from hf_lwmm.metrics.semantic import iou, semantic_scores

Counts = NDArray[Any]  # int64; float64 for segments, whose first column sums IoUs, and for boxes


@dataclass(frozen=True)
class Metric:
    """The metric of a task, computed from the counts of images (N, rows, K) and the ids of the scored classes.

    `name` is that of a model's score, the mean over classes, and `of_class` that of the score of one class. `by_class`
    gives the score of each class, nan for one that does not occur; `resample_score` that of a model on resamples of the
    images; and `extras` further scores by name.
    """

    task: str
    name: str
    of_class: str
    by_class: Callable[[Counts, Sequence[int]], Any]
    extras: Callable[[Counts, Sequence[int]], dict[str, float]]
    resample_score: Callable[[Sequence[int]], ResampleScore]

    def mean(self, counts: Counts, classes: Sequence[int]) -> float:
        """Return the mean of the classes' scores, a fraction."""
        return float(mean(np.asarray(self.by_class(counts, classes))))


def _summed(
    task: str,
    name: str,
    of_class: str,
    by_class: Callable[[Counts, Sequence[int]], Any],
    extras: Callable[[Counts, Sequence[int]], dict[str, float]],
) -> Metric:
    """Make a metric whose counts (N, classes, K) are summed over images before scores are computed."""
    return Metric(
        task,
        name,
        of_class,
        lambda counts, classes: by_class(counts.sum(axis=0), classes),
        lambda counts, classes: extras(counts.sum(axis=0), classes),
        lambda classes: summed(lambda totals: mean(by_class(totals, classes))),
    )


def _semantic_extras(totals: Counts, classes: Sequence[int]) -> dict[str, float]:
    scores = semantic_scores(totals, classes)
    return {"mean accuracy": scores.mean_accuracy, "pixel accuracy": scores.pixel_accuracy}


def _panoptic_extras(totals: Counts, classes: Sequence[int]) -> dict[str, float]:
    scores = panoptic_scores(totals, classes)
    return {"mean SQ": scores.mean_sq, "mean RQ": scores.mean_rq}


def _classification_extras(totals: Counts, classes: Sequence[int]) -> dict[str, float]:
    return {"overall accuracy": float(overall_accuracy(totals, classes))}


METRICS = {
    metric.task: metric
    for metric in (
        _summed("semantic", "mIoU", "IoU", iou, _semantic_extras),
        _summed("panoptic", "mean PQ", "PQ", pq, _panoptic_extras),
        _summed("classification", "average accuracy", "accuracy", class_accuracy, _classification_extras),
        Metric(
            "detection",
            "mean AP",
            "AP",
            lambda counts, classes: average_precision(counts, classes)[0],
            lambda counts, classes: {"mean AP50": float(mean(average_precision(counts, classes)[1]))},
            lambda classes: lambda counts, weights: mean_ap(counts, weights, classes),
        ),
    )
}
