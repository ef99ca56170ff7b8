"""The local Hub among hostile clients and web pages: what one may not see, names, and cards of others."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hub_requests import (
    BOB,
    SHA256,
    TOKEN,
    WEIGHTS,
    batch,
    commit,
    hub_with_private,
    large,
    lines,
    read,
    send,
    small,
    snapshot,
    upload,
    upload_path,
)

from hf_lwmm.localhub import LocalHub


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalHub]:
    with hub_with_private(tmp_path / "hub") as hub:
        yield hub


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


def test_no_branch_hides_a_commit(own: LocalHub) -> None:
    commit_id = "0123456789abcdef0123456789abcdef01234567"
    reply = send(own, "POST", f"/api/models/local/pub/branch/{commit_id}", b"{}", token=TOKEN)
    assert reply.status == 400 and b"no name of a branch" in reply.body
