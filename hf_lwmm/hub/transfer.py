"""Carry spans of remote files into partial files, by several threads at once."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hf_lwmm.errors import keeping
from hf_lwmm.hub.partial_file import BLOCK, PartialFile
from hf_lwmm.hub.range_requests import RangeRequests
from hf_lwmm.hub.ranges import Span, total

_REQUEST, _LEAST = 1 << 23, 1 << 20  # bytes that one request asks for, and that one of the last ones does
_THREADS = 8
_KEEP_EVERY = 1.0  # seconds: so much of a thread's work is lost at most when the process is killed
_PATIENCE = 1.0  # seconds that threads have to end after an interruption


@dataclass(frozen=True)
class Part:
    """Spans of one file, which begin and end where blocks do, and where they come from and go."""

    requests: RangeRequests
    stored: PartialFile
    spans: Sequence[Span]


def transfer(parts: Sequence[Part], progress: Callable[[int], None]) -> None:
    """Carry parts of files into their partial files.

    `progress` is called in this thread with the number of bytes that have come since it was called last. After an
    interruption, or an error, what has arrived is kept.

    Raises:
        HubError: if a file has changed, the disk is full, or the Hub cannot be reached.
    """
    with keeping("what was downloaded is in the cache, and the next run goes on from there"):
        _Transfer(parts).run(progress)


class _StoppedError(Exception):
    """Raised in a thread whose work is not wanted any more."""


class _Transfer:
    """Spans on their way into partial files, by several threads.

    They are daemons: an interruption does not wait for the server that a thread is waiting for.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._left = deque((part, span) for part in parts for span in part.spans)
        self._unasked = sum(total(part.spans) for part in parts)
        self._lock = threading.Lock()
        self._news: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._stop = threading.Event()

    def run(self, progress: Callable[[int], None]) -> None:
        """Transfer all; `progress` is told the bytes as they come. Raises the first error of a thread."""
        most = len(self._left) + self._unasked // _LEAST  # requests: of local files there is none, and no thread
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(_THREADS, most))]
        for thread in threads:
            thread.start()
        try:
            running = len(threads)
            while running:
                news = self._news.get()
                if isinstance(news, BaseException):
                    raise news
                if news is None:
                    running -= 1
                else:
                    progress(news)
        finally:
            self._stop.set()
            until = time.monotonic() + _PATIENCE
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        try:
            while (found := self._next()) is not None:
                self._transfer(*found)
            self._news.put(None)
        except _StoppedError:
            pass
        except BaseException as error:
            self._news.put(error)

    def _next(self) -> tuple[Part, int, int] | None:
        """The next span for a thread: a shorter one towards the end, so that none has much left when the others end."""
        with self._lock:
            if not self._left:
                return None
            part, (start, end) = self._left.popleft()
            most = max(_LEAST, min(_REQUEST, self._unasked // (2 * _THREADS) // BLOCK * BLOCK))
            stop = min(start + most, end)
            if stop < end:
                self._left.appendleft((part, (stop, end)))
            self._unasked -= stop - start
            return part, start, stop

    def _transfer(self, part: Part, start: int, end: int) -> None:
        arrived, kept, kept_at = start, start, time.monotonic()

        def write(position: int, piece: bytes) -> None:
            nonlocal arrived, kept, kept_at
            if self._stop.is_set():
                raise _StoppedError
            part.stored.write(position, piece)
            arrived = position + len(piece)
            self._news.put(len(piece))
            if time.monotonic() > kept_at + _KEEP_EVERY:
                kept, kept_at = part.stored.keep(kept, arrived), time.monotonic()

        try:
            part.requests.load(start, end, write)
        finally:
            part.stored.keep(kept, arrived)
