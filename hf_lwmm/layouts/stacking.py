"""How a stored tensor holds its slots: stacked along dim 0, behind special tokens, or in another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
_MOST_SPECIAL = 2  # a class token and a distillation token; registers have no position


@dataclass(frozen=True)
class Stacking:
    """How one line of a layout stacks slots in a tensor.

    `kernel` is the (height, width) of a stored convolution that the slot holds as a matrix, or (). The slot has `ones`
    more dimensions of size 1 in front than the tensor. With `tokens` the tensor has a row for each token in its second
    last dimension: the first slot has those before a square grid, the second the grid. If `bare`, the first may lack.
    """

    kernel: tuple[int, ...] = ()
    ones: int = 0
    tokens: bool = False
    bare: bool = False

    def cut(self, stored: Shape, parts: int) -> tuple[Shape | None, ...]:
        """Return the shape of each slot in a tensor, None for one that it lacks; () if the tensor cannot be one."""
        shape = (1,) * self.ones + stored
        if self.kernel:
            if len(stored) != 4 or stored[2:] != self.kernel:
                return ()
            shape = (stored[0], math.prod(stored[1:]))
        if self.tokens:
            if len(shape) < 2 or math.prod(shape[:-2]) != 1:
                return ()
            special = special_tokens(shape[-2])
            grid = (*shape[:-2], shape[-2] - special, shape[-1])
            return ((*shape[:-2], special, shape[-1]) if special else None, grid)
        if parts == 1:
            return (shape,)
        if not shape or shape[0] % parts:
            return ()
        return ((shape[0] // parts, *shape[1:]),) * parts

    def stack(self, slots: Sequence[Shape]) -> Shape:
        """Return the shape of the tensor that stacks slots of these shapes."""
        first = slots[0]
        if self.tokens:
            shape = (*first[:-2], sum(each[-2] for each in slots), first[-1])
        else:
            shape = (sum(each[0] for each in slots), *first[1:]) if first else ()
        if self.kernel:
            shape = (shape[0], shape[1] // math.prod(self.kernel), *self.kernel)
        return shape[self.ones :]


def special_tokens(tokens: int) -> int:
    """Return how many tokens stand before a square grid; 0 if the rest is no square, however many are left out."""
    for special in range(_MOST_SPECIAL + 1):
        grid = tokens - special
        if grid > 0 and math.isqrt(grid) ** 2 == grid:
            return special
    return 0
