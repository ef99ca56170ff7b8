"""The folder of a local Hub: one server at a time, and damaged records, links and odd things in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Run
from hub_requests import (
    CARD,
    SHA256,
    TOKEN,
    WEIGHTS,
    commit,
    hub_with_private,
    large,
    listed,
    opened,
    read,
    send,
    small,
    upload,
    upload_path,
)

from hf_lwmm.errors import HubError
from hf_lwmm.localhub import LocalHub


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalHub]:
    with hub_with_private(tmp_path / "hub") as hub:
        yield hub


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


def test_damaged_content_is_mended_by_sending_it_again(own: LocalHub) -> None:
    for _ in range(2):
        assert upload(own, "local/pub", WEIGHTS, TOKEN).status == 200
        assert commit(own, "local/pub", large("w.bin", WEIGHTS), token=TOKEN).status == 200
        assert read(own, "/local/pub/resolve/main/w.bin") == WEIGHTS
        own.store.contents.path(SHA256).write_bytes(WEIGHTS[:9])
        assert commit(own, "local/pub", {"key": "deletedFile", "value": {"path": "w.bin"}}, token=TOKEN).status == 200


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
