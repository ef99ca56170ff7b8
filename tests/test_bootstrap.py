"""Resampled intervals of scores and of differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.bootstrap import interval, score_resamples, summed
from hf_lwmm.metrics.classification import classification_counts, overall_accuracy
from hf_lwmm.metrics.semantic import mean_iou

per_image = arrays(np.int64, st.tuples(st.integers(1, 12), st.just(4), st.just(3)), elements=st.integers(0, 1000))


@given(per_image, st.integers(0, 3))
def test_an_interval_lies_between_the_best_and_the_worst_image_of_one_class(counts: np.ndarray, seed: int) -> None:
    first = counts[:, :1] + 1
    low, high = interval(score_resamples(first, summed(mean_iou), resamples=50, seed=seed))
    assert mean_iou(first).min() - 1e-12 <= low <= high <= mean_iou(first).max() + 1e-12
    assert (low, high) == interval(score_resamples(first, summed(mean_iou), resamples=50, seed=seed))


@given(per_image)
def test_a_model_does_not_differ_from_itself(counts: np.ndarray) -> None:
    values = [score_resamples(counts + 1, summed(mean_iou), resamples=20) for _ in range(2)]
    assert interval(values[0] - values[1]) == (0, 0)


def test_intervals_have_the_width_that_theory_gives() -> None:
    random = np.random.default_rng(0)
    right = random.random(2000) < 0.8
    labels = np.zeros(2000, int)
    counts = classification_counts(labels, np.where(right, 0, 1), 2)
    low, high = interval(score_resamples(counts, summed(overall_accuracy), resamples=2000))
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 2000)
    assert low == pytest.approx(right.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(right.mean() + half, abs=0.1 * half)
    accuracy = summed(overall_accuracy)
    # A second model that is right on 20 images more: far from 0 in pairs, within the noise on its own.
    better = right.copy()
    better[np.flatnonzero(~right)[:20]] = True
    others = classification_counts(labels, np.where(better, 0, 1), 2)
    low, high = interval(score_resamples(others, accuracy) - score_resamples(counts, accuracy))
    assert 0 < low < 0.01 < high < 0.02


def test_resamples_without_a_score_are_left_out() -> None:
    counts = np.zeros((3, 1, 3), np.int64)
    assert np.isnan(interval(score_resamples(counts, summed(mean_iou)))).all()
    counts[0] = [[1, 1, 0]]
    assert interval(score_resamples(counts, summed(mean_iou))) == (0.5, 0.5)


@pytest.mark.parametrize("groups", [None, np.zeros(0, np.intp)])
def test_intervals_need_images(groups: np.ndarray | None) -> None:
    with pytest.raises(MetricError, match="at least one"):
        score_resamples(np.zeros((0, 2, 3), int), summed(mean_iou), groups)
