"""TIES: trim, elect signs, merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Slot, Values, kept, register
from hf_lwmm.options import option


@register
@dataclass(frozen=True)
class Ties(Method):
    """Mean of trimmed task vectors that agree in sign: merged = base + scale * mean.

    Each task vector keeps the fraction `density` of its elements, the largest in magnitude. The elected sign of an
    element is the sign of its sum over the models, and its mean is over the models that have this sign.

    Source: Yadav et al. 2023, "TIES-Merging: Resolving interference when merging models". Needs the base. Cost: a sort
    for each tensor and model.
    """

    scale: float = option(1.0, "Scale of the merged task vector.")
    density: float = option(0.2, "Fraction of elements to keep.", above=0, maximum=1)

    name: ClassVar[str] = "ties"
    summary: ClassVar[str] = (
        "the largest changes that each training made to the common base are averaged where they agree in sign"
    )
    reference: ClassVar[str] = "Yadav et al. 2023, arXiv 2306.01708"
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    def merge(self, slot: Slot) -> Values:
        assert slot.base is not None
        trimmed = np.stack([trim(vector, self.density) for vector in slot.task_vectors])
        sign = np.where(trimmed.sum(axis=0) >= 0, 1.0, -1.0)
        agreeing = np.sign(trimmed) == sign
        count = np.maximum(agreeing.sum(axis=0), 1)
        mean: Values = (trimmed * agreeing).sum(axis=0) / count
        return slot.base + self.scale * mean


def trim(vector: Values, density: float) -> Values:
    """Zero all but the `density` largest magnitudes of a tensor, at least one; among equals, the first are kept."""
    count = max(kept(vector.size, density), 1)
    order = np.argsort(-np.abs(vector).reshape(-1), kind="stable")
    trimmed = np.zeros(vector.size)
    trimmed[order[:count]] = vector.reshape(-1)[order[:count]]
    return trimmed.reshape(vector.shape)
