"""Bound what a client can hold: its connection, while it sends or reads nothing, or while there are too many.

While there are too many, new ones wait in the system's queue, in their order, until one ends or the oldest that no user
is known to hold has had its time. So a client that opens one after the other waits like all, and cuts off nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 30.0  # seconds for the head of a request, and for reading what was sent
CONNECTIONS = 128  # at once; each may have a file open, too, and some systems allow a process 256
YOUNG = 1.0  # seconds that any connection has, to say whose it is
_PAUSE = 0.02  # seconds between two looks for room
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


class TimedServer(uvicorn.Server):
    """A server that takes connections as there is room for them."""

    _accepting: tuple[asyncio.Task[None], ...] = ()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._accepting = tuple(asyncio.create_task(self._accept(each)) for each in sockets or ())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._accepting:
            task.cancel()
        await super().shutdown(sockets)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listening.listen(self.config.backlog)
        listening.setblocking(False)
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
                await _room(self.server_state.connections)
                await loop.connect_accepted_socket(self._protocol, connection)
            except OSError:  # the client is gone already, or this process may open no more files at present
                await asyncio.sleep(_PAUSE)

    def _protocol(self) -> TimedConnection:
        return TimedConnection(self.config, self.server_state, self.lifespan.state)


async def _room(connections: Iterable[object]) -> None:
    """Wait until there is room for one more connection, or until users hold all, when it is turned away."""
    loop = asyncio.get_running_loop()
    while len(present := _open(connections)) >= CONNECTIONS:
        oldest = min((each for each in present if each.user is None), key=lambda each: each.made, default=None)
        if oldest is None:
            return
        if loop.time() - oldest.made >= YOUNG:
            oldest.transport.abort()
            return
        await asyncio.sleep(_PAUSE)


def _open(connections: Iterable[object]) -> list[TimedConnection]:
    found = [each for each in connections if isinstance(each, TimedConnection)]
    return [each for each in found if not each.transport.is_closing()]


class TimedConnection(H11Protocol):
    """A connection that is cut when the client lets it wait; bodies are timed where they are read."""

    _timer: asyncio.TimerHandle | None = None
    made = 0.0  # when, by the loop's clock
    user: str | None = None  # for whom it is kept

    def keep_for(self, user: str) -> None:
        """Keep the connection, until it ends, before those of strangers, unless this user has half of all."""
        if sum(each.user == user for each in self._others()) < CONNECTIONS // 2:
            self.user = user

    def cut(self) -> None:
        """End the connection in the middle of an answer."""
        self.cycle.disconnected = True
        self.transport.abort()

    def _others(self) -> list[TimedConnection]:
        return [each for each in _open(self.connections) if each is not self]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.made = self.loop.time()
        if len(self._others()) >= CONNECTIONS:
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
