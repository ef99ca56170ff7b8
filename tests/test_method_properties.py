"""What every merge method must hold to, on values drawn at random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_lwmm.methods import METHODS, Slot, make_method

BASED = [name for name, method in METHODS.items() if "base" in method.needs]


def options_for(method: str) -> dict[str, float]:
    """Options under which models that equal each other and the base's sum come out as they went in."""
    return {"scale": 1.0, "density": 1.0} if method == "ties" else {}


tensors = arrays(np.float64, (4, 3), elements=st.floats(-2, 2, width=32))


def slot(values: list[np.ndarray], base: np.ndarray | None = None, statistics: list[np.ndarray] = []) -> Slot:  # noqa: B006
    return Slot("s", 2, 5, tuple(values), base, tuple(statistics))


def applied(name: str, values: list[np.ndarray], base: np.ndarray, options: dict[str, float]) -> np.ndarray:
    method = make_method(name, options)
    if method.linear:
        weights = method.weights(5, len(values), 0)[1]
        rest = 1 - weights.sum()
        return sum(w * v for w, v in zip(weights, values, strict=True)) + rest * (base if rest else 0)
    ones = [np.ones((4, 3)) if "fisher" in method.needs else np.eye(3) for _ in values]
    return method.merge(slot(values, base, ones if method.needs & {"fisher", "grams"} else []))


@pytest.mark.parametrize("name", ["layerwise", "isotropic", "fisher", "slerp", "model-stock", "regmean", "ties"])
@given(value=tensors, base=tensors)
def test_equal_models_come_out_as_they_went_in(name: str, value: np.ndarray, base: np.ndarray) -> None:
    result = applied(name, [value, value], base, options_for(name))
    np.testing.assert_allclose(result, value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["isotropic", "fisher", "task-arithmetic", "ties", "breadcrumbs", "model-stock", "lines", "regmean", "wise"]
)
@given(values=st.lists(tensors, min_size=3, max_size=3), base=tensors)
@settings(max_examples=40)
def test_the_order_of_models_says_nothing(name: str, values: list[np.ndarray], base: np.ndarray) -> None:
    if name == "model-stock" and any(not (value - base).any() for value in values):
        return  # a model that is the base has no direction
    one = applied(name, values, base, {})
    np.testing.assert_allclose(applied(name, [values[2], values[0], values[1]], base, {}), one, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", BASED)
@given(base=tensors)
def test_models_that_are_the_base_stay_it(name: str, base: np.ndarray) -> None:
    np.testing.assert_allclose(applied(name, [base, base], base, {}), base, rtol=1e-12, atol=1e-12)


def test_tiny_and_opposite_task_vectors_do_not_break_a_formula() -> None:
    base, step = np.zeros(2), np.array([1.0, -2.0])
    kept_one = applied("ties", [step, step], base, {"density": 0.2})  # a fifth of two elements is none
    assert np.array_equal(kept_one, [0, -2])
    assert np.array_equal(applied("model-stock", [step, -step], base, {}), base)


def test_without_a_floor_what_no_model_has_fisher_information_of_is_averaged() -> None:
    values, measured = [np.array([1.0, 1.0]), np.array([3.0, 3.0])], [np.array([0.0, 0.0]), np.array([0.0, 1e-40])]
    merged = make_method("fisher", {"floor": 0}).merge(slot(values, statistics=measured))
    np.testing.assert_allclose(merged, [2, 3], rtol=1e-12)


@given(values=st.lists(tensors, min_size=1, max_size=4), base=tensors, t=st.floats(0, 1))
def test_wise_lies_between_the_base_and_the_average(values: list[np.ndarray], base: np.ndarray, t: float) -> None:
    ends = base, np.mean(values, axis=0)
    found = applied("wise", values, base, {"t": t})
    np.testing.assert_allclose(found, (1 - t) * ends[0] + t * ends[1], rtol=1e-9, atol=1e-9)
    assert (found >= np.minimum(*ends) - 1e-9).all() and (found <= np.maximum(*ends) + 1e-9).all()
