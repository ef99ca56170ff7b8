"""Layer weights: the matrix H of the paper's Equation 1, with the knobs of its Figure 5."""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

from hf_lwmm.errors import PlanError

LayerWeights = npt.NDArray[np.float64]
NAMED_RAMPS = ("linear", "cosine", "step")
_RAMPS = (*NAMED_RAMPS, "power:P")
_DIGITS = 12  # of cosines and powers, whose last bits depend on the mathematical library


def fade(positions: int, *, start: float = 0.0, ramp: str = "linear") -> LayerWeights:
    """Return the fraction of its first-layer weight that a model other than the anchor keeps at each position.

    The linear ramp is r(j) = min(1, (Np - j) / (Np - start * Np)) for j = 1..Np: 1 up to the fraction `start` of the
    depth, then falling to 0 at the last position (paper, Equation 1 and Figure 5). The ramp `cosine` smooths both ends
    of r, `step` keeps 1 while r is at least 1/2, and `power:P` is r**P.

    Args:
        positions: Np, the number of depth positions.
        start: fraction of the depth before the ramp.
        ramp: linear, cosine, step or power:P.

    Returns:
        (positions,) float64 in [0, 1].

    Raises:
        PlanError: if `start` is outside [0, 1), or for an unknown ramp.
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
        raise PlanError(f"--ramp {ramp} is not one of {', '.join(_RAMPS)} (P a number above 0).")
    return float(power[1])


def check_ramp(ramp: str) -> None:
    """Raise PlanError for an unknown ramp."""
    if ramp not in NAMED_RAMPS:
        _exponent(ramp)


def layerwise_weights(
    positions: int, models: int, anchor: int, *, start: float = 0.0, alpha: float | None = None, ramp: str = "linear"
) -> LayerWeights:
    """Return the weights H of the paper's Equation 1, generalised by the knobs of its Figure 5.

    Args:
        positions: Np, the number of depth positions.
        models: M, the number of models.
        anchor: index of the anchor.
        start, ramp: the fade of the other models, as for `fade`.
        alpha: weight of the anchor in the first layers, 1 / models if None; the other models share the rest equally.

    Returns:
        (positions, models) float64: H_i(j) in row j - 1 and column i. Each row sums to 1; the anchor's weight is the
        largest in it, and 1 in the last row.

    Raises:
        PlanError: if `start` or `ramp` is invalid, or `alpha` is above 1 or below 1 / models, where the anchor's weight
            would not be the largest.
    """
    alpha = 1 / models if alpha is None else alpha
    if not 1 / models <= alpha <= 1:
        raise PlanError(f"--alpha {alpha} must be between 1/{models}, an equal share for {models} models, and 1.")
    other = fade(positions, start=start, ramp=ramp) * (1 - alpha) / max(models - 1, 1)
    weights = np.repeat(other[:, None], models, axis=1)
    weights[:, anchor] = 1 - other * (models - 1)
    return weights
