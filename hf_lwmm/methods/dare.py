"""DARE: drop and rescale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_lwmm.methods.base import Method, Slot, Values, register
from hf_lwmm.options import option


@register
@dataclass(frozen=True)
class Dare(Method):
    """Sum of task vectors with random elements: merged = base + scale * sum_i mask_i (theta_i - base) / density.

    An element of mask_i is 1 with the probability `density`, else 0.

    Source: Yu et al. 2024, "Language models are super Mario: Absorbing abilities from homologous models as a free
    lunch". Needs the base. Cost: a random number for each weight and model.
    """

    scale: float = option(0.4, "Scale of the summed task vectors.")
    density: float = option(0.5, "Probability of keeping an element.", above=0, maximum=1)
    seed: int = option(0, "Random seed.", minimum=0)

    name: ClassVar[str] = "dare"
    summary: ClassVar[str] = (
        "the changes that each training made to the common base are dropped at random, rescaled and summed"
    )
    reference: ClassVar[str] = "Yu et al. 2024, arXiv 2311.03099"
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    def merge(self, slot: Slot) -> Values:
        assert slot.base is not None
        merged: Values = slot.base.copy()
        for model, vector in enumerate(slot.task_vectors):
            mask = slot.generator(self.seed, model).random(vector.shape) < self.density
            merged += self.scale / self.density * mask * vector
        return merged
