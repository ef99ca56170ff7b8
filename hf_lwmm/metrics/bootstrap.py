"""How far a score would move on other images: percentile intervals of the bootstrap (Efron 1979) over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.ratios import Counts, Values

# From every image's counts (N, ...), and how often each image was drawn (samples, N), a score of each sample.
Statistic = Callable[[Counts, Values], Values]


class Interval(NamedTuple):
    """The middle 95% of what resampled data sets give."""

    low: float
    high: float


def summed(score: Callable[[Values], Values]) -> Statistic:
    """The statistic of a score, such as `mean_iou`, that takes counts (..., C, K) summed over images."""

    def statistic(counts: Counts, weights: Values) -> Values:
        flat = counts.reshape(len(counts), -1).astype(np.float64)
        return score((weights @ flat).reshape(len(weights), *counts.shape[1:]))

    return statistic


def resampled(counts: Counts, statistic: Statistic, *, samples: int = 1000, seed: int = 0) -> Values:
    """(samples,) what a statistic is on images drawn with replacement, from every image's counts (N, ...).

    The same images are drawn for any counts of N images: the difference of two models' values is a paired one, in
    which what makes an image hard for both cancels out.

    Raises:
        MetricError: if there are no images.
    """
    return statistic(counts, _draws(len(counts), samples, seed))


def interval(values: Values) -> Interval:
    """The 95% interval of resampled values, or of the differences of two models'; those that are nan are left out."""
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
    return Interval(float(low), float(high))


def _draws(images: int, samples: int, seed: int) -> Values:
    """(samples, images) how often each image is in a sample drawn with replacement."""
    if not images:
        raise MetricError("An interval over images needs at least one image.")
    random = np.random.default_rng(seed)
    weights = np.empty((samples, images))
    for row in weights:
        row[:] = np.bincount(random.integers(images, size=images), minlength=images)
    return weights
