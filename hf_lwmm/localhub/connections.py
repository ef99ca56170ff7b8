"""Bound what a client can hold: its connection, while it sends or reads nothing, or while there are too many."""

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
        try:
            with contextlib.suppress(h11.LocalProtocolError):  # the client sent nonsense before it was answered
                await app(scope, receive, send)
        except asyncio.CancelledError:  # the server ends, and has waited long enough
            scope["state"]["connection"].cut()

    return answer


class TimedConnection(H11Protocol):
    """A connection that is cut when the client lets it wait; bodies are timed where they are read.

    When there are too many, the oldest that no user is known to hold makes room for a new one.
    """

    _timer: asyncio.TimerHandle | None = None
    _made = 0.0  # when, by the loop's clock
    _user: str | None = None  # for whom it is kept

    def keep_for(self, user: str) -> None:
        """Keep the connection, until it ends, before those of strangers, unless this user has half of all."""
        if sum(each._user == user for each in self._others()) < CONNECTIONS // 2:
            self._user = user

    def cut(self) -> None:
        """End the connection in the middle of an answer."""
        self.cycle.disconnected = True
        self.transport.abort()

    def _others(self) -> list[TimedConnection]:
        open_ones = [each for each in self.connections if isinstance(each, TimedConnection) and each is not self]
        return [each for each in open_ones if not each.transport.is_closing()]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._made = self.loop.time()
        others = self._others()
        if len(others) >= CONNECTIONS:
            strangers = [each for each in others if each._user is None]
            if strangers:
                min(strangers, key=lambda each: each._made).transport.abort()
            else:
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
        if self.cycle is not before:
            self.scope["state"]["connection"] = self
            if not self.flow.write_paused:
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
