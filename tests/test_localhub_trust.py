"""The local Hub among hostile clients, web pages, other servers and files in its folder, and on a full disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Run
from hub_requests import SHA256, WEIGHTS, batch, commit, large, lines, send, small, snapshot, upload, upload_path
from huggingface_hub import HfApi

from hf_lwmm.errors import HubError
from hf_lwmm.localhub import LocalHub, bodies, connections

TOKEN, BOB = "hf_local", "hf_bob"
CARD = b"---\nlicense: mit\ntags: [merge]\n---\n"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalHub]:
    """A Hub of the users local and bob, with local's repositories pub, which everybody may read, and priv."""
    with LocalHub(tmp_path / "hub", faults=False) as hub:
        hub.add_user("local", token=TOKEN)
        hub.add_user("bob", token=BOB)
        for name in ("pub", "priv"):
            body = {"name": name, "private": name == "priv"}
            assert send(hub, "POST", "/api/repos/create", body, TOKEN).status == 200
        assert commit(hub, "local/pub", small("README.md", CARD), token=TOKEN).status == 200
        yield hub


def listed(hub: LocalHub) -> list[str]:
    return [model.id for model in HfApi(endpoint=hub.endpoint, token=TOKEN).list_models()]


def read(hub: LocalHub, path: str, token: str = TOKEN) -> bytes | int:
    """The content of a file, or the status of the refusal."""
    reply = send(hub, "GET", path, token=token)
    return reply.body if reply.status == 200 else reply.status


# one server for a folder


def test_a_folder_has_one_server(own: LocalHub, run: Run) -> None:
    holder = rf"process {os.getpid()}, {own.endpoint}\)"
    with pytest.raises(HubError, match=holder):
        LocalHub(own.store.root)
    code, _, err = run("hub", "serve", "--root", own.store.root, "--port", 0)
    assert code == 1 and re.search(holder, err) and "--root" in err.splitlines()[-1]
    assert listed(own) == ["local/priv", "local/pub"]


def test_a_folder_is_free_after_its_server(tmp_path: Path) -> None:
    for _ in range(2):
        with LocalHub(tmp_path):
            pass


def test_what_a_killed_server_was_writing_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    command = [sys.executable, "-m", "hf_lwmm", "hub", "serve", "--root", str(root), "--port", "0",
               "--allowed-host", "hub.local"]  # fmt: skip
    closed = ["sh", "-c", 'exec "$0" "$@" >&-', *command]  # a server of a job may have no stdout
    with subprocess.Popen(closed, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = next(line for line in process.stderr or () if "HF_ENDPOINT" in line)
            endpoint, port, token = re.findall(r"HF_ENDPOINT=(\S+:(\d+)) HF_TOKEN=(\S+)", said)[0]
            other: Any = SimpleNamespace(port=int(port), endpoint=endpoint)
            named = {"Host": "hub.local"}
            assert send(other, "POST", "/api/repos/create", {"name": "kept"}, token, named).status == 200
            path = upload_path(other, "local/kept", WEIGHTS, token)
            head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(WEIGHTS)}\r\n\r\n"
            with opened(other, head.encode() + WEIGHTS[:1000]):
                while not list((root / "incoming").rglob(SHA256)):
                    assert process.poll() is None
                process.kill()
                process.wait()
        finally:
            process.kill()
    assert list((root / "incoming").iterdir())
    with LocalHub(root) as hub:
        assert not list((root / "incoming").iterdir())
        assert send(hub, "GET", "/api/models", token=token).json()[0]["id"] == "local/kept"


def test_a_folder_of_somebody_else_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming/letters").write_text("dear")
    with LocalHub(tmp_path):
        pass
    assert (tmp_path / "incoming/letters").read_text() == "dear"


# content


def test_content_is_for_those_who_sent_it_or_may_read_it(own: LocalHub) -> None:
    assert upload(own, "local/priv", WEIGHTS, TOKEN).status == 200
    assert commit(own, "local/priv", large("w.bin", WEIGHTS), token=TOKEN).status == 200
    assert read(own, "/local/priv/resolve/main/w.bin", BOB) == 404
    send(own, "POST", "/api/repos/create", {"name": "mine"}, BOB)
    claimed = commit(own, "bob/mine", large("w.bin", WEIGHTS), token=BOB)
    absent = commit(own, "bob/mine", large("w.bin", b"nobody has this"), token=BOB)
    assert claimed.status == absent.status == 400
    assert claimed.error.replace(SHA256, "") == absent.error.replace(hashlib.sha256(b"nobody has this").hexdigest(), "")
    assert set(batch(own, "bob/mine", WEIGHTS, BOB)) == set(batch(own, "bob/mine", b"nobody has this", BOB))
    assert "actions" not in batch(own, "local/priv", WEIGHTS, TOKEN)  # its owner need not send it again
    assert commit(own, "local/pub", large("copy.bin", WEIGHTS), token=TOKEN).status == 200
    assert "actions" not in batch(own, "bob/mine", WEIGHTS, BOB)  # now everybody may read it
    assert commit(own, "bob/mine", large("w.bin", WEIGHTS), token=BOB).status == 200
    assert read(own, "/bob/mine/resolve/main/w.bin", BOB) == WEIGHTS


def test_an_upload_counts_for_the_user_who_sent_it(own: LocalHub) -> None:
    send(own, "POST", "/api/repos/create", {"name": "mine"}, BOB)
    assert upload(own, "local/pub", WEIGHTS, TOKEN).status == 200
    assert commit(own, "bob/mine", large("w.bin", WEIGHTS), token=BOB).status == 400
    stolen = upload_path(own, "bob/mine", WEIGHTS, BOB).replace("user=bob", "user=local")
    assert send(own, "PUT", stolen, WEIGHTS).status == 403
    assert upload(own, "bob/mine", WEIGHTS, BOB).status == 200
    for repo, token in (("bob/mine", BOB), ("local/pub", TOKEN)):
        assert commit(own, repo, large("w.bin", WEIGHTS), token=token).status == 200
    assert not list((own.store.root / "uploads").rglob(SHA256))


def test_what_may_not_be_seen_is_as_what_is_not_there(own: LocalHub) -> None:
    for token in ("", BOB):
        for method, path in (
            ("GET", "/api/models/local/{}"),
            ("GET", "/local/{}"),
            ("GET", "/local/{}/resolve/main/x"),
            ("GET", "/api/models/local/{}/auth-check"),
            ("POST", "/api/models/local/{}/commit/main"),
            ("POST", "/local/{}.git/info/lfs/objects/batch"),
        ):
            private, absent = (send(own, method, path.format(name), b"", token) for name in ("priv", "absent"))
            assert private.status == absent.status
            assert private.body.replace(b"/priv", b"/absent") == absent.body  # where a page has its own address
    named = [{"organization": "local", "name": name} for name in ("priv", "absent")]
    private, absent = (send(own, "DELETE", "/api/repos/delete", body, BOB) for body in named)
    assert private.status == absent.status == 403


def test_a_refused_commit_leaves_nothing(own: LocalHub) -> None:
    before = snapshot(own)
    header, file = {"key": "header", "value": {"summary": "x", "parentCommit": "0" * 40}}, small("a.txt", b"content")
    for operations, status in (
        ([header, file], 412),
        ([file], 400),
        ([file, {"key": "deletedFile", "value": {}}], 400),
    ):
        reply = send(own, "POST", "/api/models/local/pub/commit/main", lines(operations), TOKEN)
        assert reply.status == status and reply.error
    assert snapshot(own) == before


def test_damaged_content_is_mended_by_sending_it_again(own: LocalHub) -> None:
    for _ in range(2):
        assert upload(own, "local/pub", WEIGHTS, TOKEN).status == 200
        assert commit(own, "local/pub", large("w.bin", WEIGHTS), token=TOKEN).status == 200
        assert read(own, "/local/pub/resolve/main/w.bin") == WEIGHTS
        own.store.contents.path(SHA256).write_bytes(WEIGHTS[:9])
        assert commit(own, "local/pub", {"key": "deletedFile", "value": {"path": "w.bin"}}, token=TOKEN).status == 200


# names


@pytest.mark.parametrize(
    "name", ["a%2Fb", "a%25b", "100%", "a b?c#d", "caf\u0065\u0301", "Readme.MD", "日本語", "a\u202fb", "x" * 255]
)
def test_names_of_files_are_exact(name: str, own: LocalHub) -> None:
    assert commit(own, "local/pub", small(f"in/{name}", name.encode()), token=TOKEN).status == 200
    for path in (f"in/{quote(name)}", quote(f"in/{name}", safe="")):
        assert read(own, f"/local/pub/resolve/main/{path}") == name.encode()
    for other in {unicodedata.normalize("NFC", name), name.swapcase(), name + " ", name.replace("%2F", "/")} - {name}:
        assert read(own, f"/local/pub/resolve/main/in/{quote(other)}") == 404
    deleted = {"key": "deletedFile", "value": {"path": f"in/{name}x" * 20}}
    assert commit(own, "local/pub", deleted, token=TOKEN).status in (400, 404)


# who asks


def test_a_hub_answers_to_its_own_names_only(own: LocalHub, tmp_path: Path) -> None:
    def status(hub: LocalHub, host: str) -> int:
        reply = send(hub, "GET", "/api/models", token=hub.token, headers={"Host": host})
        assert reply.status == 200 or reply.error
        return reply.status

    known = ["localhost", f"LocalHost:{own.port}", "127.0.0.1:80", f"[::1]:{own.port}"]
    strange = ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "localhost:80/x", "", "hub.local"]
    assert {status(own, host) for host in known} == {200} and {status(own, host) for host in strange} == {421}
    with LocalHub(tmp_path / "named", hosts=["Hub.local"]) as named:
        assert (status(named, "hub.local:8000"), status(named, "localhost"), status(named, "evil.example")) == (
            200,
            200,
            421,
        )


def test_faults_cannot_be_planned_by_web_pages(hub: LocalHub) -> None:
    plain = {"Content-Type": "text/plain"}  # what a page may send to anybody
    assert send(hub, "POST", "/_faults", {"path": "x", "status": 500}, headers=plain).status == 400
    for fault in ({}, [], {"path": "(", "status": 500}, {"path": "x", "status": 99999}, {"path": "x", "delay": "long"}):
        reply = send(hub, "POST", "/_faults", fault, headers={"Content-Type": "application/json"})
        assert reply.status == 400 and reply.error and not hub.faults


# damage


def _write(text: str) -> Callable[[Path], None]:
    return lambda path: _replaced(path, text)


def _replaced(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _linked(target: str) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(path.parents[len(path.parents) - 1] / target)

    return link


RECORDS: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: path.unlink(),
    "empty": _write(""),
    "no JSON": _write("{"),
    "of another kind": _write("[]"),
    "deep": _write("[" * 100_000),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "changed": lambda path: path.write_text(path.read_text().replace('"id"', '"name"').replace('"oid"', '"id"')),
    "a folder": lambda path: (path.unlink(), path.mkdir())[1],
    "a pipe": _pipe,
    "a link": _linked("etc/passwd"),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path))[1],
}


def poisoned(hub: LocalHub) -> Path:
    """The folder of a repository that is there to be damaged."""
    body = {"name": "bad"}
    assert send(hub, "POST", "/api/repos/create", body, TOKEN).status == 200
    files = [small("README.md", CARD), small("config.json", b'{"model_type": "segformer"}')]
    assert commit(hub, "local/bad", *files, token=TOKEN).status == 200
    return hub.store.root / "repos/models/local/bad"


def check_that_it_hurts_nobody(hub: LocalHub, shown: bool) -> None:
    assert listed(hub) == ["local/bad"] * shown + ["local/priv", "local/pub"]
    for path in ("/api/models/local/bad", "/api/models/local/bad/tree/main", "/api/models/local/bad/commits/main",
                 "/local/bad", "/local/bad/resolve/main/README.md", "/api/models/local/bad/refs"):  # fmt: skip
        reply = send(hub, "GET", path, token=TOKEN)
        said = b"<h1>Sorry</h1>" in reply.body if path == "/local/bad" else reply.status == 200 or reply.error
        assert reply.status == 200 or (reply.status in (404, 409) and said)
        assert TOKEN.encode() not in reply.body and b"root:" not in reply.body
    reply = commit(hub, "local/bad", small("new.txt", b"new"), token=TOKEN)
    assert reply.status == 200 or reply.error
    assert upload(hub, "local/pub", WEIGHTS, TOKEN).status == 200
    assert commit(hub, "local/pub", large("w.bin", WEIGHTS), token=TOKEN).status == 200


@pytest.mark.parametrize("damage", RECORDS)
@pytest.mark.parametrize("record", ["repo", "commit"])
def test_a_damaged_record_hurts_its_own_repository_only(record: str, damage: str, own: LocalHub) -> None:
    folder = poisoned(own)
    head = json.loads((folder / "repo.json").read_text())["refs"]["main"]
    RECORDS[damage](folder / "repo.json" if record == "repo" else folder / f"commits/{head}.json")
    check_that_it_hurts_nobody(own, shown=False)
    assert send(own, "GET", "/api/models/local/bad", token=TOKEN).status == 409


@pytest.mark.parametrize("path", ["../../users.json", "../../../../../../etc/passwd", "0" * 64])
def test_records_lead_to_content_only(path: str, own: LocalHub) -> None:
    folder = poisoned(own)
    for file in (folder / "commits").iterdir():
        file.write_text(re.sub('"sha256": ".*?"', f'"sha256": "{path}"', file.read_text()))
    check_that_it_hurts_nobody(own, shown=path == "0" * 64)
    assert read(own, "/local/bad/resolve/main/README.md") == 409


def test_a_history_that_goes_in_circles_ends(own: LocalHub) -> None:
    folder = poisoned(own)
    head = json.loads((folder / "repo.json").read_text())["refs"]["main"]
    for file in (folder / "commits").iterdir():
        file.write_text(re.sub('"parent": (null|".*?")', f'"parent": "{head}"', file.read_text()))
    check_that_it_hurts_nobody(own, shown=True)
    assert send(own, "GET", "/api/models/local/bad/commits/main", token=TOKEN).status == 409


@pytest.mark.parametrize("target", ["users.json", "/etc/passwd", "absent"])
def test_links_to_content_are_not_followed(target: str, own: LocalHub) -> None:
    poisoned(own)
    for digest in (hashlib.sha256(CARD).hexdigest(),):
        blob = own.store.contents.path(digest)
        blob.unlink()
        blob.symlink_to(own.store.root / target)
    check_that_it_hurts_nobody(own, shown=True)
    assert read(own, "/local/bad/resolve/main/README.md") == 409
    assert (own.store.root / "users.json").stat().st_size > 10


@pytest.mark.parametrize("place", ["repos/models/local/bad", "repos/models/local", "repos/models"])
def test_linked_folders_are_not_followed(place: str, own: LocalHub, tmp_path: Path) -> None:
    poisoned(own)
    folder = own.store.root / place
    elsewhere = Path(shutil.move(folder, tmp_path / "elsewhere"))
    folder.symlink_to(elsewhere)
    outside = sorted(elsewhere.rglob("*"))
    for repo in ("bad", "pub"):
        if repo == "bad" or place != "repos/models/local/bad":
            assert send(own, "GET", f"/api/models/local/{repo}", token=TOKEN).status == 409
            assert commit(own, f"local/{repo}", small("a", b"a"), token=TOKEN).status == 409
            assert send(own, "DELETE", "/api/repos/delete", {"name": repo}, TOKEN).status == 409
    assert "local/bad" not in listed(own) and sorted(elsewhere.rglob("*")) == outside
    assert send(own, "POST", "/api/repos/create", {"name": "new"}, TOKEN).status in (200, 409)
    assert sorted(elsewhere.rglob("*")) == outside


CARDS = {
    "bad YAML": b"---\na: [\n---\n",
    "aliases": b"---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\n",
    "deep": b"---\na: " + b"[" * 5000 + b"\n---\n",
    "tags are a number": b"---\ntags: 5\n---\n",
    "tags are a mapping": b"---\ntags: {a: [1, .nan]}\npipeline_tag: [x]\nlicense: {a: b}\n---\n",
    "the client's own names": b"---\nself: 1\nignore_metadata_errors: x\n---\n",
    "a bad model-index": b"---\nmodel-index: [{name: a, results: [{task: {type: a}, dataset: {type: a, name: b}, "
    b"metrics: [{type: a, value: 1}], source: here}]}]\n---\n",
    "half a letter": b'---\nlicense: "\\ud800"\n---\n',
    "a number without end": b"---\na: 0x" + b"f" * 9000 + b"\n---\n",
    "odd names": b"---\n2024-01-01: a\n[1, 2]: b\n.nan: c\n---\n",
    "no UTF-8": b"---\n\xff\xfe: 1\n---\n",
    "long": b"---\na: " + b"x" * 3_000_000 + b"\n---\n",
    "script": b"</pre><script>alert(1)</script>",
}


@pytest.mark.parametrize("card", CARDS)
def test_bad_cards_are_shown_as_text_and_say_nothing(card: str, own: LocalHub) -> None:
    poisoned(own)
    assert commit(own, "local/bad", small("README.md", CARDS[card]), token=TOKEN).status == 200
    check_that_it_hurts_nobody(own, shown=True)
    assert send(own, "GET", "/api/models/local/bad", token=TOKEN).status == 200
    assert b"<script>" not in send(own, "GET", "/local/bad", token=TOKEN).body


@pytest.mark.parametrize(
    "config", [b"[]", b"3", b"{", b"[" * 9000, b'{"architectures": NaN}', b'{"model_type": ["\\ud800"]}']
)
def test_bad_configs_say_nothing(config: bytes, own: LocalHub) -> None:
    poisoned(own)
    assert commit(own, "local/bad", small("config.json", config), token=TOKEN).status == 200
    check_that_it_hurts_nobody(own, shown=True)
    assert send(own, "GET", "/api/models/local/bad", token=TOKEN).json()["config"] == {}


def test_a_card_of_any_length_takes_little_memory(own: LocalHub) -> None:
    poisoned(own)
    with (own.store.root / "incoming/card").open("wb") as file:
        file.write(CARD)
        file.truncate(1 << 40)  # a terabyte, of which the disk has a page
    record = own.store.repo("model", "local/bad").refs["main"]
    path = own.store.root / f"repos/models/local/bad/commits/{record}.json"
    entry = json.loads(path.read_text())
    entry["files"]["README.md"] |= {"sha256": "0" * 64, "size": 1 << 40}
    path.write_text(json.dumps(entry))
    own.store.contents.path("0" * 64).parent.mkdir(exist_ok=True)
    (own.store.root / "incoming/card").rename(own.store.contents.path("0" * 64))
    [info] = [info for info in send(own, "GET", "/api/models", token=TOKEN).json() if info["id"] == "local/bad"]
    assert info["cardData"]["license"] == "mit"
    assert len(send(own, "GET", "/local/bad", token=TOKEN).body) < 1 << 22


def test_odd_things_in_the_folder_are_passed_over(own: LocalHub) -> None:
    for name in ("models/.hidden/x", "models/a b/x", "models/local/..odd", "models/local/\N{SNOWMAN}", "other/a/b"):
        folder = own.store.root / "repos" / name
        folder.mkdir(parents=True)
        (folder / "repo.json").write_text("{}")
    (own.store.root / "repos/models/file").write_text("")
    assert listed(own) == ["local/priv", "local/pub"]


# slow and large


def opened(hub: LocalHub, content: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", hub.port), timeout=60)
    connection.sendall(content)
    return connection


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


def test_no_branch_hides_a_commit(own: LocalHub) -> None:
    commit_id = "0123456789abcdef0123456789abcdef01234567"
    reply = send(own, "POST", f"/api/models/local/pub/branch/{commit_id}", b"{}", token=TOKEN)
    assert reply.status == 400 and b"no name of a branch" in reply.body
