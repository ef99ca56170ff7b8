"""Malformed requests, made from the local Hub's own table of routes: refused with a line, and nothing is changed.

The marked test of 10,000 requests runs with `pytest -m slow tests/fuzz`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hub_requests import SHA256, WEIGHTS, commit, large, lines, send, small, snapshot, upload, upload_path
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_lwmm.localhub import LocalHub
from hf_lwmm.localhub.app import create_app

TOKEN = "hf_local"
REPO = "local/pub"
COUNTS = pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
READING = {"GET", "HEAD"}


@dataclass(frozen=True)
class Endpoint:
    """A route of the Hub, and one of its methods."""

    method: str
    path: str  # with its parameters in braces


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]


class Server:
    """A Hub with a repository of each kind, which can be put back to how it was, and what it logs."""

    def __init__(self, hub: LocalHub, template: Path) -> None:
        self.hub, self.template, self.logged = hub, template, _Log()
        self.endpoints = [
            Endpoint(method, route.path.replace(":path}", "}"))
            for route in create_app(hub.store).routes
            for method in sorted(route.methods)
        ]

    def reset(self) -> None:
        for path in self.template.iterdir():
            if path.is_dir():
                shutil.rmtree(self.hub.store.root / path.name)
                shutil.copytree(path, self.hub.store.root / path.name)
        self.hub.store._listed.clear()

    def alive(self) -> bool:
        return send(self.hub, "GET", "/api/whoami-v2", token=TOKEN).json()["name"] == "local"


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fuzz")
    with LocalHub(folder / "hub", faults=False) as hub:
        hub.add_user("local", token=TOKEN)
        hub.add_user("bob", token="hf_bob")
        hub.add_user("reader", token="hf_reader", role="read", orgs=("local",))
        for kind in ("model", "dataset", "space"):
            body = {"name": "pub", "type": kind, "private": kind == "space"}
            assert send(hub, "POST", "/api/repos/create", body, TOKEN).status == 200
        assert upload(hub, REPO, WEIGHTS, TOKEN).status == 200
        card = b"---\nlicense: mit\ntags: [merge]\n---\n# Hello\n"
        files = [small("README.md", card), small("sub/config.json", b'{"model_type": "x"}'), large("w.bin", WEIGHTS)]
        for kind in ("model", "dataset", "space"):
            assert commit(hub, REPO, *files, token=TOKEN, kind=kind).status == 200
            repo = f"/api/{kind}s/{REPO}"
            assert send(hub, "POST", f"{repo}/branch/dev", {}, TOKEN).status == 200
            assert send(hub, "POST", f"{repo}/tag/main", {"tag": "dev"}, TOKEN).status == 200
            body = {"title": "A question", "pullRequest": True}
            assert send(hub, "POST", f"{repo}/discussions", body, TOKEN).status == 200
        shutil.copytree(hub.store.root, folder / "template", ignore=shutil.ignore_patterns("lock"))
        server = Server(hub, folder / "template")
        loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
        for logger in loggers:
            logger.setLevel(logging.WARNING)
            logger.addHandler(server.logged)
        yield server
        for logger in loggers:
            logger.removeHandler(server.logged)


GOOD = {"namespace": "local", "name": "pub", "revision": "main", "number": "1"}
GOOD_BODIES: dict[str, Any] = {
    "POST /api/validate-yaml": {"content": "---\nlicense: mit\n---\n", "repoType": "model"},
    "POST /api/repos/create": {"name": "new", "organization": None, "type": "model", "visibility": "private"},
    "DELETE /api/repos/delete": {"name": "pub", "organization": None, "type": "model"},
    "PUT /settings": {"visibility": "private", "gated": "auto"},
    "POST /paths-info/{revision}": {"paths": [".gitattributes", "sub"], "expand": True},
    "POST /preupload/{revision}": {"files": [{"path": "a.txt", "sample": "eA==", "size": 1}]},
    "POST /branch/{revision}": {"startingPoint": "main"},
    "POST /tag/{revision}": {"tag": "v1", "message": "first"},
    "POST /discussions": {"title": "Hello", "description": "you", "pullRequest": True},
    "POST /objects/batch": {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 3}], "hash_algo": "sha256"},
    "POST /commit/{revision}": [
        {"key": "header", "value": {"summary": "more", "description": ""}},
        {"key": "file", "value": {"path": "a.txt", "content": "eA==", "encoding": "base64"}},
        {"key": "lfsFile", "value": {"path": "b.bin", "algo": "sha256", "oid": SHA256, "size": len(WEIGHTS)}},
        {"key": "deletedFile", "value": {"path": ".gitattributes"}},
    ],
}


def good_body(endpoint: Endpoint) -> Any:
    """The body of a request that succeeds; None where there is none."""
    found = [body for key, body in GOOD_BODIES.items() if matches(key, endpoint)]
    return copy.deepcopy(found[0]) if found else None


def matches(key: str, endpoint: Endpoint) -> bool:
    method, path = key.split()
    return method == endpoint.method and endpoint.path.endswith(path)


def good_path(server: Server, endpoint: Endpoint, changed: dict[str, str]) -> str:
    """The path of a request that succeeds, but for the parameters that are given, which are encoded already."""
    if endpoint.path == "/lfs/{sha256}":
        return upload_path(server.hub, REPO, b"other weights", TOKEN).replace("{sha256}", changed.get("sha256", ""))
    good = dict(GOOD)
    if endpoint.method == "DELETE":
        good["revision"] = "dev"
    elif "/branch/" in endpoint.path:
        good["revision"] = "new"
    good["path"] = "sub" if "/tree/" in endpoint.path else "sub/config.json"
    path = endpoint.path
    for name, value in {**good, **changed}.items():
        path = path.replace("{" + name + "}", value)
    return path


def encoded(body: Any) -> bytes | None:
    return None if body is None else lines(body) if isinstance(body, list) else json.dumps(body).encode()


def test_requests_that_are_not_malformed_are_answered(server: Server) -> None:
    for endpoint in server.endpoints:
        path = good_path(server, endpoint, {})
        body = b"other weights" if path.startswith("/lfs/") else encoded(good_body(endpoint))
        headers = {"Content-Type": "application/json"}
        reply = send(server.hub, endpoint.method, path, body, TOKEN, headers)
        old = endpoint.path.endswith(("s/{name}", "s/{name}/revision/{revision}"))  # no repository is named like that
        signed_in = endpoint.path.startswith("/login")  # which leads back to where one came from
        assert reply.status == (404 if old else 303 if signed_in else 200), (endpoint, reply)
        if endpoint.method not in READING:
            server.reset()
    assert server.logged.lines == []


def test_what_changes_something_needs_a_token(server: Server) -> None:
    before = snapshot(server.hub)
    changing = [endpoint for endpoint in server.endpoints if endpoint.method not in READING]
    assert len(changing) > 20
    for endpoint in changing:
        if endpoint.path in ("/api/validate-yaml", "/lfs/{sha256}") or "/paths-info/" in endpoint.path:
            continue  # the first and the last only read; an upload's address is signed
        for headers in ({}, {"Cookie": f"token={TOKEN}"}, {"Origin": "http://evil.example"}):
            path = good_path(server, endpoint, {})
            reply = send(server.hub, endpoint.method, path, encoded(good_body(endpoint)), headers=headers)
            assert reply.status == 401, (endpoint, reply)
            assert "Access-Control-Allow-Origin" not in reply.headers
    assert snapshot(server.hub) == before


TEXTS = st.sampled_from(
    [
        "", ".", "..", "../..", "../../users.json", "/etc/passwd", "\0", "a\0b", "a\nb", "\r\nX-Odd: 1", "a" * 300,
        "é" * 200, "e\u0301", "日本語", "\u202e", "\u2028", "\U0001f600", "refs/pr/1", "tags/dev", "pub.git", ".git",
        "-", "%2e%2e", "%00", "main~1", "9" * 5000, "-1", "1e999", "NaN", "٣", "0" * 40, "f" * 64, SHA256, "PUB",
        "pub ", "<script>", "{sha256}", "*", "[",
    ]
)  # fmt: skip
PARAMETERS = st.one_of(
    TEXTS.map(lambda text: quote(text, safe="")),
    TEXTS.map(lambda text: quote(text, safe="/")),
    st.text(max_size=20).map(lambda text: quote(text, safe="", errors="replace")),
    st.binary(max_size=8).map(lambda content: "".join(f"%{byte:02x}" for byte in content)),
    st.sampled_from(
        ["%", "%zz", "%c0%ae%c0%ae", "%252e%252e%252f", "%ed%a0%80", ";", "a;b", "\\..\\", "//", "%5c", "~"]
    ),
)
QUERY = ("cursor", "limit", "expand", "search", "author", "filter", "pipeline_tag", "blobs", "recursive", "create_pr",
         "size", "user", "signature")  # fmt: skip
QUERIES = st.lists(st.tuples(st.sampled_from(QUERY), PARAMETERS), max_size=3).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
HEADERS = st.dictionaries(
    st.sampled_from(["Range", "If-Range", "Content-Type", "Accept", "Cookie", "X-Forwarded-Proto", "Upgrade",
                     "Connection", "Origin", "Accept-Encoding", "Expect"]),
    LATIN | st.sampled_from(["bytes=9-1", "bytes=0-0,1-1,2-2", "bytes=-9999999999999999999", "application/json",
                             "multipart/form-data", "application/x-www-form-urlencoded", "websocket", "upgrade",
                             "100-continue", "https"]),
    max_size=2,
)  # fmt: skip
TOKENS = st.one_of(
    st.sampled_from(["Bearer hf_bob", "Bearer hf_reader", "Bearer ", "Basic aGY6aGY=", f"bearer {TOKEN}", TOKEN]), LATIN
)
NUMBERS = st.sampled_from([-1, 0, 1, 1 << 31, 1 << 63, 10**30, 1.5, 1e308, float("nan"), float("inf"), True])
ATOMS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.text(max_size=10), st.just("\ud800"))
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
DEEP = st.sampled_from([b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[" * 200 + b"]" * 200])
RAW = st.one_of(
    DEEP,
    st.binary(max_size=60),
    st.sampled_from([b"", b"{", b"null", b"[]", b"3", b'"x"', b"\xff\xfe{}", b'{"name": "\\ud800"}', b'{"a":1,"a":2}',
                     b'{"name": ' + b"9" * 5000 + b"}", b"\0" * 100, b"\n" * 50, b"a=" + b"%ff" * 30, b"{}\n{}"]),
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn, good: Any) -> bytes | None:
    """A good body that was changed in a place or two, or nothing of the kind."""
    if good is None:
        return draw(st.none() | RAW)
    if draw(st.integers(0, 4)) == 0:
        return draw(RAW)
    body = copy.deepcopy(good)
    for _ in range(draw(st.integers(0, 2))):
        places = list(_places(body))
        if not places:
            break
        inside, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "replace", "remove", "deepen", "double"])):
            case "replace":
                inside[key] = draw(VALUES)
            case "remove":
                del inside[key]
            case "deepen":
                inside[key] = [inside[key]]
            case "double" if isinstance(inside, list):
                inside.append(copy.deepcopy(inside[key]))
    content = encoded(body) or b""
    if draw(st.integers(0, 5)) == 0:
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.binary(max_size=3)) + content[place + draw(st.integers(0, 3)) :]
    return content


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


@st.composite
def requests(draw: st.DrawFn, server: Server) -> Request:
    """A request that succeeds, but for one or two parts of it."""
    endpoint = draw(st.sampled_from(server.endpoints))
    names = [name for name in (*GOOD, "path", "sha256") if "{" + name + "}" in endpoint.path]
    kinds = ["query", "headers", "token", "method", "body", "body", *names, *names]
    odd = set(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=2)))
    path = good_path(server, endpoint, {name: draw(PARAMETERS) for name in names if name in odd})
    query = draw(QUERIES) if "query" in odd else ""
    path += ("&" if "?" in path else "?") + query if query else ""
    headers = draw(HEADERS) if "headers" in odd else {}
    headers["Authorization"] = draw(TOKENS) if "token" in odd else f"Bearer {TOKEN}"
    good = good_body(endpoint)
    body = draw(bodies(good)) if "body" in odd else encoded(good)
    return Request("PATCH" if "method" in odd else endpoint.method, path, body, headers)


@COUNTS
def test_malformed_requests_are_refused_and_change_nothing(count: int, server: Server) -> None:
    server.reset()
    server.logged.lines.clear()
    before = snapshot(server.hub)
    refused = set()

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(requests(server))
    def check(request: Request) -> None:
        reply = send(server.hub, request.method, request.path, request.body, headers=request.headers)
        assert reply.status < 500, reply
        assert b"Traceback" not in reply.body
        if reply.status >= 300 or request.method in READING:
            refused.add(reply.status)
            assert snapshot(server.hub) == before
        else:
            server.reset()
        assert server.alive()

    check()
    assert len({400, 401, 404} & refused) > 1  # by chance one of them may be missing
    assert not [line for line in server.logged.lines if "Traceback" in line]


HEAD = (
    b"POST /api/repos/create HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer hf_local\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)
CHUNKED = b"PUT /lfs/0 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"


@st.composite
def bytes_on_the_wire(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from([HEAD, CHUNKED, HEAD + HEAD, CHUNKED + CHUNKED])))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        end = place + draw(st.sampled_from([0, 0, 1, 2, 8]))
        content[place:end] = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\r\n", b"\0", b"\n", b":", b"Content-Length: 9\r\n", b"Host: x\r\n", b"x" * 70_000])
        )
    return bytes(content)


@COUNTS
def test_bytes_that_are_no_requests_end_a_connection_only(count: int, server: Server) -> None:
    server.reset()
    server.logged.lines.clear()
    before = snapshot(server.hub)

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(bytes_on_the_wire())
    def check(content: bytes) -> None:
        with socket.create_connection(("127.0.0.1", server.hub.port), timeout=60) as connection:
            received = b""
            try:
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(1 << 16):
                    received += piece
            except TimeoutError:
                raise
            except OSError:  # the connection was cut
                pass
        assert b"Traceback" not in received and b" 500 " not in received
        assert server.alive()
        assert snapshot(server.hub) == before

    check()
    assert not [line for line in server.logged.lines if "Traceback" in line]


def test_nonsense_after_an_answer_ends_a_connection_only(server: Server) -> None:
    server.logged.lines.clear()
    with socket.create_connection(("127.0.0.1", server.hub.port), timeout=60) as connection:
        connection.sendall(CHUNKED[:-12])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 403 ")
        connection.sendall(b"no length of a chunk\r\n")
        with contextlib.suppress(ConnectionError):
            while connection.recv(1 << 16):
                pass
    assert server.alive()
    assert not [line for line in server.logged.lines if "Traceback" in line]
