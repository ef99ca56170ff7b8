"""Isotropic merging: the plain average, or uniform model soup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_lwmm.methods.base import Method, register, uniform
from hf_lwmm.methods.schedule import LayerWeights


@register
@dataclass(frozen=True)
class Isotropic(Method):
    """Plain average of every shared slot, the head included: merged = 1/M sum_i theta_i.

    Source: Wortsman et al. 2022, "Model soups" (uniform soup); the paper's Table 1. Needs only the models. Cost: one
    pass over the weights.
    """

    name: ClassVar[str] = "isotropic"
    summary: ClassVar[str] = "every shared weight is the plain average"
    reference: ClassVar[str] = "Wortsman et al. 2022, arXiv 2203.05482"
    linear: ClassVar[bool] = True
    convex: ClassVar[bool] = True

    def weights(self, positions: int, models: int, anchor: int) -> LayerWeights:
        return uniform(positions, models)
