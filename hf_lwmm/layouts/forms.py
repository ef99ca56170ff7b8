"""The shapes in which code bases store a weight, and the order of its elements there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """The order of a stored tensor's elements, where it is not that of its slot: `shape` with its axes in `axes`.

    Element by element, the slot is the stored tensor, seen in `shape`, with its axes transposed.
    """

    shape: Shape
    axes: Shape

    def to_slot(self, values: Any) -> Any:
        """Return the stored elements, an array (n, ...), in the order of the slot."""
        return self._moved(values, self.shape, self.axes)

    def to_stored(self, values: Any) -> Any:
        """Return the slot's elements, an array (n, ...), in the order in which they are stored."""
        back = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return self._moved(values, tuple(self.shape[axis] for axis in self.axes), back)

    @staticmethod
    def _moved(values: Any, shape: Shape, axes: Shape) -> Any:
        rest = values.shape[1:]
        moved = values.reshape(*shape, *rest).transpose(*axes, *range(len(axes), len(axes) + len(rest)))
        return moved.reshape(-1, *rest)


@dataclass(frozen=True)
class Form:
    """How a stored tensor differs from its slots, if at all.

    `kernel` is that, (height, width), of a stored convolution whose slot is a matrix; with `perhaps` it may be a matrix
    as well, and is written as one. `ones` are the axes of length 1 before those of the slot. In a tensor that is
    `unfolded`, the last axis has the 2x2 pixels of each channel, row by row; in its slot the channels of each of the
    pixels, column by column.
    """

    kernel: Shape = ()
    perhaps: bool = False
    ones: int = 0
    unfolded: bool = False

    def slot_shape(self, stored: Shape) -> Shape | None:
        """Return the shape that a stored tensor has as a slot, or None if it cannot be of this form."""
        if self.kernel and not (self.perhaps and len(stored) == 2):
            fits = len(stored) == 4 and stored[2:] == self.kernel
            return (stored[0], math.prod(stored[1:])) if fits else None
        if stored[: self.ones] != (1,) * self.ones or (self.unfolded and (not stored or stored[-1] % 4)):
            return None
        return stored[self.ones :]

    def stored_shape(self, slot: Shape) -> Shape:
        """Return the shape in which a slot is stored."""
        if self.kernel and not self.perhaps:
            return (slot[0], slot[1] // math.prod(self.kernel), *self.kernel)
        return (*(1,) * self.ones, *slot)

    def order(self, stored: Shape) -> Order | None:
        """Return the order of the elements of a stored tensor of this shape, None if it is the slot's."""
        if not self.unfolded:
            return None
        return Order((math.prod(stored[:-1]), stored[-1] // 4, 2, 2), (0, 3, 2, 1))
