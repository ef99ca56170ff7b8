"""Compile loops over pixels that NumPy has no function for; numba does it when they are first called.

numba is imported then, too: it takes half a second, which need not pass before a network sees its first picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, update_wrapper, wraps
from types import FunctionType
from typing import Any


@dataclass(frozen=True)
class Argument:
    """The type of an argument: an integer of numba, such as int64, or a contiguous array of them.

    `ndim` is 0 for a number. Labels may be `readonly`, and words may begin at any byte if they are not `aligned`;
    such types take all other arrays too.
    """

    dtype: str = "int64"
    ndim: int = 0
    readonly: bool = False
    aligned: bool = True

    def of_numba(self) -> Any:
        """Return numba's own type."""
        from numba import types

        dtype = getattr(types, self.dtype)
        return types.Array(dtype, self.ndim, "C", self.readonly, aligned=self.aligned) if self.ndim else dtype


BYTES = Argument("uint8", 1, readonly=True, aligned=False)
WORDS = Argument("uint64", 1, readonly=True, aligned=False)
INTEGERS = Argument("int64", 1, readonly=True)


def compiled(
    *arguments: Argument, using: Sequence[Callable[..., Any]] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a loop for arguments of these types, once for each machine.

    It takes about a second, and later processes a third of that. The result lies beside the module or, where that is
    not writable, in the user's cache. `using` are functions of the module that the loop calls.
    """

    def decorate(loop: Callable[..., Any]) -> Callable[..., Any]:
        compile_once = cache(lambda: _compile(loop, arguments, using))

        @wraps(loop)
        def call(*values: Any) -> Any:
            return compile_once()(*values)

        return call

    return decorate


def _compile(loop: Any, arguments: tuple[Argument, ...], using: Sequence[Callable[..., Any]]) -> Any:
    from numba import njit

    types = tuple(each.of_numba() for each in arguments)
    names = {**loop.__globals__, **{each.__name__: njit(each) for each in using}}
    whole = update_wrapper(FunctionType(loop.__code__, names), loop)
    try:
        return njit(types, nogil=True, cache=True)(whole)
    except RuntimeError:  # numba may write neither place
        return njit(types, nogil=True)(whole)
