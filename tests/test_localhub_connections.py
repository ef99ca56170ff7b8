"""Clients of the local Hub that are slow or send too much, and a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_requests import (
    TOKEN,
    WEIGHTS,
    commit,
    hub_with_private,
    large,
    lines,
    listed,
    opened,
    read,
    send,
    small,
    snapshot,
    upload,
    upload_path,
)

from hf_lwmm.localhub import LocalHub, bodies, connections


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalHub]:
    with hub_with_private(tmp_path / "hub") as hub:
        yield hub


# slow and large


@pytest.mark.parametrize("begun", [b"", b"GET /api/models HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_request_that_does_not_come_is_not_waited_for(
    begun: bytes, own: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.2)
    answered = b"GET /api/whoami-v2 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer hf_local\r\n\r\n"
    for before in (b"", answered):
        with opened(own, before + begun) as connection, contextlib.suppress(ConnectionError):
            while connection.recv(1 << 16):
                pass
    assert listed(own) == ["local/priv", "local/pub"]


@pytest.mark.parametrize("length", ["Content-Length: 1500", "Transfer-Encoding: chunked"])
def test_a_body_that_does_not_come_is_not_waited_for(
    length: str, own: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = upload_path(own, "local/pub", WEIGHTS, TOKEN)
    before = snapshot(own)
    monkeypatch.setattr(bodies, "GRACE", 0.2)
    monkeypatch.setattr(bodies, "SLOWEST", 1000_000)
    monkeypatch.setattr(connections, "PATIENCE", 0.2)
    for target in (path, "/api/validate-yaml", "/api/models/local/pub/commit/main"):
        method = "PUT" if target == path else "POST"
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{length}\r\n\r\n"
        begun = b"PRI" if "Length" in length else b"3\r\nPRI"
        with opened(own, head.encode() + begun) as connection:
            answer = connection.recv(1 << 16)
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(1 << 16):
                    answer += piece
            assert answer.startswith(b"HTTP/1.1 408 ") and answer.count(b"HTTP/1.1") == 1
    assert snapshot(own) == before


def test_who_does_not_read_is_not_waited_for(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(32 << 20)  # more than the buffers of a connection
    assert upload(own, "local/pub", content, TOKEN).status == 200
    assert commit(own, "local/pub", large("w.bin", content), token=TOKEN).status == 200
    monkeypatch.setattr(connections, "PATIENCE", 0.2)
    request = b"GET /local/pub/resolve/main/w.bin HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with opened(own, request):
        while not own._server.server_state.tasks:
            time.sleep(0.005)
        while own._server.server_state.connections:
            time.sleep(0.005)
    assert read(own, "/local/pub/resolve/main/w.bin") == content


def test_connections_of_strangers_give_way(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 8)
    monkeypatch.setattr(connections, "YOUNG", 0.05)
    begun = f"Host: localhost\r\nContent-Length: {len(WEIGHTS)}\r\n\r\nP".encode()
    known = f"PUT {upload_path(own, 'local/pub', WEIGHTS, TOKEN)} HTTP/1.1\r\n".encode() + begun
    unknown = b"POST /api/validate-yaml HTTP/1.1\r\n" + begun
    present = own._server.server_state.connections
    while present:
        time.sleep(0.005)
    with opened(own, known) as upload, contextlib.ExitStack() as stack:
        while not any(getattr(each, "user", None) for each in list(present)):
            time.sleep(0.005)
        strangers = [stack.enter_context(opened(own, unknown)) for _ in range(12)]
        assert listed(own) == ["local/priv", "local/pub"]
        with contextlib.suppress(ConnectionError):
            assert not strangers[0].recv(1)
        upload.sendall(WEIGHTS[1:])
        assert upload.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    while present:
        time.sleep(0.005)
    monkeypatch.setattr(connections, "CONNECTIONS", 0)
    assert send(own, "GET", "/api/models", token=TOKEN).status == 503


def test_an_answer_is_sent_whole_without_waiting_for_the_client(own: LocalHub) -> None:
    # Else its body waits until the client's system has acknowledged its head, 40 ms later.
    with opened(own, b"GET /api/models HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        [served] = own._server.server_state.connections
        used = served.transport.get_extra_info("socket")
        assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_are_bounded(chunked: bool, own: LocalHub) -> None:
    before = snapshot(own)
    announced = upload_path(own, "local/pub", WEIGHTS, TOKEN)
    header = json.dumps({"key": "header", "value": {}}).encode() + b"\n"
    for method, path, content in (
        ("PUT", announced, WEIGHTS + b"more"),
        ("POST", "/api/validate-yaml", b'{"content": "' + b" " * (5 << 20)),
        ("POST", "/api/models/local/pub/paths-info/main", b"paths=" + b"a" * (5 << 20)),
        ("POST", "/api/models/local/pub/commit/main", header + b" " * (17 << 20)),
        ("POST", "/api/models/local/pub/commit/main", header * 100_001),
    ):
        body = iter([content]) if chunked else content
        reply = send(own, method, path, body, TOKEN)
        assert reply.status == 413 and reply.error
    assert snapshot(own) == before


def test_a_record_never_grows_too_large_to_be_read(own: LocalHub) -> None:
    name = "x" * 250
    files = [small("/".join([name] * 15 + [f"{number}"]), b"x") for number in range(5000)]
    before = snapshot(own)
    reply = commit(own, "local/pub", *files, token=TOKEN)
    assert reply.status == 413 and reply.error and snapshot(own) == before


# the disk


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_and_changes_nothing(error: int, own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert upload(own, "local/pub", WEIGHTS, TOKEN).status == 200
    other = upload_path(own, "local/pub", b"other", TOKEN)
    content = lines([{"key": "header", "value": {}}, small("a.txt", b"a"), large("w.bin", WEIGHTS)])
    sync = os.fsync
    for method, path, body in (
        ("PUT", other, b"other"),
        ("POST", "/api/models/local/pub/commit/main", content),
        ("POST", "/api/models/local/pub/commit/main?create_pr=1", content),
        ("POST", "/api/models/local/pub/branch/dev", {}),
        ("POST", "/api/repos/create", {"name": "new"}),
        ("PUT", "/api/models/local/pub/settings", {"private": True}),
    ):
        before, left, refused = snapshot(own), 0, 0

        def fails(file: int) -> None:
            nonlocal left
            if stat.S_ISREG(os.fstat(file).st_mode):
                left -= 1
                if left < 0:
                    raise OSError(error, os.strerror(error))
            sync(file)

        monkeypatch.setattr(os, "fsync", fails)
        while (reply := send(own, method, path, body, TOKEN)).status == 507:
            assert os.strerror(error) in reply.error
            assert snapshot(own) == before
            refused += 1
            left = refused
        monkeypatch.setattr(os, "fsync", sync)
        assert reply.status == 200 and refused > 0
    assert read(own, "/local/pub/resolve/main/w.bin") == WEIGHTS
