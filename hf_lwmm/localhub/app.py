"""Serve a store over the part of the Hub's HTTP protocol that the stock clients use."""

from __future__ import annotations

import contextlib
import errno
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hf_lwmm.errors import DocumentError
from hf_lwmm.localhub import pages, reading, writing
from hf_lwmm.localhub.access import Hub, encoded
from hf_lwmm.localhub.faults import Fault, Faults, fault_route
from hf_lwmm.localhub.hosts import LOCAL_NAMES, KnownHosts
from hf_lwmm.localhub.records import StoreError
from hf_lwmm.localhub.store import Store
from hf_lwmm.localhub.throttle import Throttle, Throttled
from hf_lwmm.localhub.workers import Workers, aside, sent_by
from hf_lwmm.text import printable

Refusal = Callable[[Hub, Request, StoreError], Response]  # how one is told that a request cannot be served
Answer = Callable[[Hub, Request], Any]  # how a request to a store is answered: in a thread, or if it has a body, async


def create_app(
    store: Store,
    faults: list[Fault] | None = None,
    throttle: Throttle | None = None,
    hosts: Sequence[str] = (),
) -> Starlette:
    """Return the application that serves a store.

    With `faults`, requests fail as these say, and /_faults lists, adds and removes them. With `throttle`, responses go
    over this line, which counts them. It answers under the names of this machine itself, and under those of `hosts`.
    """
    hub = Hub(store)
    routes = [_route(hub, path, answer, methods, _refused) for path, answer, *methods in _answers()]
    routes += [_route(hub, path, answer, ["GET"], pages.refused) for path, answer in _pages()]
    middleware = [Middleware(KnownHosts, names=(*LOCAL_NAMES, *hosts)), Middleware(_RevisionInPath)]
    if throttle is not None:
        middleware.append(Middleware(Throttled, throttle=throttle))
    if faults is not None:
        routes.insert(0, fault_route(faults))
        middleware.append(Middleware(Faults, faults=faults))
    app = Starlette(routes=routes, middleware=middleware)
    app.state.workers = Workers()
    return app


def _answers() -> Iterator[tuple[Any, ...]]:
    """Paths, the functions that answer them, and the HTTP methods that these take."""
    yield "/api/whoami-v2", reading.whoami, "GET"
    yield "/api/validate-yaml", reading.validate_yaml, "POST"
    yield "/api/repos/create", writing.create, "POST"
    yield "/api/repos/delete", writing.delete, "DELETE"
    yield "/lfs/{sha256}", writing.lfs_upload, "PUT"
    for kind in ("dataset", "space", "model"):  # a model's page could be at /api/datasets
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
        yield repo + "/discussions", reading.discussions, "GET"
        yield repo + "/discussions", writing.discuss, "POST"
        yield repo + "/discussions/{number}", reading.discussion, "GET"
        yield web + ".git/info/lfs/objects/batch", writing.lfs_batch, "POST"
        yield web + "/resolve/{revision}/{path:path}", reading.resolve, "GET", "HEAD"
        yield api + "/{name}", reading.no_such_repo, "GET"
        yield api + "/{name}/revision/{revision}", reading.no_such_repo, "GET"


def _pages() -> Iterator[tuple[str, Answer]]:
    """Paths, and the functions that answer them with pages for people."""
    yield "/", pages.index
    yield "/style.css", pages.stylesheet
    yield "/login", pages.sign_in
    for kind in ("dataset", "space", "model"):
        web = ("" if kind == "model" else f"/{kind}s") + "/{namespace}/{name}"
        yield f"/{kind}s", pages.repositories
        yield web, pages.repository
        yield web + "/tree/{revision}", pages.tree
        yield web + "/tree/{revision}/{path:path}", pages.tree
        yield web + "/blob/{revision}/{path:path}", pages.blob
        yield web + "/commits/{revision}", pages.commits
        yield web + "/commit/{revision}", pages.commit
        yield web + "/discussions", pages.discussions
        yield web + "/discussions/{number}", pages.discussion
    yield "/{namespace}", pages.namespace


def _route(hub: Hub, path: str, answer: Answer, methods: list[str], refused: Refusal) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            with contextlib.suppress(StoreError):  # which the answer says, where it needs to know the user
                sent_by(request, hub.user(request))
            response: Response = await (answer(hub, request) if waits else aside(request, answer, hub, request))
            return response
        except (StoreError, DocumentError, OSError) as error:
            return refused(hub, request, _as_refusal(error))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    waits = inspect.iscoroutinefunction(answer)
    return Route(path, endpoint, methods=methods)


def _as_refusal(error: StoreError | DocumentError | OSError) -> StoreError:
    """The answer to a request that cannot be served."""
    if isinstance(error, DocumentError):
        return StoreError(400, str(error))
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        message = f"This Hub cannot use its disk ({error.strerror}). Nothing was changed."
        return StoreError(507 if full else 500, message)
    return error


def _refused(hub: Hub, request: Request, error: StoreError) -> Response:
    """The answer to a request of a client that cannot be served."""
    line = printable(" ".join(error.message.split()))
    headers = {"X-Error-Message": line.encode("ascii", "backslashreplace").decode()}
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": line}, error.status, headers)


class _RevisionInPath:
    """ASGI middleware that keeps `refs%2Fpr%2F1` one segment, which the framework would make three before routing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw = scope["raw_path"].split(b"?")[0].decode("ascii", "replace")
            if "%" in raw:
                scope = {**scope, "path": unquote(encoded(raw))}
        await self.app(scope, receive, send)
