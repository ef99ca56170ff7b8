"""Layer weights: the matrix H of Equation 1 and its knobs."""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

from hf_lwmm.errors import PlanError

LayerWeights = npt.NDArray[np.float64]
RAMPS = ("linear", "cosine", "step", "power:P")
_DIGITS = 12  # of cosines and powers, whose last bits differ between mathematical libraries


def fade(positions: int, *, start: float = 0.0, ramp: str = "linear") -> LayerWeights:
    """Return the part of its first-layer weight that a non-anchor model keeps at positions 1..Np.

    The part is 1 up to the fraction `start` of the depth and falls to 0 at the last position (paper, Eq. 1 and
    Fig. 5): r(j) = (Np - j) / (Np - start * Np), at most 1. The ramp `cosine` eases both ends, `step` keeps 1 until
    half way down, and `power:P` is r**P.

    Returns:
        (positions,) float64 in [0, 1].

    Raises:
        PlanError: if `start` is outside [0, 1) or the ramp is none of `RAMPS`.
    """
    if not 0 <= start < 1:
        raise PlanError(f"--start {start} must be a fraction of the depth, at least 0 and below 1.")
    linear = np.clip((positions - np.arange(1, positions + 1)) / (positions - start * positions), 0, 1)
    if ramp == "linear":
        return linear
    if ramp == "cosine":
        return np.array([round((1 - math.cos(math.pi * part)) / 2, _DIGITS) for part in linear.tolist()])
    if ramp == "step":
        return (linear >= 0.5).astype(np.float64)
    return np.array([round(part ** _exponent(ramp), _DIGITS) for part in linear.tolist()])


def _exponent(ramp: str) -> float:
    power = re.fullmatch(r"power:(\d+(?:\.\d+)?)", ramp)
    if power is None or float(power[1]) == 0:
        raise PlanError(f"--ramp {ramp} is none of {', '.join(RAMPS)} (P a number above 0).")
    return float(power[1])


def check_ramp(ramp: str) -> None:
    """Refuse a ramp that does not exist. Raises PlanError."""
    if ramp not in RAMPS[:-1]:
        _exponent(ramp)


def layerwise_weights(
    positions: int, models: int, anchor: int, *, start: float = 0.0, alpha: float | None = None, ramp: str = "linear"
) -> LayerWeights:
    """Return the weights of Equation 1: (positions, models), each row summing to 1, the anchor's the largest.

    Row j - 1 holds H_i(j). The anchor starts from `alpha` (1/models if None). The others share the rest equally, and
    their part fades to 0 at the last position.

    Raises:
        PlanError: if `alpha` is below 1/models, where the anchor would not be the largest, or above 1.
    """
    alpha = 1 / models if alpha is None else alpha
    if not 1 / models <= alpha <= 1:
        raise PlanError(f"--alpha {alpha} must be between 1/{models}, the weight of an equal among {models}, and 1.")
    other = fade(positions, start=start, ramp=ramp) * (1 - alpha) / max(models - 1, 1)
    weights = np.repeat(other[:, None], models, axis=1)
    weights[:, anchor] = 1 - other * (models - 1)
    return weights
