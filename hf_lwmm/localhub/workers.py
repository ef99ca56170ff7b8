"""Do what takes time in threads, of which each user has a few: nobody waits for what another has asked for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request

from hf_lwmm.localhub.records import User

_T = TypeVar("_T")
_THREADS, _THREADS_OF_STRANGERS = 4, 2  # of each user, and of all together who have no token


class Workers:
    """The threads of one application."""

    def __init__(self) -> None:
        self._limiters: dict[str | None, CapacityLimiter] = {}

    def limiter(self, name: str | None) -> CapacityLimiter:
        """Return the bound on the threads of a user, or of those without a token (None)."""
        return self._limiters.setdefault(name, CapacityLimiter(_THREADS if name is not None else _THREADS_OF_STRANGERS))


def sent_by(request: Request, user: User | None) -> None:
    """Note who sent a request: a user has threads of their own, and the connection is kept before those of others."""
    request.state.sender = None
    if user is not None:
        vouch(request, user.name)


def vouch(request: Request, name: str) -> None:
    """Note that a request is from a user, though it need not carry a token."""
    request.state.sender = name
    connection = getattr(request.state, "connection", None)
    if connection is not None:
        connection.keep_for(name)


def sender(request: Request) -> str | None:
    """Return the name of the user who sent a request, None without a token."""
    name: str | None = getattr(request.state, "sender", None)
    return name


async def aside(request: Request, work: Callable[..., _T], *arguments: Any) -> _T:
    """Return what a function returns that is called in a thread of the request's sender."""
    limiter = request.app.state.workers.limiter(sender(request))
    return await to_thread.run_sync(partial(work, *arguments), limiter=limiter)


@contextlib.asynccontextmanager
async def entered(request: Request, context: contextlib.AbstractContextManager[_T]) -> AsyncIterator[_T]:
    """Return a context that is entered and left in a thread, without being told of errors."""
    value = await aside(request, context.__enter__)
    try:
        yield value
    finally:
        await aside(request, context.__exit__, None, None, None)
