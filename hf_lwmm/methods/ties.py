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
    """merged = base + scale * the mean of those trimmed task vectors that have the elected sign.

    Each task vector keeps its `density` largest elements; an element's sign is that of the sum over models, and only
    models of that sign are averaged. Source: Yadav et al. 2023, "TIES-Merging". Needs the base. Cost: a selection
    for each tensor and model.
    """

    scale: float = option(1.0, "Factor of the merged task vector.")
    density: float = option(0.2, "Fraction of elements kept.", above=0, maximum=1)

    name: ClassVar[str] = "ties"
    summary: ClassVar[str] = (
        "of what each training added to the common base, the largest parts that agree in sign are averaged"
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
    """The vector with all but its `density` largest magnitudes, at least one, set to zero; earlier ones win ties."""
    count = max(kept(vector.size, density), 1)
    order = np.argsort(-np.abs(vector).reshape(-1), kind="stable")
    trimmed = np.zeros(vector.size)
    trimmed[order[:count]] = vector.reshape(-1)[order[:count]]
    return trimmed.reshape(vector.shape)
