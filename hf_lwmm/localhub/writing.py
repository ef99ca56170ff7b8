"""Answer requests that change something: repositories, uploads, commits, branches and tags."""

from __future__ import annotations

import codecs
import hashlib
import hmac
import re
import secrets
from functools import cache, partial
from typing import Any, BinaryIO

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hf_lwmm.files.syncing import sync_file
from hf_lwmm.localhub import bodies
from hf_lwmm.localhub.access import Hub, revision, web_url
from hf_lwmm.localhub.contents import Draft
from hf_lwmm.localhub.records import Changes, DamagedError, File, Repo, StoreError, User
from hf_lwmm.localhub.store import Store
from hf_lwmm.localhub.values import RefName, shaped
from hf_lwmm.localhub.workers import aside, entered, vouch

_LFS_SUFFIXES = (
    ".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".parquet", ".arrow", ".npz", ".npy", ".h5", ".png", ".jpg",
    ".jpeg", ".webp", ".zip", ".gz", ".tar", ".onnx", ".msgpack",
)  # fmt: skip
_REGULAR_LIMIT = 10 * 2**20
_MOST_OF_OTHERS = 2000  # files in a pull request, for which those who write to the repository wait
_BLOCK = 2**20  # bytes of an upload that are written at once
# The client uploads large files without its token: as on the Hub, the signed address is the permission.
_SIGNING_KEY = secrets.token_bytes(32)


async def create(hub: Hub, request: Request) -> Response:
    user = hub.signed_in(request)
    body = await bodies.parsed(request, bodies.NamedRepo)
    namespace, kind = body.organization or user.name, body.type or "model"
    if not user.may_write(namespace):
        raise StoreError(403, f"You don't have the rights to create a {kind} under the namespace {namespace!r}.")
    repo_id = f"{namespace}/{body.name}"
    try:
        repo = await aside(request, hub.store.create, kind, repo_id, user, _private(body))
    except StoreError as error:
        if error.status != 409 or isinstance(error, DamagedError):
            raise
        # A client for which an existing repository will do reads its address from this answer.
        repo = hub.store.repo(kind, repo_id)
        return JSONResponse({"error": error.message, "url": web_url(request, repo)}, 409)
    return JSONResponse({"url": web_url(request, repo), "name": repo.id, "id": repo.id})


def _private(body: bodies.NamedRepo | bodies.Settings) -> bool:
    return body.visibility == "private" or bool(body.private)


async def delete(hub: Hub, request: Request) -> Response:
    user = hub.signed_in(request)
    body = await bodies.parsed(request, bodies.NamedRepo)
    repo_id = f"{body.organization or user.name}/{body.name}"
    if not user.may_write(repo_id.split("/")[0]):
        raise StoreError(403, f"You don't have the rights to delete {repo_id}.")
    await aside(request, hub.store.delete, hub.store.repo(body.type or "model", repo_id))
    return JSONResponse({})


async def settings(hub: Hub, request: Request) -> Response:
    repo, _ = hub.writable(request)
    body = await bodies.parsed(request, bodies.Settings)
    private = repo.private if body.visibility is None and body.private is None else _private(body)
    gated = repo.gated if body.gated is None else body.gated or None
    repo = await aside(request, hub.store.change, repo, private, gated)
    return JSONResponse({"private": repo.private, "gated": repo.gated or False})


async def preupload(hub: Hub, request: Request) -> Response:
    repo = _for_commit(hub, request)[0]
    body = await bodies.parsed(request, bodies.Preupload)
    return await aside(request, _modes, hub.store, repo, revision(request), body)


def _modes(store: Store, repo: Repo, revision: str, body: bodies.Preupload) -> Response:
    """The way in which each file of a commit is to be sent."""
    commit, answers = store.commit(repo, revision), []
    for entry in body.files:
        large = entry.size > _REGULAR_LIMIT or _is_binary(entry.sample) or entry.path.lower().endswith(_LFS_SUFFIXES)
        present = commit.files.get(entry.path)
        oid = None if present is None else present.sha256 if present.lfs else present.blob_id
        mode = "lfs" if large else "regular"
        answers.append({"path": entry.path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return JSONResponse({"files": answers, "commitOid": commit.oid})


def _is_binary(sample: bytes) -> bool:
    """True if the first bytes of a file, which may end within a character, are not text."""
    try:
        return "\0" in codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True


async def lfs_batch(hub: Hub, request: Request) -> Response:
    hub.readable(request)
    user = hub.writer(request)
    body = await bodies.parsed(request, bodies.Batch)
    return await aside(request, _wanted, hub.store, request, user, body)


def _wanted(store: Store, request: Request, user: User, body: bodies.Batch) -> Response:
    """Where this user is to send the content that the Hub lacks."""
    store.contents.expire()
    readable, objects = store.readable_content(user), []
    for entry in body.objects:
        answer: dict[str, Any] = {"oid": entry.oid, "size": entry.size}
        if store.contents.available_size(user.name, entry.oid, readable) != entry.size:
            query = f"size={entry.size}&user={user.name}&signature={_signature(entry.oid, str(entry.size), user.name)}"
            answer["actions"] = {"upload": {"href": f"{request.base_url}lfs/{entry.oid}?{query}", "header": {}}}
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects})


def _signature(sha256: str, size: str, user: str) -> str:
    return hmac.new(_SIGNING_KEY, f"{sha256}:{size}:{user}".encode(), hashlib.sha256).hexdigest()


async def lfs_upload(hub: Hub, request: Request) -> Response:
    sha256, query = request.path_params["sha256"], request.query_params
    announced, user = query.get("size", ""), query.get("user", "")
    expected = _signature(sha256, announced, user)
    if not hmac.compare_digest(query.get("signature", "").encode(), expected.encode()):
        raise StoreError(403, "This upload was not announced, or the Hub was restarted since.")
    vouch(request, user)
    size = int(announced)
    hub.store.contents.check_room(size)
    async with entered(request, hub.store.disk.scratch()) as folder:
        with (folder / sha256).open("xb") as file:
            digest = await _received(request, size, file)
            await aside(request, sync_file, file)
        if digest != sha256:
            raise StoreError(422, f"The content's SHA-256 is {digest}, not {sha256}.")
        await aside(request, hub.store.contents.take_upload, user, sha256, folder / sha256)
    return Response()


async def _received(request: Request, size: int, file: BinaryIO) -> str:
    """The SHA-256 of a body of `size` bytes, which is written to a file."""
    digest, left, begun = hashlib.sha256(), size, bytearray()

    def take() -> None:
        digest.update(begun)
        file.write(begun)
        begun.clear()

    async for block in bodies.blocks(request, size):
        begun += block
        left -= len(block)
        if len(begun) >= _BLOCK:
            await aside(request, take)
    await aside(request, take)
    if left:
        raise StoreError(422, f"{size - left} bytes were sent, not {size}.")
    return digest.hexdigest()


async def commit(hub: Hub, request: Request) -> Response:
    repo, user, as_pull_request = _for_commit(hub, request)
    async with entered(request, hub.store.draft()) as draft:
        header, changes = await _changes(hub, request, user, draft)
        if len(changes.added) > _MOST_OF_OTHERS and not user.may_write(repo.namespace):
            message = f"A pull request of one who may not write to {repo.id} adds at most {_MOST_OF_OTHERS:,} files."
            raise StoreError(413, message)
        add = partial(hub.store.add_commit, expected_parent=header.parentCommit, as_pull_request=as_pull_request)
        commit, number = await aside(request, add, repo, revision(request), user, header.summary, changes, draft)
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


async def _changes(hub: Hub, request: Request, user: User, draft: Draft) -> tuple[bodies.Header, Changes]:
    """The header of a commit's body, and the changes that it asks for; the content of small files goes to the draft."""
    header: bodies.Header | None = None
    added: dict[str, File] = {}
    deleted: list[str] = []
    folders: list[str] = []

    readable = cache(partial(hub.store.readable_content, user))

    def take(operations: list[bodies.Operation]) -> None:
        nonlocal header
        for operation in operations:
            match operation:
                case bodies.Header():
                    header = operation
                case bodies.SmallFile(path, content):
                    hub.store.contents.check_room(len(content))
                    added[path] = draft.add(content)
                case bodies.LargeFile(path, oid, size):
                    added[path] = hub.store.lfs_file(user, oid, size, readable)
                case bodies.DeletedFile(path):
                    deleted.append(path)
                case bodies.DeletedFolder(path):
                    folders.append(path)

    async for operations in bodies.operations(request):
        await aside(request, take, operations)
    if header is None:
        raise StoreError(400, "The request's body: has no header.")
    return header, Changes(added, deleted, folders)


def _for_commit(hub: Hub, request: Request) -> tuple[Repo, User, bool]:
    """The repository and the user of a commit, and whether it is a pull request, for which reading rights suffice.

    They suffice, too, for commits to a pull request that the user opened.
    """
    if request.query_params.get("create_pr"):
        return hub.readable(request), hub.writer(request), True
    if number := re.fullmatch("refs/pr/([0-9]{1,9})", revision(request)):
        repo, user = hub.readable(request), hub.writer(request)
        if hub.store.discussions.author(repo, int(number[1])) == user.name:
            return repo, user, False
    repo, user = hub.writable(request)
    return repo, user, False


async def branch(hub: Hub, request: Request) -> Response:
    repo, _ = hub.writable(request)
    name = shaped(RefName, revision(request), "The branch")
    if request.method == "DELETE":
        await aside(request, hub.store.set_ref, repo, name, None)
        return JSONResponse({})
    body = await bodies.parsed(request, bodies.Branch)
    start = await aside(request, hub.store.commit, repo, body.startingPoint or "main")
    await aside(request, hub.store.set_ref, repo, name, start.oid)
    return JSONResponse({})


async def tag(hub: Hub, request: Request) -> Response:
    repo, _ = hub.writable(request)
    if request.method == "DELETE":
        await aside(request, hub.store.set_ref, repo, "tags/" + shaped(RefName, revision(request), "The tag"), None)
        return JSONResponse({})
    # The path of the request names what the tag points at, and the body names the tag.
    body = await bodies.parsed(request, bodies.Tag)
    commit = await aside(request, hub.commit, request, repo)
    await aside(request, hub.store.set_ref, repo, f"tags/{body.tag}", commit.oid)
    return JSONResponse({})


async def discuss(hub: Hub, request: Request) -> Response:
    repo, user = hub.readable(request), hub.writer(request)
    body = await bodies.parsed(request, bodies.NewDiscussion)
    number = await aside(request, hub.store.open_discussion, repo, body.title, user, bool(body.pull_request))
    return JSONResponse({"num": number, "url": f"{web_url(request, repo)}/discussions/{number}"})
