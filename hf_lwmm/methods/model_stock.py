"""Model Stock: a point between the base and the average, chosen by the angle between the task vectors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Slot, Values, norm, register


@register
@dataclass(frozen=True)
class ModelStock(Method):
    """Interpolation between base and average: merged = t mean_i theta_i + (1 - t) base, for each tensor.

    t = M cos / (1 + (M - 1) cos), where cos is the mean cosine between pairs of task vectors.

    Source: Jang et al. 2024, "Model Stock: All we need is just a few fine-tuned models" (Equation 7). Needs the base.
    Cost: M (M - 1) / 2 inner products.
    """

    name: ClassVar[str] = "model-stock"
    summary: ClassVar[str] = (
        "every shared tensor lies between the common base and the average, closer to the average if the models agree"
    )
    reference: ClassVar[str] = "Jang et al. 2024, arXiv 2403.19522"
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    def merge(self, slot: Slot) -> Values:
        assert slot.base is not None
        vectors, count = slot.task_vectors, len(slot.values)
        cosine = float(np.mean([_cosine(one, other) for one, other in combinations(vectors, 2)]))
        spread = 1 + (count - 1) * cosine  # 0 where the task vectors cancel out
        t = count * cosine / spread if spread > 0 else 0.0
        return slot.base + t * sum(vectors) / count


def _cosine(one: Values, other: Values) -> float:
    lengths = norm(one) * norm(other)
    return float(np.clip((one * other).sum() / lengths, -1, 1)) if lengths else 1.0
