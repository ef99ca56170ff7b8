"""How far a score would move on other images: percentile intervals of the bootstrap (Efron 1979) over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.ratios import Counts, Values

Statistic = Callable[[Values], Values]  # (..., C, K) counts -> (...), such as `mean_iou`


class Interval(NamedTuple):
    """The middle 95% of what resampled data sets give."""

    low: float
    high: float


def bootstrap(counts: Counts, statistic: Statistic, *, samples: int = 1000, seed: int = 0) -> Interval:
    """95% interval of a statistic over images, from every image's counts (N, C, K).

    Samples in which the statistic is nan are left out.

    Raises:
        MetricError: if there are no images.
    """
    return _middle(statistic(_resampled(counts, samples, seed)))


def bootstrap_difference(
    counts: Counts, reference: Counts, statistic: Statistic, *, samples: int = 1000, seed: int = 0
) -> Interval:
    """95% interval of statistic(counts) - statistic(reference), two models' counts (N, C, K) of the same images.

    Both are resampled with the same images, so that what makes an image hard for both cancels out.

    Raises:
        MetricError: if there are no images, or the numbers of images differ.
    """
    if len(counts) != len(reference):
        raise MetricError(f"A paired interval needs the same images, not {len(counts)} and {len(reference)}.")
    return _middle(statistic(_resampled(counts, samples, seed)) - statistic(_resampled(reference, samples, seed)))


def _resampled(counts: Counts, samples: int, seed: int) -> Values:
    """Sums (samples, C, K) of the counts of N images drawn with replacement; the draws depend on N and seed alone."""
    images = len(counts)
    if not images:
        raise MetricError("An interval over images needs at least one image.")
    flat = counts.reshape(images, -1).astype(np.float64)
    random = np.random.default_rng(seed)
    sums = np.empty((samples, flat.shape[1]))
    for row in sums:
        row[:] = np.bincount(random.integers(images, size=images), minlength=images) @ flat
    return sums.reshape(samples, *counts.shape[1:])


def _middle(values: Values) -> Interval:
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
    return Interval(float(low), float(high))
