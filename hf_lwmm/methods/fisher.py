"""Fisher-weighted averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Slot, Values, register
from hf_lwmm.options import option


@register
@dataclass(frozen=True)
class Fisher(Method):
    """Per element: merged = sum_i F_i theta_i / sum_i F_i, F_i the diagonal Fisher information, at least `floor`.

    F_i is the mean squared gradient of the log-likelihood over labelled images. Source: Matena & Raffel 2022,
    "Merging models with Fisher-weighted averaging", as the paper's Table 1 uses it. Needs labelled images and
    gradients of every model (once: a file keeps them). Cost: a backward pass for each image and model.
    """

    floor: float = option(1e-6, "Least Fisher information of an element.", minimum=0)

    name: ClassVar[str] = "fisher"
    summary: ClassVar[str] = "every shared weight is an average in which each model counts by its Fisher information"
    reference: ClassVar[str] = "Matena & Raffel 2022, arXiv 2111.09832"
    needs: ClassVar[frozenset[str]] = frozenset({"fisher"})
    data: ClassVar[str] = "labelled images, gradients (--measurements)"

    def merge(self, slot: Slot) -> Values:
        total, weight = np.zeros_like(slot.values[0]), np.zeros_like(slot.values[0])
        for value, fisher in zip(slot.values, slot.measurements, strict=True):
            floored = np.maximum(fisher, self.floor)
            # As a difference from the anchor, equal inputs give back themselves exactly.
            total += floored * (value - slot.values[0])
            weight += floored
        return slot.values[0] + total / weight
