"""Plain HTTP to a local Hub, without the stock client, which sends nothing malformed."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from hf_lwmm.localhub import LocalHub

WEIGHTS = b"PRIVATE WEIGHTS" * 100
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
TOKEN, BOB = "hf_local", "hf_bob"
CARD = b"---\nlicense: mit\ntags: [merge]\n---\n"


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of a refusal, which is one line."""
        message: str = self.json()["error"]
        assert message and "\n" not in message and "Traceback" not in message
        return message


@contextmanager
def hub_of_two(folder: Path) -> Iterator[LocalHub]:
    """Run a Hub of the users local and bob, whose tokens are TOKEN and BOB, with local's repository pub."""
    with LocalHub(folder, faults=False) as hub:
        hub.add_user("local", token=TOKEN)
        hub.add_user("bob", token=BOB)
        assert send(hub, "POST", "/api/repos/create", {"name": "pub"}, TOKEN).status == 200
        yield hub


@contextmanager
def hub_with_private(folder: Path) -> Iterator[LocalHub]:
    """Run a Hub as `hub_of_two`, with a card in pub, and with local's private repository priv."""
    with hub_of_two(folder) as hub:
        assert send(hub, "POST", "/api/repos/create", {"name": "priv", "private": True}, TOKEN).status == 200
        assert commit(hub, "local/pub", small("README.md", CARD), token=TOKEN).status == 200
        yield hub


def send(
    hub: LocalHub, method: str, path: str, body: Any = None, token: str = "", headers: Mapping[str, str] | None = None
) -> Reply:
    """Send a request on a connection of its own; a body is bytes, pieces of them, or becomes JSON."""
    content = body if body is None or isinstance(body, bytes | Iterator) else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=60)
    try:
        credentials = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, content, {**credentials, **(headers or {})})
        answer = connection.getresponse()
        return Reply(answer.status, answer.read(), dict(answer.getheaders()))
    finally:
        connection.close()


def opened(hub: LocalHub, content: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", hub.port), timeout=60)
    connection.sendall(content)
    return connection


def read(hub: LocalHub, path: str, token: str = TOKEN) -> bytes | int:
    """The content of a file, or the status of the refusal."""
    reply = send(hub, "GET", path, token=token)
    return reply.body if reply.status == 200 else reply.status


def listed(hub: LocalHub) -> list[str]:
    """The models that the user local sees."""
    return [model.id for model in HfApi(endpoint=hub.endpoint, token=TOKEN).list_models()]


def lines(operations: list[Mapping[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, operations)).encode()


def small(path: str, content: bytes) -> dict[str, Any]:
    value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def large(path: str, content: bytes) -> dict[str, Any]:
    return {
        "key": "lfsFile",
        "value": {"path": path, "oid": hashlib.sha256(content).hexdigest(), "size": len(content)},
    }


def commit(hub: LocalHub, repo: str, *operations: Mapping[str, Any], token: str, kind: str = "model") -> Reply:
    body = lines([{"key": "header", "value": {"summary": "a commit"}}, *operations])
    return send(hub, "POST", f"/api/{kind}s/{repo}/commit/main", body, token)


def batch(hub: LocalHub, repo: str, content: bytes, token: str) -> dict[str, Any]:
    """What the Hub says of content that is to be uploaded."""
    body = {
        "operation": "upload",
        "objects": [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}],
    }
    [answer] = send(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", body, token).json()["objects"]
    return dict(answer)


def upload(hub: LocalHub, repo: str, content: bytes, token: str) -> Reply:
    return send(hub, "PUT", upload_path(hub, repo, content, token), content)


def upload_path(hub: LocalHub, repo: str, content: bytes, token: str) -> str:
    href: str = batch(hub, repo, content, token)["actions"]["upload"]["href"]
    return href.removeprefix(hub.endpoint)


def snapshot(hub: LocalHub) -> dict[str, bytes]:
    """Everything in a Hub's folder: the content of each file, and each folder."""
    root: Path = hub.store.root
    entries = (path for path in root.rglob("*") if path.name != "lock")
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in entries}
