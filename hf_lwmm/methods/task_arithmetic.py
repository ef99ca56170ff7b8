"""Task arithmetic: the sum of the task vectors, scaled and added to the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, register
from hf_lwmm.methods.schedule import LayerWeights
from hf_lwmm.options import option


@register
@dataclass(frozen=True)
class TaskArithmetic(Method):
    """Scaled sum of the task vectors: merged = base + scale * sum_i (theta_i - base).

    Source: Ilharco et al. 2023, "Editing models with task arithmetic", where the scale is about 0.4. Needs the base,
    the pre-training that all models share. Cost: one pass over the weights.
    """

    scale: float = option(0.4, "Scale of the summed task vectors.")

    name: ClassVar[str] = "task-arithmetic"
    summary: ClassVar[str] = "the changes that each training made to the common base are scaled and summed"
    reference: ClassVar[str] = "Ilharco et al. 2023, arXiv 2212.04089"
    linear: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    def weights(self, positions: int, models: int, anchor: int) -> LayerWeights:
        return np.full((positions, models), self.scale)
