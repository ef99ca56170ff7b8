"""The Hub's HTTP protocol over a store, as far as the stock clients use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hf_lwmm.localhub import reading, writing
from hf_lwmm.localhub.access import Hub
from hf_lwmm.localhub.faults import Fault, Faults, fault_route
from hf_lwmm.localhub.store import Store, StoreError

Answer = Callable[[Hub, Request], Awaitable[Response]]


def create_app(store: Store, faults: list[Fault] | None = None) -> Starlette:
    """The application; with `faults`, they happen, and /_faults lists, adds and clears them."""
    hub = Hub(store)

    def route(path: str, answer: Answer, *methods: str) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await answer(hub, request)
            except StoreError as error:
                headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
                return JSONResponse({"error": error.message}, error.status, headers)

        return Route(path, endpoint, methods=list(methods))

    routes = [
        route("/api/whoami-v2", reading.whoami, "GET"),
        route("/api/validate-yaml", reading.validate_yaml, "POST"),
        route("/api/repos/create", writing.create, "POST"),
        route("/api/repos/delete", writing.delete, "DELETE"),
        route("/lfs/{sha256}", writing.lfs_upload, "PUT"),
    ]
    for kind in ("model", "dataset", "space"):
        api = f"/api/{kind}s"
        repo = api + "/{namespace}/{name}"
        web = ("" if kind == "model" else f"/{kind}s") + "/{namespace}/{name}"
        routes += [
            route(api, reading.list_repos, "GET"),
            route(repo, reading.info, "GET"),
            route(repo + "/revision/{revision}", reading.info, "GET"),
            route(repo + "/auth-check", reading.auth_check, "GET"),
            route(repo + "/auth-check/write", reading.auth_check_write, "GET"),
            route(repo + "/settings", writing.settings, "PUT"),
            route(repo + "/refs", reading.refs, "GET"),
            route(repo + "/tree/{revision}", reading.tree, "GET"),
            route(repo + "/tree/{revision}/{path:path}", reading.tree, "GET"),
            route(repo + "/paths-info/{revision}", reading.paths_info, "POST"),
            route(repo + "/commits/{revision}", reading.commits, "GET"),
            route(repo + "/preupload/{revision}", writing.preupload, "POST"),
            route(repo + "/commit/{revision}", writing.commit, "POST"),
            route(repo + "/branch/{revision}", writing.branch, "POST", "DELETE"),
            route(repo + "/tag/{revision}", writing.tag, "POST", "DELETE"),
            route(repo + "/discussions", reading.discussions, "GET", "POST"),
            route(repo + "/discussions/{number:int}", reading.discussion, "GET"),
            route(web + ".git/info/lfs/objects/batch", writing.lfs_batch, "POST"),
            route(web + "/resolve/{revision}/{path:path}", reading.resolve, "GET", "HEAD"),
            route(web, reading.page, "GET"),
        ]
        routes += [
            route(path, reading.no_such_repo, "GET") for path in (api + "/{name}", api + "/{name}/revision/{revision}")
        ]
    middleware = [Middleware(_RevisionInPath)]
    if faults is not None:
        routes.insert(0, fault_route(faults))
        middleware.append(Middleware(Faults, faults=faults))
    return Starlette(routes=routes, middleware=middleware)


class _RevisionInPath:
    """Keeps `refs%2Fpr%2F1` one segment: the framework would unquote it into three before routing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path", b"").split(b"?")[0].decode()
            if "%2F" in raw or "%2f" in raw:
                scope = {**scope, "path": unquote(raw.replace("%2F", "%252F").replace("%2f", "%252F"))}
        await self.app(scope, receive, send)
