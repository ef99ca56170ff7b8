"""The Hub's HTTP protocol over a store, as far as the stock clients use it."""

from __future__ import annotations

import base64
import codecs
import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote

import yaml
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hf_lwmm.localhub.faults import Fault, Faults, fault_route
from hf_lwmm.localhub.store import Commit, File, Repo, Store, StoreError, User

_LFS_SUFFIXES = (
    ".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".parquet", ".arrow", ".npz", ".npy", ".h5", ".png", ".jpg",
    ".jpeg", ".webp", ".zip", ".gz", ".tar", ".onnx", ".msgpack",
)  # fmt: skip
_REGULAR_LIMIT = 10 * 2**20
_PAGE = 1000
# The client PUTs large files without its token: as on the Hub, a signed address is the permission.
_SIGNING_KEY = secrets.token_bytes(32)

Answer = Callable[["Hub", Request], Awaitable[Response]]


def create_app(store: Store, faults: list[Fault] | None = None) -> Starlette:
    """The application; with `faults`, they happen, and /_faults lists, adds and clears them."""
    hub = Hub(store)

    def route(path: str, answer: Answer, *methods: str) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await answer(hub, request)
            except StoreError as error:
                headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
                return JSONResponse({"error": error.message}, error.status, headers)

        return Route(path, endpoint, methods=list(methods))

    routes = [
        route("/api/whoami-v2", _whoami, "GET"),
        route("/api/validate-yaml", _validate_yaml, "POST"),
        route("/api/repos/create", _create, "POST"),
        route("/api/repos/delete", _delete, "DELETE"),
        route("/lfs/{sha256}", _lfs_upload, "PUT"),
    ]
    for kind in ("model", "dataset", "space"):
        api = f"/api/{kind}s"
        repo = api + "/{namespace}/{name}"
        web = ("" if kind == "model" else f"/{kind}s") + "/{namespace}/{name}"
        routes += [
            route(api, _list, "GET"),
            route(repo, _info, "GET"),
            route(repo + "/revision/{revision}", _info, "GET"),
            route(repo + "/auth-check", _auth_check, "GET"),
            route(repo + "/auth-check/write", _auth_check_write, "GET"),
            route(repo + "/settings", _settings, "PUT"),
            route(repo + "/refs", _refs, "GET"),
            route(repo + "/tree/{revision}", _tree, "GET"),
            route(repo + "/tree/{revision}/{path:path}", _tree, "GET"),
            route(repo + "/paths-info/{revision}", _paths_info, "POST"),
            route(repo + "/commits/{revision}", _commits, "GET"),
            route(repo + "/preupload/{revision}", _preupload, "POST"),
            route(repo + "/commit/{revision}", _commit, "POST"),
            route(repo + "/branch/{revision}", _branch, "POST", "DELETE"),
            route(repo + "/tag/{revision}", _tag, "POST", "DELETE"),
            route(repo + "/discussions", _discussions, "GET", "POST"),
            route(repo + "/discussions/{number:int}", _discussion, "GET"),
            route(web + ".git/info/lfs/objects/batch", _lfs_batch, "POST"),
            route(web + "/resolve/{revision}/{path:path}", _resolve, "GET", "HEAD"),
            route(web, _page, "GET"),
        ]
        routes += [route(path, _no_such_repo, "GET") for path in (api + "/{name}", api + "/{name}/revision/{revision}")]
    middleware = [Middleware(_RevisionInPath)]
    if faults is not None:
        routes.insert(0, fault_route(faults))
        middleware.append(Middleware(Faults, faults=faults))
    return Starlette(routes=routes, middleware=middleware)


class _RevisionInPath:
    """Keeps `refs%2Fpr%2F1` one segment: the framework would unquote it into three before routing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path", b"").split(b"?")[0].decode()
            if "%2F" in raw or "%2f" in raw:
                scope = {**scope, "path": unquote(raw.replace("%2F", "%252F").replace("%2f", "%252F"))}
        await self.app(scope, receive, send)


class Hub:
    """What answers share: the store, and who may do what."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def user(self, request: Request) -> User | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not token:
            return None
        user = self.store.user(token)
        if user is None:
            raise StoreError(401, "Invalid credentials in Authorization header")
        return user

    def signed_in(self, request: Request) -> User:
        user = self.user(request)
        if user is None:
            raise StoreError(401, "Invalid username or password.")
        return user

    def writer(self, request: Request) -> User:
        """Somebody whose token may write somewhere; a read token opens no pull request either."""
        user = self.signed_in(request)
        if user.role != "write":
            raise StoreError(403, "This token may only read")
        return user

    def repo(self, request: Request) -> Repo:
        """The request's repository, if it exists and this user may know it."""
        path = request.url.path.removeprefix("/api")
        kind = next((t for t in ("dataset", "space", "model") if path.startswith(f"/{t}s/")), "model")
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        repo = self.store.repo(kind, f"{namespace}/{name}")
        user = self.user(request)
        if repo.private and (user is None or (user.name != namespace and namespace not in user.orgs)):
            raise StoreError(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def readable(self, request: Request) -> Repo:
        """The same, if this user may also read its files."""
        repo, user = self.repo(request), self.user(request)
        if repo.gated and (user is None or (user.name != repo.namespace and repo.namespace not in user.orgs)):
            raise StoreError(403 if user else 401, f"Access to {repo.id} is restricted.", "GatedRepo")
        return repo

    def writable(self, request: Request) -> tuple[Repo, User]:
        repo, user = self.repo(request), self.signed_in(request)
        if not user.may_write(repo.namespace):
            raise StoreError(403, f"You don't have the rights to write to {repo.id}.")
        return repo, user

    def commit(self, request: Request, repo: Repo) -> Commit:
        return self.store.commit(repo, _revision(request))


def _revision(request: Request) -> str:
    return str(request.path_params.get("revision", "main")).replace("%2F", "/")


async def _whoami(hub: Hub, request: Request) -> Response:
    user = hub.signed_in(request)
    orgs = [{"type": "org", "name": name, "fullname": name, "roleInOrg": user.role} for name in user.orgs]
    token = {"displayName": user.name, "role": user.role, "createdAt": "2026-01-01T00:00:00.000Z"}
    return JSONResponse(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


async def _validate_yaml(hub: Hub, request: Request) -> Response:
    content = (await request.json()).get("content", "")
    try:
        card = _card_data(content.encode())
    except ValueError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


async def _create(hub: Hub, request: Request) -> Response:
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
        # The client, told that an existing repository will do, takes its address from this answer.
        repo = hub.store.repo(kind, repo_id)
        return JSONResponse({"error": error.message, "url": _web_url(request, repo)}, 409)
    return JSONResponse({"url": _web_url(request, repo), "name": repo.id, "id": repo.id})


async def _delete(hub: Hub, request: Request) -> Response:
    user, body = hub.signed_in(request), await request.json()
    repo = hub.store.repo(body.get("type") or "model", f"{body.get('organization') or user.name}/{body['name']}")
    if not user.may_write(repo.namespace):
        raise StoreError(403, f"You don't have the rights to delete {repo.id}.")
    hub.store.delete(repo)
    return JSONResponse({})


async def _settings(hub: Hub, request: Request) -> Response:
    (repo, _), body = hub.writable(request), await request.json()
    values: dict[str, Any] = {}
    if "visibility" in body or "private" in body:
        values["private"] = body.get("visibility") == "private" or bool(body.get("private"))
    if "gated" in body:
        if body["gated"] not in ("auto", "manual", False):
            raise StoreError(400, "'gated' is auto, manual or false.")
        values["gated"] = body["gated"] or None
    repo = hub.store.change(repo, **values)
    return JSONResponse({"private": repo.private, "gated": repo.gated or False})


async def _auth_check(hub: Hub, request: Request) -> Response:
    hub.readable(request)
    return JSONResponse({})


async def _auth_check_write(hub: Hub, request: Request) -> Response:
    hub.writable(request)
    return JSONResponse({})


async def _list(hub: Hub, request: Request) -> Response:
    kind, query, user = request.url.path.rsplit("/", 1)[1][:-1], request.query_params, hub.user(request)
    found = []
    for repo in hub.store.repos(kind):
        hidden = repo.private and (user is None or repo.namespace not in (user.name, *user.orgs))
        if hidden or (query.get("author") and repo.namespace != query["author"]):
            continue
        if query.get("search", "").lower() not in repo.id.lower():
            continue
        info = _describe(hub, repo, hub.store.commit(repo, "main"), blobs=False)
        if all(wanted in info["tags"] for wanted in query.getlist("filter")):
            found.append(info)
    return _paged(request, found)


def _paged(request: Request, items: list[dict[str, Any]]) -> Response:
    """A page of a listing, with a Link to the next."""
    query = request.query_params
    if not all(query.get(name, "0").isdecimal() for name in ("cursor", "limit")):
        raise StoreError(400, "cursor and limit are numbers.")
    first, limit = int(query.get("cursor", 0)), max(1, int(query.get("limit", _PAGE)))
    following = request.url.replace(
        path=request.scope["raw_path"].decode("latin-1").split("?")[0]
    ).include_query_params(cursor=first + limit)
    headers = {"Link": f'<{following}>; rel="next"'} if first + limit < len(items) else {}
    return JSONResponse(items[first : first + limit], headers=headers)


async def _info(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    info = _describe(hub, repo, hub.commit(request, repo), blobs=_asked(request, "blobs"))
    wanted = request.query_params.getlist("expand")
    return JSONResponse({k: v for k, v in info.items() if not wanted or k in ("_id", "id", *wanted)})


def _asked(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("1", "true")


async def _no_such_repo(hub: Hub, request: Request) -> Response:
    """Names without a namespace are the Hub's oldest repositories; a local Hub has none of them."""
    raise StoreError(404, "Repository not found", "RepoNotFound")


def _describe(hub: Hub, repo: Repo, commit: Commit, *, blobs: bool) -> dict[str, Any]:
    readme = commit.files.get("README.md")
    try:
        card = _card_data(hub.store.blob(readme.sha256).read_bytes()) if readme else {}
    except ValueError:
        card = {}
    tags = [str(tag) for tag in card.get("tags") or []]
    tags += [str(card[key]) for key in ("pipeline_tag", "library_name") if card.get(key)]
    tags += [f"license:{card['license']}"] if card.get("license") else []
    return {
        "_id": commit.oid[:24],
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.namespace,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        "pipeline_tag": card.get("pipeline_tag"),
        "library_name": card.get("library_name"),
        "cardData": card,
        "siblings": [_sibling(name, file, blobs) for name, file in commit.files.items()],
    }


def _sibling(name: str, file: File, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": name}
    return {"rfilename": name, "size": file.size, "blobId": file.blob_id, **_lfs(file, "sha256")}


def _lfs(file: File, key: str) -> dict[str, Any]:
    return {"lfs": {key: file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}


async def _refs(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)

    def listed(names: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": n, "ref": ref, "targetCommit": repo.refs[ref]} for n, ref in names.items()]

    tags = {ref.removeprefix("tags/"): ref for ref in repo.refs if ref.startswith("tags/")}
    pulls = {ref: ref for ref in repo.refs if ref.startswith("refs/pr/")}
    branches = {ref: ref for ref in repo.refs if ref not in tags.values() and ref not in pulls}
    return JSONResponse(
        {"branches": listed(branches), "tags": listed(tags), "converts": [], "pullRequests": listed(pulls)}
    )


async def _tree(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    commit, query = hub.commit(request, repo), request.query_params
    folder = str(request.path_params.get("path", "")).replace("%2F", "/").strip("/")
    recursive = query.get("recursive", "").lower() in ("1", "true")
    expand = query.get("expand", "").lower() in ("1", "true")
    entries: dict[str, dict[str, Any]] = {}
    for name, file in commit.files.items():
        if folder and not name.startswith(folder + "/"):
            continue
        inner = PurePosixPath(name[len(folder) + 1 :] if folder else name)
        for parent in reversed(inner.parents[:-1]):
            path = f"{folder}/{parent}" if folder else str(parent)
            if recursive or len(parent.parts) == 1:
                entries[path] = _folder(path)
        if recursive or len(inner.parts) == 1:
            entries[name] = _file(name, file, commit if expand else None)
    if folder and not entries:
        raise StoreError(404, f"{folder} does not exist", "EntryNotFound")
    return _paged(request, [entries[path] for path in sorted(entries)])


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}


def _file(name: str, file: File, commit: Commit | None) -> dict[str, Any]:
    last = {"lastCommit": {"id": commit.oid, "title": commit.message, "date": commit.date}} if commit else {}
    return {"type": "file", "oid": file.blob_id, "size": file.size, "path": name, **_lfs(file, "oid"), **last}


async def _paths_info(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    commit, body = hub.commit(request, repo), await request.body()
    if "json" in request.headers.get("content-type", ""):
        form = json.loads(body)
        paths, expand = form["paths"], bool(form.get("expand"))
    else:
        fields = parse_qs(body.decode())
        paths, expand = fields.get("paths", []), fields.get("expand", [""])[0].lower() == "true"
    found = []
    for path in paths:
        if path in commit.files:
            found.append(_file(path, commit.files[path], commit if expand else None))
        elif any(name.startswith(path.rstrip("/") + "/") for name in commit.files):
            found.append(_folder(path))
    return JSONResponse(found)


async def _commits(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    return JSONResponse(
        [
            {"id": c.oid, "title": c.message, "message": "", "authors": [{"user": c.author}], "date": c.date}
            for c in hub.store.history(repo, _revision(request))
        ]
    )


async def _resolve(hub: Hub, request: Request) -> Response:
    repo = hub.readable(request)
    commit = hub.commit(request, repo)
    path = str(request.path_params["path"]).replace("%2F", "/")
    file = commit.files.get(path)
    if file is None:
        headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": commit.oid}
        return JSONResponse({"error": "Entry not found"}, 404, headers)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.sha256 if file.lfs else file.blob_id}"'}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    return FileResponse(hub.store.blob(file.sha256), headers=headers, media_type="application/octet-stream")


async def _preupload(hub: Hub, request: Request) -> Response:
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
    """Whether the start of a file (it may end within a character) is not text."""
    try:
        return "\0" in codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True


async def _lfs_batch(hub: Hub, request: Request) -> Response:
    body = await request.json()
    if body.get("operation") != "upload":
        raise StoreError(422, "Only uploads are negotiated here.")
    hub.readable(request)
    hub.writer(request)
    objects = []
    for entry in body["objects"]:
        answer: dict[str, Any] = {"oid": entry["oid"], "size": entry["size"]}
        if not hub.store.holds(entry["oid"], entry["size"]):
            query = f"size={entry['size']}&signature={_signature(entry['oid'], entry['size'])}"
            answer["actions"] = {"upload": {"href": f"{request.base_url}lfs/{entry['oid']}?{query}", "header": {}}}
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects})


def _signature(sha256: str, size: int) -> str:
    return hmac.new(_SIGNING_KEY, f"{sha256}:{size}".encode(), hashlib.sha256).hexdigest()


async def _lfs_upload(hub: Hub, request: Request) -> Response:
    sha256, size = request.path_params["sha256"], request.query_params.get("size", "")
    signature = request.query_params.get("signature", "")
    if not size.isdecimal() or not hmac.compare_digest(signature.encode(), _signature(sha256, int(size)).encode()):
        raise StoreError(403, "This upload was not asked for, or the Hub was restarted since")
    digest, path, left = hashlib.sha256(), hub.store.incoming(), int(size)
    try:
        with path.open("wb") as file:
            async for block in request.stream():
                left -= len(block)
                if left < 0:
                    raise StoreError(422, f"More than the announced {size} bytes were sent.")
                digest.update(block)
                file.write(block)
        hub.store.accept(path, sha256, int(size), digest.hexdigest())
    finally:
        path.unlink(missing_ok=True)
    return Response()


async def _commit(hub: Hub, request: Request) -> Response:
    repo, user, as_pull_request = _for_commit(hub, request)
    header: dict[str, Any] = {}
    added: dict[str, File] = {}
    deleted: dict[str, list[str]] = {"deletedFile": [], "deletedFolder": []}
    for line in (await request.body()).splitlines():
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
    commit, number = hub.store.add_commit(
        repo,
        _revision(request),
        user,
        header.get("summary", ""),
        added,
        deleted["deletedFile"],
        deleted_folders=deleted["deletedFolder"],
        expected_parent=header.get("parentCommit"),
        as_pull_request=as_pull_request,
    )
    url = _web_url(request, repo)
    answer: dict[str, Any] = {
        "success": True,
        "commitOid": commit.oid,
        "commitUrl": f"{url}/commit/{commit.oid}",
        "hookOutput": "",
    }
    if as_pull_request:  # the client reads the key even when nothing changed and nothing was opened
        answer["pullRequestUrl"] = f"{url}/discussions/{number}" if number is not None else None
    return JSONResponse(answer)


def _for_commit(hub: Hub, request: Request) -> tuple[Repo, User, bool]:
    """Who may commit here: writers, and to a pull request everybody who is signed in and may read."""
    if request.query_params.get("create_pr"):
        return hub.readable(request), hub.writer(request), True
    repo, user = hub.writable(request)
    return repo, user, False


async def _branch(hub: Hub, request: Request) -> Response:
    return await _change_ref(hub, request, "")


async def _tag(hub: Hub, request: Request) -> Response:
    return await _change_ref(hub, request, "tags/")


async def _change_ref(hub: Hub, request: Request, prefix: str) -> Response:
    repo, _ = hub.writable(request)
    name = _revision(request)
    if not prefix and name.startswith("tags/"):
        raise StoreError(400, f"Invalid reference for a branch: {name}")
    if request.method == "DELETE":
        hub.store.set_ref(repo, prefix + name, None)
        return JSONResponse({})
    body = await request.body()
    content = json.loads(body) if body else {}
    if prefix:  # a tag's path names what it points at, its body the tag
        target, name = name, content["tag"]
    else:
        target = content.get("startingPoint") or "main"
    hub.store.set_ref(repo, prefix + name, hub.store.commit(repo, target).oid)
    return JSONResponse({})


async def _discussions(hub: Hub, request: Request) -> Response:
    if request.method == "GET":
        repo = hub.repo(request)
        listed = [_with_repo(repo, d) for d in reversed(repo.discussions)]
        return JSONResponse({"discussions": listed, "count": len(listed), "start": 0})
    repo, user, body = hub.readable(request), hub.writer(request), await request.json()
    opened = hub.store.open_discussion(repo, body["title"], user, pull_request=bool(body.get("pullRequest")))
    return JSONResponse({"num": opened["num"], "url": f"{_web_url(request, repo)}/discussions/{opened['num']}"})


async def _discussion(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    number = request.path_params["number"]
    if not 1 <= number <= len(repo.discussions):
        raise StoreError(404, "Discussion not found")
    discussion = _with_repo(repo, repo.discussions[number - 1])
    changes = {"base": "refs/heads/main", "head": f"refs/pr/{number}"}
    return JSONResponse({**discussion, "events": [], "filesWithConflicts": [], "changes": changes, "diffUrl": ""})


def _with_repo(repo: Repo, discussion: Any) -> dict[str, Any]:
    return {**discussion, "repo": {"name": repo.id, "type": repo.type}, "repoOwner": {"name": repo.namespace}}


async def _page(hub: Hub, request: Request) -> Response:
    """A bare page for people: the card as it is, and the files."""
    from html import escape

    repo = hub.readable(request)
    commit = hub.store.commit(repo, "main")
    readme = commit.files.get("README.md")
    card = hub.store.blob(readme.sha256).read_text(errors="replace") if readme else ""
    base = _web_url(request, repo)
    links = "".join(f'<li><a href="{base}/resolve/main/{escape(n)}">{escape(n)}</a></li>' for n in commit.files)
    return HTMLResponse(f"<title>{repo.id}</title><h1>{repo.id}</h1><ul>{links}</ul><pre>{escape(card)}</pre>")


def _web_url(request: Request, repo: Repo) -> str:
    return f"{request.base_url}{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"


def _card_data(content: bytes) -> dict[str, Any]:
    text = content.decode(errors="replace")
    if not text.startswith("---"):
        return {}
    parts = text.split("\n---", 1)
    try:
        data = yaml.safe_load(parts[0].removeprefix("---")) if len(parts) == 2 else {}
        # YAML has dates and nan, JSON has not.
        plain = json.dumps(data if isinstance(data, dict) else {}, default=str, skipkeys=True)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"Invalid YAML in the card's head: {error}") from None
    card: dict[str, Any] = json.loads(plain, parse_constant=lambda name: None)
    return card
