"""Accuracies of image classifiers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.ratios import Classes, Counts, Values, chosen, mean, ratio


def classification_counts(
    labels: npt.NDArray[np.integer], predictions: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Count right and wrong images: (N, classes, 2) int64, with a single 1 for each image in the row of its true class.

    Args:
        labels: (N,) class indices.
        predictions: (N,) class indices; any other number is wrong.
        classes: the number of classes.

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


def class_accuracy(counts: Counts, classes: Classes | None = None) -> Values:
    """Return the accuracy of each class from (..., C, 2) counts: (..., classes), nan for a class without images."""
    part = chosen(counts, classes)
    return ratio(part[..., 0], part.sum(axis=-1))


def average_accuracy(counts: Counts, classes: Classes | None = None) -> Values:
    """Return the mean of the classes' accuracies from (..., C, 2) counts: (...)."""
    return mean(class_accuracy(counts, classes))


def overall_accuracy(counts: Counts, classes: Classes | None = None) -> Values:
    """Return the fraction of images that are right from (..., C, 2) counts: (...)."""
    part = chosen(counts, classes)
    return ratio(part[..., 0].sum(axis=-1), part.sum(axis=(-1, -2)))
