"""Model breadcrumbs: task vectors without their largest and smallest elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Slot, Values, kept, register
from hf_lwmm.options import option


@register
@dataclass(frozen=True)
class Breadcrumbs(Method):
    """Sum of masked task vectors: merged = base + scale * sum_i masked(theta_i - base).

    The mask drops the fraction `outliers` of a task vector's elements, the largest in magnitude, and as many of the
    smallest as it takes for the fraction `density` to remain.

    Source: Davari & Belilovsky 2024, "Model breadcrumbs: Scaling multi-task model merging with sparse masks". Needs the
    base. Cost: a sort for each tensor and model.
    """

    scale: float = option(0.4, "Scale of the summed task vectors.")
    density: float = option(0.9, "Fraction of elements to keep.", above=0, maximum=1)
    outliers: float = option(0.01, "Fraction of elements to drop as the largest.", minimum=0, maximum=1)

    name: ClassVar[str] = "breadcrumbs"
    summary: ClassVar[str] = (
        "the changes that each training made to the common base are summed, without the largest and the smallest"
    )
    reference: ClassVar[str] = "Davari & Belilovsky 2024, arXiv 2312.06795"
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    def merge(self, slot: Slot) -> Values:
        assert slot.base is not None
        return slot.base + self.scale * sum(self._masked(vector) for vector in slot.task_vectors)

    def _masked(self, vector: Values) -> Values:
        largest, remaining = kept(vector.size, self.outliers), kept(vector.size, self.density)
        smallest = max(vector.size - remaining - largest, 0)
        order = np.argsort(np.abs(vector).reshape(-1), kind="stable")
        keep = order[smallest : vector.size - min(largest, vector.size - remaining)]
        masked = np.zeros(vector.size)
        masked[keep] = vector.reshape(-1)[keep]
        return masked.reshape(vector.shape)
