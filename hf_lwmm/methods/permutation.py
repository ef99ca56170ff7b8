"""Git Re-Basin: every model's units permuted to match the anchor's, then averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_lwmm.methods.base import register
from hf_lwmm.methods.isotropic import Isotropic


@register
@dataclass(frozen=True)
class Permutation(Isotropic):
    """Average of permuted models: merged = 1/M sum_i P_i(theta_i).

    P_i permutes hidden units, which does not change the function that the network computes, so that theta_i comes
    nearest to the anchor. The permutations are found by weight matching (`hf_lwmm.planning.permutation`). `--permute`
    puts the same step before any other method.

    Source: Ainsworth et al. 2023, "Git Re-Basin" (Algorithm 1); the paper's Table 1. Needs only the models, with a MiT
    or ResNet backbone. Cost: several linear assignments for each group of units.
    """

    name: ClassVar[str] = "permutation"
    summary: ClassVar[str] = "the units of every model are permuted to match the anchor's, then averaged"
    reference: ClassVar[str] = "Ainsworth et al. 2023, arXiv 2209.04836"
    exact: ClassVar[bool] = False
    permutes: ClassVar[bool] = True
