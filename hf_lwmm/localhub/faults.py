"""Make requests fail on purpose, so that tests see how a client copes over real HTTP."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict, dataclass, field
from typing import Annotated

from pydantic import AfterValidator, Field, StrictBool, StrictInt
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hf_lwmm.errors import DocumentError
from hf_lwmm.localhub.bodies import parsed
from hf_lwmm.localhub.records import StoreError

ADMIN = "/_faults"


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no pattern: {error}") from None
    return text


Count = Annotated[StrictInt, Field(ge=0)]


@dataclass
class Fault:
    """A failure of the next `times` requests whose method is `method` and whose path matches the pattern `path`.

    They are answered with `status` (and `retry_after` seconds), or after `delay` seconds, or the connection is closed
    after `drop_after_bytes` bytes of the body. With `ignore_range` they are answered with the whole file, and `headers`
    take the place of those of the answer, such as an ETag or a redirect's Location.
    """

    path: Annotated[str, AfterValidator(_pattern)]
    method: str = "GET"
    times: Count = 1
    status: Annotated[StrictInt, Field(ge=200, le=599)] | None = None
    retry_after: Count | None = None
    delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    drop_after_bytes: Count | None = None
    ignore_range: StrictBool = False
    headers: dict[str, str] = field(default_factory=dict)

    def fits(self, scope: Scope) -> bool:
        """Return True if the fault applies to a request."""
        return self.times > 0 and scope["method"] == self.method and re.search(self.path, scope["path"]) is not None


class ConnectionCutError(Exception):
    """Raised to end a response in its middle."""


class Faults:
    """ASGI middleware that applies the listed faults."""

    def __init__(self, app: ASGIApp, faults: list[Fault]) -> None:
        self.app, self.faults = app, faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = next(
            (f for f in self.faults if scope["type"] == "http" and scope["path"] != ADMIN and f.fits(scope)), None
        )
        if fault is None:
            await self.app(scope, receive, send)
            return
        fault.times -= 1
        await asyncio.sleep(fault.delay)
        if fault.status is not None:
            await Request(scope, receive).body()  # else the client may meet a closed connection, not the status
            headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
            answer = JSONResponse({"error": "This fault was planned."}, fault.status, headers | fault.headers)
            await answer(scope, receive, send)
            return
        if fault.ignore_range:
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}
        left = fault.drop_after_bytes

        async def altered(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).update(fault.headers)
            if left is None or message["type"] != "http.response.body":
                await send(message)
                return
            body = message.get("body", b"")
            if len(body) > left:
                await send({**message, "body": body[:left], "more_body": True})
                raise ConnectionCutError
            left -= len(body)
            await send(message)

        await self.app(scope, receive, altered)


def fault_route(faults: list[Fault]) -> Route:
    """Return the route `/_faults`: GET lists the faults, POST adds one (as JSON, with the fields of `Fault`), DELETE
    removes all. Web pages may not send JSON, nor DELETE, to this machine.
    """

    async def answer(request: Request) -> Response:
        if request.method == "POST":
            try:
                if request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
                    raise StoreError(400, "A fault is sent as application/json.")
                faults.append(await parsed(request, Fault))
            except (DocumentError, StoreError) as error:
                return JSONResponse({"error": str(error)}, 400)
        elif request.method == "DELETE":
            faults.clear()
        return JSONResponse([asdict(fault) for fault in faults])

    return Route(ADMIN, answer, methods=["GET", "POST", "DELETE"])
