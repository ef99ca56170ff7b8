"""Loops over pixels that NumPy has no function for, compiled by numba when they are first called."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from numba import njit, types

# What the loops read. Arrays of labels may be read-only or not, words may begin at any byte: one type is for all.
BYTES = types.Array(types.uint8, 1, "C", readonly=True, aligned=False)
WORDS = types.Array(types.uint64, 1, "C", readonly=True, aligned=False)
INTEGERS = types.Array(types.int64, 1, "C", readonly=True)


def compiled(*arguments: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a loop over arguments of these numba types, for which alone it is compiled, in a part of a second."""

    def decorate(loop: Callable[..., Any]) -> Callable[..., Any]:
        compile_once = cache(lambda: njit(arguments, nogil=True)(loop))

        @wraps(loop)
        def call(*values: Any) -> Any:
            return compile_once()(*values)

        return call

    return decorate
