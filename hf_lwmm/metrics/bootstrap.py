"""Percentile intervals of scores from bootstrap resamples of the images, or of groups of them (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.ratios import Counts, Values

# From the counts of every image (N, ...) and how often each resample has each image (resamples, N) to its score
# on each resample (resamples,).
ResampleScore = Callable[[Counts, Values], Values]


class Interval(NamedTuple):
    """The limits between which the middle 95 % of the resamples' scores lie."""

    low: float
    high: float


def summed(score: Callable[[Values], Values]) -> ResampleScore:
    """Return the resample score of a score, such as `mean_iou`, that takes counts (..., C, K) summed over images."""

    def on_resamples(counts: Counts, weights: Values) -> Values:
        flat = counts.reshape(len(counts), -1).astype(np.float64)
        return score((weights @ flat).reshape(len(weights), *counts.shape[1:]))

    return on_resamples


def score_resamples(
    counts: Counts,
    score: ResampleScore,
    groups: NDArray[np.intp] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Values:
    """Score resamples of the images, each drawn with replacement: (resamples,).

    The same images are drawn for any counts of N images. The difference between two models' scores is therefore a
    paired one, in which the difficulty of an image for both cancels out.

    Args:
        counts: (N, ...), the counts of every image.
        score: the score to take, such as `summed(mean_iou)`.
        groups: (N,), the number of the group of each image, from 0 on; whole groups are drawn. None draws single
            images.
        resamples: how many resamples to draw.
        seed: of the random numbers.

    Raises:
        MetricError: if there are no images, or the groups are of another number of them.
    """
    if groups is None:
        return score(counts, _draws(len(counts), resamples, seed))
    if len(groups) != len(counts):
        raise MetricError(f"There are groups of {len(groups)} images, but counts of {len(counts)}.")
    return score(counts, _draws(int(groups.max(initial=-1)) + 1, resamples, seed)[:, groups])


def interval(scores: Values) -> Interval:
    """Return the 95 % interval of (resamples,) scores, or of differences between two models' scores, without nan."""
    known = scores[~np.isnan(scores)]
    low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
    return Interval(float(low), float(high))


def _draws(count: int, resamples: int, seed: int) -> Values:
    """The number of times that each of `count` images or groups is in each resample: (resamples, count)."""
    if not count:
        raise MetricError("An interval over images needs at least one image.")
    random = np.random.default_rng(seed)
    weights = np.empty((resamples, count))
    for row in weights:
        row[:] = np.bincount(random.integers(count, size=count), minlength=count)
    return weights
