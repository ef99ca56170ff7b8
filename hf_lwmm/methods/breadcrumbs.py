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
    """merged = base + scale * sum_i masked(theta_i - base).

    Of each task vector the `outliers` largest magnitudes and the smallest are dropped, so that `density` of the
    elements remain. Source: Davari & Belilovsky 2024, "Model breadcrumbs". Needs the base. Cost: a sort for each
    tensor and model.
    """

    scale: float = option(0.4, "Factor of the summed task vectors.")
    density: float = option(0.9, "Fraction of elements kept.", above=0, maximum=1)
    outliers: float = option(0.01, "Fraction of the largest elements dropped.", minimum=0, maximum=1)

    name: ClassVar[str] = "breadcrumbs"
    summary: ClassVar[str] = (
        "what each training added to the common base is summed without its largest and smallest parts"
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
