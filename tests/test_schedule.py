"""Layer weights: Equation 1 and its knobs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_lwmm.errors import PlanError
from hf_lwmm.methods.schedule import fade, layerwise_weights

sizes = st.integers(1, 300)
models = st.integers(1, 8)
ramps = st.sampled_from(["linear", "cosine", "step", "power:2", "power:0.5"])
starts = st.floats(0, 0.99)


@given(sizes, models, st.data())
def test_the_default_is_equation_one(positions: int, count: int, data: st.DataObject) -> None:
    anchor = data.draw(st.integers(0, count - 1))
    weights = layerwise_weights(positions, count, anchor)
    for j in range(1, positions + 1):
        for i in range(count):
            other = (positions - j) / (positions * count)
            expected = 1 - (count - 1) * other if i == anchor else other
            assert weights[j - 1, i] == pytest.approx(expected, abs=1e-12)


@given(sizes, st.integers(2, 8), starts, ramps, st.floats(0, 1))
def test_weights_sum_to_one_and_the_anchors_is_largest(
    positions: int, count: int, start: float, ramp: str, part: float
) -> None:
    alpha = 1 / count + part * (1 - 1 / count)
    weights = layerwise_weights(positions, count, 0, start=start, ramp=ramp, alpha=min(alpha, 1.0))
    assert np.allclose(weights.sum(axis=1), 1)
    assert (weights[:, :1] >= weights[:, 1:] - 1e-12).all()
    assert (weights >= 0).all() and weights[-1, 0] == 1


@given(sizes, starts, ramps)
def test_the_fade_falls_from_one_to_zero(positions: int, start: float, ramp: str) -> None:
    values = fade(positions, start=start, ramp=ramp)
    assert (np.diff(values) <= 0).all() and values[-1] == 0 and values.max() <= 1
    linear = fade(positions, start=start)
    assert (linear[: int(start * positions)] == 1).all()


def test_alpha_is_the_anchors_first_weight() -> None:
    weights = layerwise_weights(1000, 3, 1, alpha=0.6, start=0.5)
    assert weights[0] == pytest.approx([0.2, 0.6, 0.2]) and weights[499] == pytest.approx([0.2, 0.6, 0.2])


@pytest.mark.parametrize(
    "knobs", [{"start": 1.0}, {"start": -0.1}, {"ramp": "sudden"}, {"ramp": "power:0"}, {"alpha": 0.2}, {"alpha": 1.1}]
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(PlanError):
        layerwise_weights(10, 3, 0, **knobs)  # type: ignore[arg-type]
