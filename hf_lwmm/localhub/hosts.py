"""Answer only under the names that a Hub has: a web page whose own name leads to this machine learns nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hf_lwmm.files.documents import shortened

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class KnownHosts:
    """ASGI middleware that refuses requests for other hosts."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self.app, self.names = app, {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("Host", "")
        parts = re.fullmatch(r"([\w.-]+|\[[\da-f:]+\])(:\d{1,5})?", host.lower(), re.ASCII)
        if parts is not None and parts[1] in self.names:
            await self.app(scope, receive, send)
            return
        message = f"This Hub does not answer as {shortened(host)}; hub serve has --allowed-host for more names."
        await JSONResponse({"error": message}, 421)(scope, receive, send)
