"""Heads of one row, whose sigmoid tells one class from the background, as heads of two rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_lwmm.labels import normalise

_BACKGROUND, _FOREGROUND = "background", "foreground"


def with_background(logits: Tensor, rows: int = -3) -> Tensor:
    """Return the logits (..., C, h, w) of a head that segments; those of one row get a row for the background first.

    `rows` is the axis of C: -1 for the logits (..., C) of whole pictures. The logits of the background are 0: the
    softmax of the two rows is the sigmoid of the one.
    """
    return torch.cat([torch.zeros_like(logits), logits], dim=rows) if logits.shape[rows] == 1 else logits


def classes_of_one_row(names: Sequence[str]) -> tuple[str, str]:
    """Return the names of both classes, from the `names` of a head of one row."""
    name = _FOREGROUND if names[0] == "LABEL_0" else names[0]
    return (_FOREGROUND if normalise(name) == _BACKGROUND else _BACKGROUND), name
