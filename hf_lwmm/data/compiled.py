"""Compile loops over pixels that NumPy has no function for.

numba compiles each when it is first called, and keeps the result on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from numba import njit, types

# Types of the arrays that loops read. Labels may be read-only and words may begin at any byte; these types take all.
BYTES = types.Array(types.uint8, 1, "C", readonly=True, aligned=False)
WORDS = types.Array(types.uint64, 1, "C", readonly=True, aligned=False)
INTEGERS = types.Array(types.int64, 1, "C", readonly=True)


def compiled(*arguments: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a loop for arguments of these numba types, once for each machine.

    It takes about a second, and later processes a third of that. The result lies beside the module or, where that is
    not writable, in the user's cache.
    """

    def decorate(loop: Callable[..., Any]) -> Callable[..., Any]:
        compile_once = cache(lambda: _compile(loop, arguments))

        @wraps(loop)
        def call(*values: Any) -> Any:
            return compile_once()(*values)

        return call

    return decorate


def _compile(loop: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return njit(arguments, nogil=True, cache=True)(loop)
    except RuntimeError:  # numba may write neither place
        return njit(arguments, nogil=True)(loop)
