"""Layer-wise model merging, Equation 1 of Alcover-Couso et al. (arXiv 2409.15813)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_lwmm.methods.base import Method
from hf_lwmm.methods.schedule import Weights, layerwise_weights


@dataclass(frozen=True)
class Layerwise(Method):
    """merged(j) = sum_i H_i(j) theta_i(j), where H_i(j) = (Np - j) / (Np M) for all but the anchor.

    Source: Equation 1; the options are Figure 5's. Needs nothing but the models. Cost: one pass over the weights.
    """

    start: float = 0.0
    alpha: float | None = None
    ramp: str = "linear"

    name: ClassVar[str] = "layerwise"
    summary: ClassVar[str] = (
        "the first layers are averaged, the last are the anchor's, and in between the other models' part fades"
    )
    reference: ClassVar[str] = "Alcover-Couso et al. 2024, arXiv 2409.15813"
    linear: ClassVar[bool] = True
    convex: ClassVar[bool] = True

    def weights(self, positions: int, models: int, anchor: int) -> Weights:
        return layerwise_weights(positions, models, anchor, start=self.start, alpha=self.alpha, ramp=self.ramp)
