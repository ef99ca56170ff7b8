"""Spherical linear interpolation of two models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Slot, Values, norm, register
from hf_lwmm.options import option

# Tensors this close to parallel are interpolated in a straight line, where the sines lose their digits.
PARALLEL = 0.9995


@register
@dataclass(frozen=True)
class Slerp(Method):
    """merged = sin((1 - t) w) / sin(w) anchor + sin(t w) / sin(w) other, w the angle between the two tensors.

    Source: Shoemake 1985, applied to whole tensors as community merges do. Takes two models. Cost: one pass over the
    weights.
    """

    t: float = option(0.5, "Place on the arc: 0 is the anchor, 1 the other model.", minimum=0, maximum=1)

    name: ClassVar[str] = "slerp"
    summary: ClassVar[str] = "every shared tensor lies on the arc between the two models'"
    reference: ClassVar[str] = "Shoemake 1985, Animating rotation with quaternion curves"
    models: ClassVar[int | None] = 2

    def merge(self, slot: Slot) -> Values:
        anchor, other = slot.values
        lengths = norm(anchor) * norm(other)
        cosine = float((anchor * other).sum() / lengths) if lengths else 1.0
        if abs(cosine) > PARALLEL:
            return anchor + self.t * (other - anchor)
        angle = np.arccos(cosine)
        return np.asarray((np.sin((1 - self.t) * angle) * anchor + np.sin(self.t * angle) * other) / np.sin(angle))
