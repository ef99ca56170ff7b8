"""Accuracies of image classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.ratios import Classes, Counts, Values, chosen, mean, ratio


@dataclass(frozen=True)
class ClassificationScores:
    """`accuracy` is (classes,), nan for a class without images; `average` is its mean, `overall` that over images."""

    accuracy: Values
    average: float
    overall: float


def classification_counts(
    labels: npt.NDArray[np.integer], predictions: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Every image's (classes, 2) of zeros and, for its true class, whether it is right and whether it is wrong.

    Args:
        labels: (N,) class indices.
        predictions: (N,) class indices; any other number is wrong.

    Raises:
        MetricError: if the lengths differ or a label is outside 0..classes - 1.
    """
    if labels.shape != predictions.shape:
        raise MetricError(f"There are {labels.size} labels but {predictions.size} predictions.")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise MetricError(f"The labels go from {labels.min()} to {labels.max()}, outside 0 to {classes - 1}.")
    counts = np.zeros((labels.size, classes, 2), dtype=np.int64)
    counts[np.arange(labels.size), labels, (labels != predictions).astype(np.intp)] = 1
    return counts


def classification_scores(counts: Counts, classes: Classes | None = None) -> ClassificationScores:
    """Scores of a data set from its (C, 2) counts, summed over images."""
    return ClassificationScores(
        class_accuracy(counts, classes),
        float(average_accuracy(counts, classes)),
        float(overall_accuracy(counts, classes)),
    )


def class_accuracy(counts: Counts, classes: Classes | None = None) -> Values:
    """The part of each class's images that is right, of (..., C, 2) counts: (..., classes), nan without images."""
    part = chosen(counts, classes)
    return ratio(part[..., 0], part.sum(axis=-1))


def average_accuracy(counts: Counts, classes: Classes | None = None) -> Values:
    """The mean of the classes' accuracies of (..., C, 2) counts: (...)."""
    return mean(class_accuracy(counts, classes))


def overall_accuracy(counts: Counts, classes: Classes | None = None) -> Values:
    """The part of the images of (..., C, 2) counts that is right: (...)."""
    part = chosen(counts, classes)
    return ratio(part[..., 0].sum(axis=-1), part.sum(axis=(-1, -2)))
