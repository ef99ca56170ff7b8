"""What one client sends to the local Hub stops nobody else, and fills neither the disk nor what others have there."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_requests import (
    BOB,
    TOKEN,
    WEIGHTS,
    batch,
    commit,
    hub_of_two,
    large,
    lines,
    send,
    small,
    snapshot,
    upload,
    upload_path,
)
from huggingface_hub import HfApi

from hf_lwmm.errors import HubError
from hf_lwmm.localhub import LocalHub, cards, contents, discussions, listings, reading, store, writing
from hf_lwmm.localhub.records import Changes


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalHub]:
    with hub_of_two(tmp_path / "hub") as hub:
        yield hub


def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


# time


def test_nobody_waits_for_what_takes_long(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(reading, "card_data", lambda content: {"waited": answered.wait(60)})
    replies: list[int] = []

    def ask(token: str) -> None:
        replies.append(send(own, "POST", "/api/validate-yaml", {"content": "---\n"}, token).status)

    threads = [threading.Thread(target=ask, args=[token]) for token in ("", BOB) for _ in range(9)]
    for thread in threads:
        thread.start()
    assert send(own, "GET", "/api/whoami-v2", token=TOKEN).status == 200
    assert commit(own, "local/pub", small("a.txt", b"a"), token=TOKEN).status == 200
    assert replies == []
    answered.set()
    for thread in threads:
        thread.join()
    assert replies == [200] * 18


def test_heads_of_cards_are_bounded(own: LocalHub) -> None:
    head = "---\nlicense: mit\na: [" + "[]," * (cards._LONGEST_HEAD // 3) + "]\n---\n"
    reply = send(own, "POST", "/api/validate-yaml", {"content": head})
    assert reply.status == 400 and "longer than" in reply.json()["errors"][0]["message"]
    assert commit(own, "local/pub", small("README.md", head.encode()), token=TOKEN).status == 200
    assert send(own, "GET", "/api/models/local/pub").json()["cardData"] == {}


@pytest.mark.parametrize(("count", "seconds"), [(2, 60.0), (1000, -1.0)])
def test_long_lists_and_histories_come_in_pages(
    count: int, seconds: float, own: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        assert commit(own, "local/pub", small("a.txt", b"%d" % number), token=TOKEN).status == 200
        send(own, "POST", "/api/repos/create", {"name": f"repo{number}"}, TOKEN)
    names = [model.id for model in api(own).list_models()]
    oids = [commit.commit_id for commit in api(own).list_repo_commits("local/pub")]
    assert len(names) == len(oids) == 5
    monkeypatch.setattr(reading, "_PAGE", count)
    monkeypatch.setattr(listings, "_LONGEST", seconds)
    for path in ("/api/models/local/pub/commits/main", "/api/models"):
        assert len(send(own, "GET", path, token=TOKEN).json()) == min(count, 2 if seconds > 0 else 1)
    assert [model.id for model in api(own).list_models()] == names
    assert [commit.commit_id for commit in api(own).list_repo_commits("local/pub")] == oids


def test_pages_say_nothing_of_private_repositories(own: LocalHub) -> None:
    def pages(path: str) -> Iterator[tuple[list[str], str]]:
        while path:
            reply = send(own, "GET", path, token=BOB)
            yield [each["id"] for each in reply.json()], reply.headers.get("link", "")
            path = "".join(re.findall("<http://[^/]*(/.*)>", reply.headers.get("link", "")))

    send(own, "POST", "/api/repos/create", {"name": "seen"}, TOKEN)
    before = list(pages("/api/models?limit=1"))
    assert [ids for ids, _ in before] == [["local/pub"], ["local/seen"]]
    for name in ("a", "q", "z"):
        send(own, "POST", "/api/repos/create", {"name": name, "private": True}, TOKEN)
    assert list(pages("/api/models?limit=1")) == before


def test_bodies_of_strangers_are_small(own: LocalHub) -> None:
    body = {"content": "x" * (2 << 20)}
    assert send(own, "POST", "/api/validate-yaml", body).status == 413
    assert send(own, "POST", "/api/validate-yaml", body, TOKEN).status == 200


# repositories of others


def test_discussions_are_counted(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discussions, "MOST", 4)
    monkeypatch.setattr(discussions, "MOST_OF_A_USER", 2)
    monkeypatch.setattr(discussions, "MOST_OF_A_WRITER", 2)
    path, record = "/api/models/local/pub/discussions", own.store.root / "repos/models/local/pub/repo.json"
    size = record.stat().st_size
    pull = lines([{"key": "header", "value": {"summary": "take this"}}, small("a.txt", b"a")])
    assert send(own, "POST", path, {"title": "hello"}, BOB).json()["num"] == 1
    assert record.stat().st_size == size
    assert send(own, "POST", "/api/models/local/pub/commit/main?create_pr=1", pull, BOB).status == 200
    for token, numbers in ((BOB, []), (TOKEN, [3, 4]), (TOKEN, [])):
        for number in numbers:
            assert send(own, "POST", path, {"title": "mine"}, token).json()["num"] == number
        before = snapshot(own)
        for refused in (
            send(own, "POST", path, {"title": "more"}, token),
            send(own, "POST", path, {"title": "more", "pullRequest": True}, token),
            send(own, "POST", "/api/models/local/pub/commit/main?create_pr=1", pull, token),
        ):
            if token == BOB or numbers == []:
                assert refused.status == 403 and "at most" in refused.error
                assert snapshot(own) == before
    listed = list(api(own).get_repo_discussions("local/pub"))
    assert [each.num for each in listed] == [4, 3, 2, 1] and listed[2].is_pull_request
    assert [each.num for each in api(own).get_repo_discussions("local/pub", author="bob")][-1] == 1
    assert send(own, "POST", path, {"title": "x" * 1001}, TOKEN).status == 400


def test_refs_and_repositories_are_counted(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MOST_REFS", 2)
    monkeypatch.setattr(store, "_MOST_REPOS", 2)
    statuses = [
        send(own, "POST", path, body, TOKEN).status
        for path, body in (
            ("/api/models/local/pub/branch/dev", {}),
            ("/api/models/local/pub/branch/more", {}),
            ("/api/models/local/pub/tag/main", {"tag": "v1"}),
            ("/api/models/local/pub/discussions", {"title": "a pull request", "pullRequest": True}),
            ("/api/models/local/pub/discussions", {"title": "a discussion"}),
            ("/api/repos/create", {"name": "second"}),
            ("/api/repos/create", {"name": "third"}),
            ("/api/repos/create", {"name": "pub"}),
        )
    ]
    assert statuses == [200, 403, 403, 403, 200, 200, 403, 409]
    assert commit(own, "local/pub", small("a.txt", b"a"), token=TOKEN).status == 200


def test_a_large_commit_that_is_damaged_is_not_remembered(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_SMALL", 0)
    assert commit(own, "local/pub", small("a.txt", b"a"), token=TOKEN).status == 200
    path = "/local/pub/resolve/main/a.txt"
    oid = send(own, "GET", path).headers["x-repo-commit"]
    (own.store.root / f"repos/models/local/pub/commits/{oid}.json").write_text("{}")
    assert send(own, "GET", path).status == 409


def test_pull_requests_of_others_are_bounded(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_MOST_OF_OTHERS", 1)
    body, before = lines([{"key": "header", "value": {}}, small("a", b"a"), small("b", b"b")]), snapshot(own)
    path = "/api/models/local/pub/commit/main?create_pr=1"
    assert send(own, "POST", path, body, BOB).status == 413 and snapshot(own) == before
    assert send(own, "POST", path, body, TOKEN).status == 200


def test_nobody_waits_for_a_repository_of_others(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(own, "POST", "/api/repos/create", {"name": "mine"}, BOB).status == 200
    held, done, applied = threading.Event(), threading.Event(), Changes.applied

    def slowly(changes: Changes, files: Any) -> Any:
        if "slow" in changes.added:
            held.set()
            assert done.wait(60)
        return applied(changes, files)

    monkeypatch.setattr(Changes, "applied", slowly)
    replies: list[int] = []
    slow = threading.Thread(
        target=lambda: replies.append(commit(own, "bob/mine", small("slow", b"x"), token=BOB).status)
    )
    slow.start()
    assert held.wait(60)
    assert commit(own, "local/pub", small("a", b"a"), token=TOKEN).status == 200
    done.set()
    slow.join()
    assert replies == [200]


# the disk


def test_uploads_that_nobody_commits_are_removed_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def uploads(hub: LocalHub) -> set[str]:
        return {path.name for path in (hub.store.root / "uploads").glob("*/*")}

    old, new = (hashlib.sha256(content).hexdigest() for content in (b"old", b"new"))
    for restarted in (True, False):
        with LocalHub(tmp_path) as hub:
            token = hub.token
            send(hub, "POST", "/api/repos/create", {"name": "pub"}, token)
            for content in (b"old", b"new"):
                if "actions" in batch(hub, "local/pub", content, token):
                    assert upload(hub, "local/pub", content, token).status == 200
            assert uploads(hub) == {old, new}
            yesterday = time.time() - 25 * 3600
            os.utime(hub.store.root / "uploads/local" / old, (yesterday, yesterday))
            if not restarted:
                monkeypatch.setattr(contents, "_HOUR", 0)
                assert "actions" in batch(hub, "local/pub", b"old", token)
                assert uploads(hub) == {new}
        if restarted:
            with LocalHub(tmp_path) as hub:
                assert uploads(hub) == {new}


def test_some_of_the_disk_is_left_free(own: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    path, before = upload_path(own, "local/pub", WEIGHTS, TOKEN), snapshot(own)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=contents._RESERVE + 100))
    for reply in (send(own, "PUT", path, WEIGHTS), commit(own, "local/pub", small("a", WEIGHTS), token=TOKEN)):
        assert reply.status == 507 and "No space left" in reply.error
    assert snapshot(own) == before
    assert commit(own, "local/pub", small("a", b"a"), token=TOKEN).status == 200
    assert send(own, "DELETE", "/api/repos/delete", {"name": "pub"}, TOKEN).status == 200


# the end


def test_a_server_ends_when_it_is_told_to_whoever_is_connected(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hf_lwmm", "hub", "serve", "--root", str(tmp_path / "hub"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = next(line for line in process.stderr or () if "HF_ENDPOINT" in line)
            endpoint, port, token = re.findall(r"HF_ENDPOINT=(\S+:(\d+)) HF_TOKEN=(\S+)", said)[0]
            hub: Any = SimpleNamespace(port=int(port), endpoint=endpoint)
            assert send(hub, "POST", "/api/repos/create", {"name": "big"}, token).status == 200
            content = bytes(32 << 20)  # more than the buffers of a connection
            assert upload(hub, "local/big", content, token).status == 200
            assert commit(hub, "local/big", large("w.bin", content), token=token).status == 200
            host = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
            stalled = [
                "",
                "GET /api/models HT",
                f"GET /local/big/resolve/main/w.bin HTTP/1.1\r\n{host}\r\n",  # of which nothing is read
                f"POST /api/models/local/big/commit/main HTTP/1.1\r\n{host}Content-Length: 100\r\n\r\n{{",
                f"PUT {upload_path(hub, 'local/big', WEIGHTS, token)} HTTP/1.1\r\n{host}Content-Length: 1500\r\n\r\nP",
            ]
            connections = [socket.create_connection(("127.0.0.1", hub.port), timeout=60) for _ in stalled]
            for connection, begun in zip(connections, stalled, strict=True):
                connection.sendall(begun.encode())
            assert send(hub, "GET", "/api/models", token=token).status == 200
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)  # without its own bound it would be half a minute for each
            assert "Traceback" not in (process.stderr.read() if process.stderr else "")
        finally:
            process.kill()
    for connection in connections:
        connection.close()
    with LocalHub(tmp_path / "hub") as again:
        assert not list((again.store.root / "incoming").iterdir())
        assert send(again, "GET", "/local/big/resolve/main/w.bin", token=token).body == content


def test_a_port_that_is_taken_leaves_no_socket_open(own: LocalHub, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always")
        with pytest.raises(HubError):
            LocalHub(tmp_path / "other", own.port)
        gc.collect()
    assert not left_open
