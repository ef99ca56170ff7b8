"""Serve a store over the part of the Hub's HTTP protocol that the stock clients use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hf_lwmm.localhub import reading, writing
from hf_lwmm.localhub.access import Hub
from hf_lwmm.localhub.faults import Fault, Faults, fault_route
from hf_lwmm.localhub.records import StoreError
from hf_lwmm.localhub.store import Store
from hf_lwmm.localhub.throttle import Throttle, Throttled

Answer = Callable[[Hub, Request], Awaitable[Response]]  # how a request to a store is answered


def create_app(store: Store, faults: list[Fault] | None = None, throttle: Throttle | None = None) -> Starlette:
    """Return the application that serves a store.

    With `faults`, requests fail as these say, and /_faults lists, adds and removes them. With `throttle`, responses go
    over this line, which counts them.
    """
    hub = Hub(store)
    routes = [_route(hub, path, answer, methods) for path, answer, *methods in _answers()]
    middleware = [Middleware(_RevisionInPath)]
    if throttle is not None:
        middleware.append(Middleware(Throttled, throttle=throttle))
    if faults is not None:
        routes.insert(0, fault_route(faults))
        middleware.append(Middleware(Faults, faults=faults))
    return Starlette(routes=routes, middleware=middleware)


def _answers() -> Iterator[tuple[Any, ...]]:
    """Paths, the functions that answer them, and the HTTP methods that these take."""
    yield "/api/whoami-v2", reading.whoami, "GET"
    yield "/api/validate-yaml", reading.validate_yaml, "POST"
    yield "/api/repos/create", writing.create, "POST"
    yield "/api/repos/delete", writing.delete, "DELETE"
    yield "/lfs/{sha256}", writing.lfs_upload, "PUT"
    for kind in ("model", "dataset", "space"):
        api = f"/api/{kind}s"
        repo = api + "/{namespace}/{name}"
        web = ("" if kind == "model" else f"/{kind}s") + "/{namespace}/{name}"
        yield api, reading.list_repos, "GET"
        yield repo, reading.info, "GET"
        yield repo + "/revision/{revision}", reading.info, "GET"
        yield repo + "/auth-check", reading.auth_check, "GET"
        yield repo + "/auth-check/write", reading.auth_check_write, "GET"
        yield repo + "/settings", writing.settings, "PUT"
        yield repo + "/refs", reading.refs, "GET"
        yield repo + "/tree/{revision}", reading.tree, "GET"
        yield repo + "/tree/{revision}/{path:path}", reading.tree, "GET"
        yield repo + "/paths-info/{revision}", reading.paths_info, "POST"
        yield repo + "/commits/{revision}", reading.commits, "GET"
        yield repo + "/preupload/{revision}", writing.preupload, "POST"
        yield repo + "/commit/{revision}", writing.commit, "POST"
        yield repo + "/branch/{revision}", writing.branch, "POST", "DELETE"
        yield repo + "/tag/{revision}", writing.tag, "POST", "DELETE"
        yield repo + "/discussions", reading.discussions, "GET", "POST"
        yield repo + "/discussions/{number:int}", reading.discussion, "GET"
        yield web + ".git/info/lfs/objects/batch", writing.lfs_batch, "POST"
        yield web + "/resolve/{revision}/{path:path}", reading.resolve, "GET", "HEAD"
        yield web, reading.page, "GET"
        yield api + "/{name}", reading.no_such_repo, "GET"
        yield api + "/{name}/revision/{revision}", reading.no_such_repo, "GET"


def _route(hub: Hub, path: str, answer: Answer, methods: list[str]) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            return await answer(hub, request)
        except StoreError as error:
            headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
            return JSONResponse({"error": error.message}, error.status, headers)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    return Route(path, endpoint, methods=methods)


class _RevisionInPath:
    """ASGI middleware that keeps `refs%2Fpr%2F1` one segment, which the framework would make three before routing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path", b"").split(b"?")[0].decode()
            if "%2F" in raw or "%2f" in raw:
                scope = {**scope, "path": unquote(raw.replace("%2F", "%252F").replace("%2f", "%252F"))}
        await self.app(scope, receive, send)
