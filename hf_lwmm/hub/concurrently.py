"""Make several calls that wait for the Hub at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def concurrently(calls: Sequence[Callable[[], _T]]) -> Iterator[Future[_T]]:
    """Make all calls at once, each in a thread, and give their outcomes in order, each as soon as it is there.

    The threads are daemons: an interruption does not wait for the server that a call is waiting for.
    """
    for future in [in_background(call) for call in calls]:
        future.exception()
        yield future


def in_background(call: Callable[[], _T]) -> Future[_T]:
    """Make a call in a thread, a daemon as those of `concurrently`, and return its outcome to be."""
    future: Future[_T] = Future()
    threading.Thread(target=_complete, args=(call, future), daemon=True).start()
    return future


def _complete(call: Callable[[], _T], future: Future[_T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
