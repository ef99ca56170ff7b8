"""WiSE-FT: interpolation between the base and what was fine-tuned from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, register
from hf_lwmm.methods.schedule import LayerWeights
from hf_lwmm.options import option


@register
@dataclass(frozen=True)
class Wise(Method):
    """Interpolation between the base and the average of the models: merged = (1 - t) base + t/M sum_i theta_i.

    BatchNorm's running statistics lie on the same line, so that t = 0 is the base and t = 1 the average (with one
    model, the model) wherever the base has the slot.

    Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT, arXiv 2109.01903), for one
    fine-tuned model; t is their alpha, of which they found 0.5 close to the best where nothing is known of the target.
    Several models share the step from the base equally, as in Ilharco et al. 2022, "Patching open-vocabulary models by
    interpolating weights" (arXiv 2208.05592, parallel patching). Needs the base. Cost: one pass over the weights.
    """

    t: float = option(0.5, "Position between the base, 0, and the average of the models, 1.", minimum=0, maximum=1)

    name: ClassVar[str] = "wise"
    summary: ClassVar[str] = "every shared weight lies between the common base and the average of the models"
    reference: ClassVar[str] = "Wortsman et al. 2022, arXiv 2109.01903"
    linear: ClassVar[bool] = True
    interpolates: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    def weights(self, positions: int, models: int, anchor: int) -> LayerWeights:
        return np.full((positions, models), self.t / models)
