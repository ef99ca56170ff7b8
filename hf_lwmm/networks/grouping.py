"""Group the outputs of a network to classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def grouped(logits: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits of classes that are made of outputs: (N, groups, ...).

    The softmax of the result has, for each group, the sum of its outputs' probabilities among those of all groups.

    Args:
        logits: (N, outputs, ...).
        rows: the outputs of each group.
    """
    return torch.stack([logits[:, list(group)].logsumexp(1) for group in rows], 1)
