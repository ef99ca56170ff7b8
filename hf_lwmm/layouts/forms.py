"""The shapes in which code bases store a weight, and the order of its elements there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
_MOST_SPECIAL = 2  # a class token and a distillation token; registers have no position


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
    """The differences between a stored tensor and its slots.

    `kernel` is that, (height, width), of a stored convolution whose slot is a matrix; with `perhaps` it may be a matrix
    as well, and is written as one. `ones` are the axes of length 1 before those of the slot; below 0 the slot has them
    before those of the tensor. In a tensor that is `unfolded`, the last axis has the 2x2 pixels of each channel, row by
    row; in its slot the channels of each of the pixels, column by column. With `tokens` the second last axis counts
    tokens, and there are two slots: those before a square grid, and the grid. If `bare`, there may be none before it.
    """

    kernel: Shape = ()
    perhaps: bool = False
    ones: int = 0
    unfolded: bool = False
    tokens: bool = False
    bare: bool = False

    def cut(self, stored: Shape, parts: int) -> tuple[Shape | None, ...]:
        """Return the shape of each slot that a tensor stacks, None for one that it lacks; () if it is not of this form.

        Slots are equal pieces along dim 0, or tokens.
        """
        whole = self.slot_shape(stored)
        if whole is None:
            return ()
        if self.tokens:
            if len(whole) < 2 or math.prod(whole[:-2]) != 1:
                return ()
            *ones, count, width = whole
            special = special_tokens(count)
            return ((*ones, special, width) if special else None, (*ones, count - special, width))
        if parts == 1:
            return (whole,)
        return () if not whole or whole[0] % parts else ((whole[0] // parts, *whole[1:]),) * parts

    def stack(self, slots: Sequence[Shape]) -> Shape:
        """Return the shape of the tensor that stacks slots of these shapes."""
        first = slots[0]
        if self.tokens:
            return self.stored_shape((*first[:-2], sum(each[-2] for each in slots), first[-1]))
        return self.stored_shape((sum(each[0] for each in slots), *first[1:])) if first else ()

    def slot_shape(self, stored: Shape) -> Shape | None:
        """Return the shape that a stored tensor has as a slot, or None if it cannot be of this form."""
        if self.kernel and not (self.perhaps and len(stored) == 2):
            fits = len(stored) == 4 and stored[2:] == self.kernel
            return (stored[0], math.prod(stored[1:])) if fits else None
        if stored[: max(self.ones, 0)] != (1,) * self.ones or (self.unfolded and (not stored or stored[-1] % 4)):
            return None
        return stored[self.ones :] if self.ones >= 0 else (*(1,) * -self.ones, *stored)

    def stored_shape(self, slot: Shape) -> Shape:
        """Return the shape in which a slot is stored."""
        if self.kernel and not self.perhaps:
            return (slot[0], slot[1] // math.prod(self.kernel), *self.kernel)
        return (*(1,) * self.ones, *slot) if self.ones >= 0 else slot[-self.ones :]

    def order(self, stored: Shape) -> Order | None:
        """Return the order of the elements of a stored tensor of this shape, None if it is the slot's."""
        if not self.unfolded:
            return None
        return Order((math.prod(stored[:-1]), stored[-1] // 4, 2, 2), (0, 3, 2, 1))


def special_tokens(tokens: int) -> int:
    """Return how many tokens stand before a square grid; 0 if the rest is no square, however many are left out."""
    for special in range(_MOST_SPECIAL + 1):
        grid = tokens - special
        if grid > 0 and math.isqrt(grid) ** 2 == grid:
            return special
    return 0
