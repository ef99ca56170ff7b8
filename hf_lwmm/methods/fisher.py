"""Fisher-weighted averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Slot, Values, register
from hf_lwmm.options import option

_LEAST = 1e-60  # below any float32: with a floor of 0, elements that are 0 in all models are averaged


@register
@dataclass(frozen=True)
class Fisher(Method):
    """Element-wise average weighted by Fisher information: merged = sum_i F_i theta_i / sum_i F_i.

    F_i is the diagonal Fisher information of model i, the mean squared gradient of the log-likelihood over labelled
    images, raised to at least `floor`.

    Source: Matena & Raffel 2022, "Merging models with Fisher-weighted averaging"; the paper's Table 1. Needs labelled
    images and gradients of every model, measured once into a file. Cost: a backward pass for each image and model.
    """

    floor: float = option(1e-6, "Minimum Fisher information of an element.", minimum=0)

    name: ClassVar[str] = "fisher"
    summary: ClassVar[str] = "every shared weight is an average, weighted by the models' Fisher information"
    reference: ClassVar[str] = "Matena & Raffel 2022, arXiv 2111.09832"
    needs: ClassVar[frozenset[str]] = frozenset({"fisher"})
    data: ClassVar[str] = "labelled images, gradients (--measurements)"

    def merge(self, slot: Slot) -> Values:
        total, weight = np.zeros_like(slot.values[0]), np.zeros_like(slot.values[0])
        for value, fisher in zip(slot.values, slot.measurements, strict=True):
            floored = np.maximum(fisher, max(self.floor, _LEAST))
            # Summing differences from the anchor returns equal inputs exactly.
            total += floored * (value - slot.values[0])
            weight += floored
        return slot.values[0] + total / weight
