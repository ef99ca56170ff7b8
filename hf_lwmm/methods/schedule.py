"""Layer weights: the matrix H of Equation 1 and its knobs."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from hf_lwmm.errors import PlanError

Weights = npt.NDArray[np.float64]
RAMPS = ("linear", "cosine", "step", "power:P")


def fade(positions: int, *, start: float = 0.0, ramp: str = "linear") -> Weights:
    """How much of its first-layer weight a non-anchor model keeps at positions 1..Np: (positions,) in [0, 1].

    It is 1 up to the fraction `start` of the depth and falls to 0 at the last position (paper, Eq. 1 and Fig. 5):
    r(j) = (Np - j) / (Np - start * Np), at most 1. `cosine` eases both ends of it, `step` keeps 1 until half way
    down, `power:p` is r**p.

    Raises:
        PlanError: if `start` is outside [0, 1) or the ramp is none of `RAMPS`.
    """
    if not 0 <= start < 1:
        raise PlanError(f"--start {start} must be a fraction of the depth, at least 0 and below 1.")
    linear = np.clip((positions - np.arange(1, positions + 1)) / (positions - start * positions), 0, 1)
    if ramp == "linear":
        return linear
    if ramp == "cosine":
        return (1 - np.cos(np.pi * linear)) / 2
    if ramp == "step":
        return (linear >= 0.5).astype(np.float64)
    power = re.fullmatch(r"power:(\d+(?:\.\d+)?)", ramp)
    if power is None or float(power[1]) == 0:
        raise PlanError(f"--ramp {ramp} is none of {', '.join(RAMPS)} (P a number above 0).")
    return np.asarray(linear ** float(power[1]))


def layerwise_weights(
    positions: int, models: int, anchor: int, *, start: float = 0.0, alpha: float | None = None, ramp: str = "linear"
) -> Weights:
    """Equation 1: (positions, models) weights, each row summing to 1, the anchor's the largest of its row.

    Row j - 1 holds H_i(j). The anchor starts from `alpha` (1/models if None), the others share the rest equally,
    and their part fades to 0 at the last position.

    Raises:
        PlanError: if `alpha` is below 1/models (the anchor would not be the largest) or above 1.
    """
    alpha = 1 / models if alpha is None else alpha
    if not 1 / models <= alpha <= 1:
        raise PlanError(f"--alpha {alpha} must be between 1/{models}, the weight of an equal among {models}, and 1.")
    other = fade(positions, start=start, ramp=ramp) * (1 - alpha) / max(models - 1, 1)
    weights = np.repeat(other[:, None], models, axis=1)
    weights[:, anchor] = 1 - other * (models - 1)
    return weights
