"""Git Re-Basin: permute the units of every model to match the anchor's, then average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_lwmm.methods.base import register
from hf_lwmm.methods.isotropic import Isotropic


@register
@dataclass(frozen=True)
class Permutation(Isotropic):
    """merged = 1/M sum_i P_i(theta_i), P_i the permutation of hidden units that brings theta_i nearest to the anchor.

    The permutations leave what a network computes unchanged; `hf_lwmm.planning.permutation` finds them by weight matching. Source:
    Ainsworth et al. 2023, "Git Re-Basin" (Algorithm 1), as the paper's Table 1 uses it. `--permute` does the same
    before any other method. Needs nothing but the models, of a MiT or ResNet family. Cost: a linear assignment for
    each group of units, several times over.
    """

    name: ClassVar[str] = "permutation"
    summary: ClassVar[str] = "the units of every model are permuted to match the anchor's, then averaged"
    reference: ClassVar[str] = "Ainsworth et al. 2023, arXiv 2209.04836"
    exact: ClassVar[bool] = False
    permutes: ClassVar[bool] = True
