"""LiNeS: task vectors with a scale that grows with depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, register
from hf_lwmm.methods.schedule import LayerWeights
from hf_lwmm.options import option


@register
@dataclass(frozen=True)
class Lines(Method):
    """Task arithmetic by depth: merged(j) = base + (first + rise (j - 1) / (Np - 1)) sum_i (theta_i - base).

    `first` is the scale at the first position, 1/M if None, and `first + rise` the scale at the last.

    Source: Wang et al. 2025, "LiNeS: Post-training layer scaling prevents forgetting and enhances model merging", where
    the two are alpha and beta. Needs the base. Cost: one pass over the weights.
    """

    first: float | None = option(None, "Scale at the first position; 1/M by default.")
    rise: float = option(0.5, "Increase of the scale from the first position to the last.")

    name: ClassVar[str] = "lines"
    summary: ClassVar[str] = (
        "the changes that each training made to the common base are summed, with a scale that grows with depth"
    )
    reference: ClassVar[str] = "Wang et al. 2025, arXiv 2410.17146"
    linear: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    def weights(self, positions: int, models: int, anchor: int) -> LayerWeights:
        first = 1 / models if self.first is None else self.first
        depth = np.arange(positions) / max(positions - 1, 1)
        return np.repeat((first + self.rise * depth)[:, None], models, axis=1)
