"""Answer questions about users, repositories, their files and history, and discussions."""

from __future__ import annotations

import contextlib
import hashlib
import re
from html import escape
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from hf_lwmm.errors import DocumentError
from hf_lwmm.localhub import bodies
from hf_lwmm.localhub.access import Hub, file_path, revision, web_url
from hf_lwmm.localhub.cards import card_data, card_text, read_card, read_config, tags
from hf_lwmm.localhub.records import Commit, File, Repo, StoreError, folders_of

_PAGE = 1000


async def whoami(hub: Hub, request: Request) -> Response:
    user = hub.signed_in(request)
    orgs = [{"type": "org", "name": name, "fullname": name, "roleInOrg": user.role} for name in user.orgs]
    token = {"displayName": user.name, "role": user.role, "createdAt": "2026-01-01T00:00:00.000Z"}
    return JSONResponse(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name,
            "avatarUrl": "",
            "isPro": False,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


async def validate_yaml(hub: Hub, request: Request) -> Response:
    body = await bodies.parsed(request, bodies.Card)
    try:
        card = card_data(body.content.encode())
    except DocumentError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


async def auth_check(hub: Hub, request: Request) -> Response:
    hub.readable(request)
    return JSONResponse({})


async def auth_check_write(hub: Hub, request: Request) -> Response:
    hub.writable(request)
    return JSONResponse({})


async def list_repos(hub: Hub, request: Request) -> Response:
    kind, query, user = request.url.path.rsplit("/", 1)[1][:-1], request.query_params, hub.user(request)
    found = []
    for repo in hub.store.repos(kind):
        if not repo.visible_to(user) or (query.get("author") and repo.namespace != query["author"]):
            continue
        if query.get("search", "").lower() not in repo.id.lower():
            continue
        with contextlib.suppress(StoreError):  # a damaged one is left out
            info = _describe(hub, repo, hub.store.commit(repo, "main"), blobs=False)
            if query.get("pipeline_tag", info["pipeline_tag"]) != info["pipeline_tag"]:
                continue
            if all(wanted in info["tags"] for wanted in query.getlist("filter")):
                found.append(_expanded(request, info))
    return _paged(request, found)


def _expanded(request: Request, info: dict[str, Any]) -> dict[str, Any]:
    """The properties of a repository that the request asks for; all if it names none."""
    wanted = request.query_params.getlist("expand")
    return {key: value for key, value in info.items() if not wanted or key in ("_id", "id", *wanted)}


def _paged(request: Request, items: list[dict[str, Any]]) -> Response:
    """One page of a list, with a Link to the next."""
    first, limit = _number(request, "cursor", 0), max(1, _number(request, "limit", _PAGE))
    following = request.url.replace(
        path=request.scope["raw_path"].decode("latin-1").split("?")[0]
    ).include_query_params(cursor=first + limit)
    headers = {"Link": f'<{following}>; rel="next"'} if first + limit < len(items) else {}
    return JSONResponse(items[first : first + limit], headers=headers)


def _number(request: Request, name: str, default: int) -> int:
    """A number in the query of a request."""
    text = request.query_params.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text):
        raise StoreError(400, f"{name} must be a number of at most 9 digits.")
    return int(text)


async def info(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    info = _describe(hub, repo, hub.commit(request, repo), blobs=_asked(request, "blobs"))
    return JSONResponse(_expanded(request, info))


def _asked(request: Request, name: str) -> bool:
    """True if the request sets a switch in its query."""
    return request.query_params.get(name, "").lower() in ("1", "true")


async def no_such_repo(hub: Hub, request: Request) -> Response:
    """Answer for a name without a namespace, which only the oldest repositories of the Hub have."""
    raise StoreError(404 if hub.user(request) else 401, "Repository not found", "RepoNotFound")


def _describe(hub: Hub, repo: Repo, commit: Commit, *, blobs: bool) -> dict[str, Any]:
    card, config = read_card(hub.store.contents, commit), read_config(hub.store.contents, commit)
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
        "tags": tags(card, config),
        "pipeline_tag": card.get("pipeline_tag"),
        "library_name": card.get("library_name"),
        "cardData": card,
        "config": config,
        "siblings": [_sibling(name, file, blobs) for name, file in commit.files.items()],
    }


def _sibling(name: str, file: File, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": name}
    return {"rfilename": name, "size": file.size, "blobId": file.blob_id, **_lfs(file, "sha256")}


def _lfs(file: File, key: str) -> dict[str, Any]:
    return {"lfs": {key: file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}


async def refs(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)

    def listed(names: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": n, "ref": ref, "targetCommit": repo.refs[ref]} for n, ref in names.items()]

    tags = {ref.removeprefix("tags/"): ref for ref in repo.refs if ref.startswith("tags/")}
    pulls = {ref: ref for ref in repo.refs if ref.startswith("refs/pr/")}
    branches = {ref: ref for ref in repo.refs if ref not in tags.values() and ref not in pulls}
    return JSONResponse(
        {"branches": listed(branches), "tags": listed(tags), "converts": [], "pullRequests": listed(pulls)}
    )


async def tree(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    commit, recursive, expand = hub.commit(request, repo), _asked(request, "recursive"), _asked(request, "expand")
    folder = file_path(request).strip("/")
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


async def paths_info(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    commit, body = hub.commit(request, repo), await bodies.paths_info(request)
    folders, found = folders_of(commit.files), []
    for path in body.paths:
        if path in commit.files:
            found.append(_file(path, commit.files[path], commit if body.expand else None))
        elif path.rstrip("/") in folders:
            found.append(_folder(path))
    return JSONResponse(found)


async def commits(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    history = hub.store.history(repo, revision(request))
    return _paged(
        request,
        [
            {"id": c.oid, "title": c.message, "message": "", "authors": [{"user": c.author}], "date": c.date}
            for c in history
        ],
    )


async def resolve(hub: Hub, request: Request) -> Response:
    repo = hub.readable(request)
    commit = hub.commit(request, repo)
    file = commit.files.get(file_path(request))
    if file is None:
        headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": commit.oid}
        return JSONResponse({"error": "Entry not found"}, 404, headers)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.sha256 if file.lfs else file.blob_id}"'}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    return FileResponse(hub.store.contents.file(file), headers=headers, media_type="application/octet-stream")


async def discussions(hub: Hub, request: Request) -> Response:
    if request.method != "POST":
        repo = hub.repo(request)
        listed = [_with_repo(repo, d) for d in reversed(repo.discussions)]
        return JSONResponse({"discussions": listed, "count": len(listed), "start": 0})
    repo, user = hub.readable(request), hub.writer(request)
    body = await bodies.parsed(request, bodies.NewDiscussion)
    number = hub.store.open_discussion(repo, body.title, user, pull_request=bool(body.pull_request))
    return JSONResponse({"num": number, "url": f"{web_url(request, repo)}/discussions/{number}"})


async def discussion(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    text = request.path_params["number"]
    number = int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
    if not 1 <= number <= len(repo.discussions):
        raise StoreError(404, "Discussion not found")
    discussion = _with_repo(repo, repo.discussions[number - 1])
    changes = {"base": "refs/heads/main", "head": f"refs/pr/{number}"}
    return JSONResponse({**discussion, "events": [], "filesWithConflicts": [], "changes": changes, "diffUrl": ""})


def _with_repo(repo: Repo, discussion: Any) -> dict[str, Any]:
    return {**discussion, "repo": {"name": repo.id, "type": repo.type}, "repoOwner": {"name": repo.namespace}}


async def page(hub: Hub, request: Request) -> Response:
    """Answer with a plain page for people: the text of the card, and links to the files."""
    repo = hub.readable(request)
    commit = hub.store.commit(repo, "main")
    card, base = card_text(hub.store.contents, commit).decode(errors="replace"), web_url(request, repo)
    links = "".join(f'<li><a href="{base}/resolve/main/{quote(n)}">{escape(n)}</a></li>' for n in commit.files)
    return HTMLResponse(f"<title>{repo.id}</title><h1>{repo.id}</h1><ul>{links}</ul><pre>{escape(card)}</pre>")
