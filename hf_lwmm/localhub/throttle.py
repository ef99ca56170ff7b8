"""Slow the local Hub down to a line of a given speed, and count what goes over it."""

from __future__ import annotations

import asyncio
import math
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PIECE = 1 << 16  # bytes that one response sends before the next has its turn
_CREDIT = 0.02  # seconds of the line's time that may be caught up on, since no timer is exact


class Throttle:
    """A line that all responses share, and the traffic on it.

    Attributes:
        rate: bytes a second of the bodies of all responses together.
        latency: seconds before each response starts.
        requests: the number of requests that have come.
        bytes_sent: the bytes of the bodies that were sent.
    """

    def __init__(self, rate: float = math.inf, latency: float = 0.0) -> None:
        self.rate, self.latency = rate, latency
        self.requests = self.bytes_sent = 0
        self._free_at = 0.0  # when the line has sent all that it was given

    async def sending(self, count: int) -> None:
        """Count bytes, and wait until the line has sent them."""
        self.bytes_sent += count
        now = time.monotonic()
        self._free_at = max(self._free_at, now - _CREDIT) + count / self.rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class Throttled:
    """ASGI middleware that sends responses over a line."""

    def __init__(self, app: ASGIApp, throttle: Throttle) -> None:
        self.app, self.throttle = app, throttle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.throttle.requests += 1

        async def slowly(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(self.throttle.latency)
            if message["type"] != "http.response.body" or scope["method"] == "HEAD":
                await send(message)
                return
            body = message.get("body", b"")
            for start in range(0, max(len(body), 1), _PIECE):
                piece, last = body[start : start + _PIECE], start + _PIECE >= len(body)
                await self.throttle.sending(len(piece))
                await send({**message, "body": piece, "more_body": message.get("more_body", False) or not last})

        await self.app(scope, receive, slowly)
