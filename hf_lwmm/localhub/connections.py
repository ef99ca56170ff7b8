"""Bound what a client can hold: its connection, while it sends nothing or reads nothing."""

from __future__ import annotations

import asyncio
import contextlib

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 30.0  # seconds for the head of a request, and for reading what was sent
CONNECTIONS = 128  # at once; each may have a file open, too, and some systems allow a process 256
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def until_cut(app: ASGIApp) -> ASGIApp:
    """Return the application that gives up an answer for which its connection is of no use any more."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(h11.LocalProtocolError):  # the client sent nonsense before it was answered
            await app(scope, receive, send)

    return answer


class TimedConnection(H11Protocol):
    """A connection that is cut when the client lets it wait; bodies are timed where they are read."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.write(_BUSY)
            transport.close()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # nonsense after a request that was answered
            self.transport.abort()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.flow.write_paused:
            self._stop()  # the head of a request is here

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._wait()
        super().pause_writing()

    def resume_writing(self) -> None:
        if not self.cycle.response_complete:
            self._stop()
        super().resume_writing()

    def _wait(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(PATIENCE, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
