"""The output of networks that are none of transformers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClassLogits:
    """The output of a network: `logits` (N, classes, h, w), or (N, classes) of whole pictures."""

    logits: Tensor
