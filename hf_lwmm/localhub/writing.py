"""Answer requests that change something: repositories, uploads, commits, branches and tags."""

from __future__ import annotations

import base64
import codecs
import hashlib
import hmac
import json
import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hf_lwmm.localhub.access import Hub, revision, web_url
from hf_lwmm.localhub.records import Changes, File, Repo, StoreError, User
from hf_lwmm.localhub.store import check_sha256

_LFS_SUFFIXES = (
    ".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".parquet", ".arrow", ".npz", ".npy", ".h5", ".png", ".jpg",
    ".jpeg", ".webp", ".zip", ".gz", ".tar", ".onnx", ".msgpack",
)  # fmt: skip
_REGULAR_LIMIT = 10 * 2**20
# The client uploads large files without its token: as on the Hub, the signed address is the permission.
_SIGNING_KEY = secrets.token_bytes(32)


async def create(hub: Hub, request: Request) -> Response:
    user, body = hub.signed_in(request), await request.json()
    namespace, kind = body.get("organization") or user.name, body.get("type") or "model"
    if not user.may_write(namespace):
        raise StoreError(403, f"You don't have the rights to create a {kind} under the namespace {namespace!r}.")
    private = body.get("visibility") == "private" or bool(body.get("private"))
    repo_id = f"{namespace}/{body['name']}"
    try:
        repo = hub.store.create(kind, repo_id, user, private=private)
    except StoreError as error:
        if error.status != 409:
            raise
        # A client for which an existing repository will do reads its address from this answer.
        repo = hub.store.repo(kind, repo_id)
        return JSONResponse({"error": error.message, "url": web_url(request, repo)}, 409)
    return JSONResponse({"url": web_url(request, repo), "name": repo.id, "id": repo.id})


async def delete(hub: Hub, request: Request) -> Response:
    user, body = hub.signed_in(request), await request.json()
    repo = hub.store.repo(body.get("type") or "model", f"{body.get('organization') or user.name}/{body['name']}")
    if not user.may_write(repo.namespace):
        raise StoreError(403, f"You don't have the rights to delete {repo.id}.")
    hub.store.delete(repo)
    return JSONResponse({})


async def settings(hub: Hub, request: Request) -> Response:
    (repo, _), body = hub.writable(request), await request.json()
    private, gated = repo.private, repo.gated
    if "visibility" in body or "private" in body:
        private = body.get("visibility") == "private" or bool(body.get("private"))
    if "gated" in body:
        if body["gated"] not in ("auto", "manual", False):
            raise StoreError(400, "'gated' is auto, manual or false.")
        gated = body["gated"] or None
    repo = hub.store.change(repo, private, gated)
    return JSONResponse({"private": repo.private, "gated": repo.gated or False})


async def preupload(hub: Hub, request: Request) -> Response:
    repo = _for_commit(hub, request)[0]
    commit, body = hub.commit(request, repo), await request.json()
    answers = []
    for entry in body["files"]:
        binary = _is_binary(base64.b64decode(entry.get("sample", "")))
        large = entry["size"] > _REGULAR_LIMIT or binary or entry["path"].lower().endswith(_LFS_SUFFIXES)
        present = commit.files.get(entry["path"])
        oid = None if present is None else present.sha256 if present.lfs else present.blob_id
        mode = "lfs" if large else "regular"
        answers.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return JSONResponse({"files": answers, "commitOid": commit.oid})


def _is_binary(sample: bytes) -> bool:
    """True if the first bytes of a file, which may end within a character, are not text."""
    try:
        return "\0" in codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True


async def lfs_batch(hub: Hub, request: Request) -> Response:
    body = await request.json()
    if body.get("operation") != "upload":
        raise StoreError(422, "Only uploads are negotiated here.")
    hub.readable(request)
    hub.writer(request)
    objects = []
    for entry in body["objects"]:
        check_sha256(entry["oid"])
        answer: dict[str, Any] = {"oid": entry["oid"], "size": entry["size"]}
        if not hub.store.holds(entry["oid"], entry["size"]):
            query = f"size={entry['size']}&signature={_signature(entry['oid'], entry['size'])}"
            answer["actions"] = {"upload": {"href": f"{request.base_url}lfs/{entry['oid']}?{query}", "header": {}}}
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects})


def _signature(sha256: str, size: int) -> str:
    return hmac.new(_SIGNING_KEY, f"{sha256}:{size}".encode(), hashlib.sha256).hexdigest()


async def lfs_upload(hub: Hub, request: Request) -> Response:
    sha256, size = request.path_params["sha256"], request.query_params.get("size", "")
    signature = request.query_params.get("signature", "")
    if not size.isdecimal() or not hmac.compare_digest(signature.encode(), _signature(sha256, int(size)).encode()):
        raise StoreError(403, "This upload was not announced, or the Hub was restarted since.")
    digest, left = hashlib.sha256(), int(size)
    with hub.store.upload(sha256) as path:
        with path.open("wb") as file:
            async for block in request.stream():
                left -= len(block)
                if left < 0:
                    raise StoreError(422, f"More than the announced {size} bytes were sent.")
                digest.update(block)
                file.write(block)
        if left:
            raise StoreError(422, f"{int(size) - left} bytes were sent, not {size}.")
        if digest.hexdigest() != sha256:
            raise StoreError(422, f"The content's SHA-256 is {digest.hexdigest()}, not {sha256}.")
    return Response()


async def commit(hub: Hub, request: Request) -> Response:
    repo, user, as_pull_request = _for_commit(hub, request)
    header, changes = _operations(hub, await request.body())
    commit, number = hub.store.add_commit(
        repo,
        revision(request),
        user,
        header.get("summary", ""),
        changes,
        expected_parent=header.get("parentCommit"),
        as_pull_request=as_pull_request,
    )
    url = web_url(request, repo)
    answer: dict[str, Any] = {
        "success": True,
        "commitOid": commit.oid,
        "commitUrl": f"{url}/commit/{commit.oid}",
        "hookOutput": "",
    }
    if as_pull_request:  # the client reads the key even if nothing changed and no pull request was opened
        answer["pullRequestUrl"] = f"{url}/discussions/{number}" if number is not None else None
    return JSONResponse(answer)


def _operations(hub: Hub, body: bytes) -> tuple[dict[str, Any], Changes]:
    """The header of a commit's body, which holds a JSON value on each line, and the changes that it asks for."""
    header: dict[str, Any] = {}
    added: dict[str, File] = {}
    deleted: dict[str, list[str]] = {"deletedFile": [], "deletedFolder": []}
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header":
            header = value
        elif entry["key"] == "file":
            content = value["content"].encode()
            added[value["path"]] = hub.store.add_content(
                base64.b64decode(content) if value.get("encoding") == "base64" else content
            )
        elif entry["key"] == "lfsFile":
            added[value["path"]] = hub.store.lfs_file(value["oid"], value.get("size"))
        elif entry["key"] in deleted:
            deleted[entry["key"]].append(value["path"])
        else:
            raise StoreError(400, f"Unknown commit operation {entry['key']}.")
    return header, Changes(added, deleted["deletedFile"], deleted["deletedFolder"])


def _for_commit(hub: Hub, request: Request) -> tuple[Repo, User, bool]:
    """The repository and the user of a commit, and whether it is a pull request, for which reading rights suffice."""
    if request.query_params.get("create_pr"):
        return hub.readable(request), hub.writer(request), True
    repo, user = hub.writable(request)
    return repo, user, False


async def branch(hub: Hub, request: Request) -> Response:
    return await _change_ref(hub, request, "")


async def tag(hub: Hub, request: Request) -> Response:
    return await _change_ref(hub, request, "tags/")


async def _change_ref(hub: Hub, request: Request, prefix: str) -> Response:
    repo, _ = hub.writable(request)
    name = revision(request)
    if not prefix and name.startswith("tags/"):
        raise StoreError(400, f"Invalid reference for a branch: {name}")
    if request.method == "DELETE":
        hub.store.set_ref(repo, prefix + name, None)
        return JSONResponse({})
    body = await request.body()
    content = json.loads(body) if body else {}
    if prefix:  # the path of the request names what the tag points at, and the body names the tag
        target, name = name, content["tag"]
    else:
        target = content.get("startingPoint") or "main"
    hub.store.set_ref(repo, prefix + name, hub.store.commit(repo, target).oid)
    return JSONResponse({})
