"""Slerp: spherical linear interpolation between two models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hf_lwmm.methods.base import Method, Slot, Values, norm, register
from hf_lwmm.options import option

# Above this cosine the sines lose their digits, and tensors are interpolated along a straight line.
PARALLEL = 0.9995


@register
@dataclass(frozen=True)
class Slerp(Method):
    """A point on the arc between two tensors: merged = (sin((1 - t) w) anchor + sin(t w) other) / sin(w).

    w is the angle between the two models' tensors.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", applied to whole tensors as is usual for merges.
    Needs only the models, of which there must be two. Cost: one pass over the weights.
    """

    t: float = option(0.5, "Position on the arc: 0 is the anchor, 1 the other model.", minimum=0, maximum=1)

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
        angle = math.acos(cosine)
        first, second = (_coefficient(part, angle) for part in (1 - self.t, self.t))
        return first * anchor + second * other


def _coefficient(part: float, angle: float) -> float:
    """sin(part * angle) / sin(angle) without its last digits, which depend on the mathematical library."""
    return round(math.sin(part * angle) / math.sin(angle), 14)
