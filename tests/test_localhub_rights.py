"""What users without rights may do on the local Hub, and that they take nothing from those who have them."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hub_requests import BOB, TOKEN, hub_of_two, lines, send, small

from hf_lwmm.localhub import LocalHub, connections, discussions


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalHub]:
    with hub_of_two(tmp_path / "hub") as hub:
        yield hub


def test_who_opened_a_pull_request_may_commit_to_it_and_nobody_else_without_rights(own: LocalHub) -> None:
    path, body = "/api/models/local/pub/commit", {"key": "header", "value": {"summary": "a commit"}}
    opened = send(own, "POST", f"{path}/main?create_pr=1", lines([body, small("x.txt", b"x")]), BOB)
    number = opened.json()["pullRequestUrl"].rpartition("/")[2]
    own.add_user("eve", token="hf_eve")
    for token, status in ((BOB, 200), (TOKEN, 200), ("hf_eve", 403), ("", 401)):
        content = lines([body, small("x.txt", f"of {token}".encode())])
        files = {"files": [{"path": "x.txt", "size": 1, "sample": ""}]}
        for what, sent in (("preupload", files), ("commit", content)):
            reply = send(own, "POST", f"/api/models/local/pub/{what}/refs%2Fpr%2F{number}", sent, token)
            assert reply.status == status, reply.body
    assert send(own, "POST", f"{path}/main", lines([body, small("x.txt", b"x")]), BOB).status == 403


def test_names_that_git_refuses_are_no_branches(own: LocalHub) -> None:
    for name in ("deadbee", "HEAD", "a..b", "a.lock", "a/.b", "a.", "a b", "x~1"):
        reply = send(own, "POST", f"/api/models/local/pub/branch/{quote(name, safe='')}", {}, token=TOKEN)
        assert reply.status == 400 and b"no name of a branch" in reply.body, name
    assert send(own, "POST", "/api/models/local/pub/branch/a%2Fb", {}, token=TOKEN).status == 200
    for name in ("main/x", "a", "a/b/c"):
        reply = send(own, "POST", f"/api/models/local/pub/branch/{quote(name, safe='')}", {}, token=TOKEN)
        assert reply.status == 400 and "cannot stand beside" in reply.error, name
    assert send(own, "POST", "/api/models/local/pub/tag/main", {"tag": "a"}, token=TOKEN).status == 200


def test_strangers_close_no_discussions_for_those_who_may_write(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discussions, "MOST", 2)
    own.add_user("eve", token="hf_eve")
    path = "/api/models/local/pub/discussions"
    statuses = [send(own, "POST", path, {"title": "hello"}, token).status for token in (BOB, BOB, "hf_eve", TOKEN)]
    assert statuses == [200, 200, 403, 200]
    body = lines([{"key": "header", "value": {"summary": "a commit"}}, small("x.txt", b"x")])
    assert send(own, "POST", "/api/models/local/pub/commit/main?create_pr=1", body, TOKEN).status == 200


def test_who_opens_one_connection_after_the_other_cuts_off_nobody(
    own: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client without a token sends half of a head on each, and closes the oldest of more than the Hub keeps."""
    monkeypatch.setattr(connections, "CONNECTIONS", 16)
    stopped, begun, held = threading.Event(), threading.Event(), deque[socket.socket]()

    def flood() -> None:
        while not stopped.is_set():
            held.append(socket.create_connection(("127.0.0.1", own.port), timeout=60))
            held[-1].sendall(b"GET /api/models HTTP/1.1\r\nHost: loc")
            if len(held) > 24:
                held.popleft().close()
                begun.set()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        assert begun.wait(60)
        for _ in range(4):
            assert send(own, "GET", "/api/whoami-v2", token=TOKEN).status == 200
    finally:
        stopped.set()
        thread.join()
        for each in held:
            each.close()
