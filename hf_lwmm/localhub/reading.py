"""Answer questions about users, repositories, their files and history, and discussions.

Plain functions run in threads.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from hf_lwmm.errors import DocumentError
from hf_lwmm.localhub import bodies
from hf_lwmm.localhub.access import Hub, file_path, revision
from hf_lwmm.localhub.cards import card_data, read_card, read_config, tags
from hf_lwmm.localhub.listings import folder_entries, page_of_history, page_of_repos
from hf_lwmm.localhub.pictures import INERT, media_type
from hf_lwmm.localhub.records import Commit, Discussion, File, Repo, StoreError, folders_of
from hf_lwmm.localhub.store import Store
from hf_lwmm.localhub.workers import aside

_PAGE, _DISCUSSIONS = 1000, 50  # entries of a page


def whoami(hub: Hub, request: Request) -> Response:
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
        card = await aside(request, card_data, body.content.encode())
    except DocumentError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


def auth_check(hub: Hub, request: Request) -> Response:
    hub.readable(request)
    return JSONResponse({})


def auth_check_write(hub: Hub, request: Request) -> Response:
    hub.writable(request)
    return JSONResponse({})


def list_repos(hub: Hub, request: Request) -> Response:
    kind, query = request.url.path.rsplit("/", 1)[1][:-1], request.query_params

    def wanted(repo: Repo, commit: Commit) -> dict[str, Any] | None:
        info = _describe(hub, repo, commit, blobs=False)
        return _expanded(request, info) if _is_wanted(request, info) else None

    found = page_of_repos(
        hub.store,
        kind,
        hub.user(request),
        wanted,
        after=query.get("cursor", ""),
        limit=max(1, _number(request, "limit", _PAGE)),
        search=query.get("search", ""),
        author=query.get("author", ""),
    )
    return _page(request, found.items, found.next)


def _is_wanted(request: Request, info: dict[str, Any]) -> bool:
    """True if a repository is of the kind that a list is to have."""
    query = request.query_params
    same_task = query.get("pipeline_tag", info["pipeline_tag"]) == info["pipeline_tag"]
    return same_task and all(wanted in info["tags"] for wanted in query.getlist("filter"))


def _expanded(request: Request, info: dict[str, Any]) -> dict[str, Any]:
    """The properties of a repository that the request asks for; all if it names none."""
    wanted = request.query_params.getlist("expand")
    return {key: value for key, value in info.items() if not wanted or key in ("_id", "id", *wanted)}


def _paged(request: Request, items: list[dict[str, Any]]) -> Response:
    """One page of a list."""
    first, limit = _number(request, "cursor", 0), max(1, _number(request, "limit", _PAGE))
    return _page(request, items[first : first + limit], first + limit if first + limit < len(items) else None)


def _page(request: Request, items: list[dict[str, Any]], cursor: int | str | None) -> Response:
    """A page of a list, with a Link to the next, which begins at `cursor`, if there is one."""
    headers = {}
    if cursor is not None:
        path = request.scope["raw_path"].decode("latin-1").split("?")[0]
        following = request.url.replace(path=path).include_query_params(cursor=cursor)
        headers["Link"] = f'<{following}>; rel="next"'
    return JSONResponse(items, headers=headers)


def _number(request: Request, name: str, default: int) -> int:
    """A number in the query of a request."""
    text = request.query_params.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text):
        raise StoreError(400, f"{name} must be a number of at most 9 digits.")
    return int(text)


def info(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    info = _describe(hub, repo, hub.commit(request, repo), blobs=_asked(request, "blobs"))
    return JSONResponse(_expanded(request, info))


def _asked(request: Request, name: str) -> bool:
    """True if the request sets a switch in its query."""
    return request.query_params.get(name, "").lower() in ("1", "true")


def no_such_repo(hub: Hub, request: Request) -> Response:
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


def refs(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)

    def listed(names: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": n, "ref": ref, "targetCommit": repo.refs[ref]} for n, ref in names.items()]

    tags = {ref.removeprefix("tags/"): ref for ref in repo.refs if ref.startswith("tags/")}
    pulls = {ref: ref for ref in repo.refs if ref.startswith("refs/pr/")}
    branches = {ref: ref for ref in repo.refs if ref not in tags.values() and ref not in pulls}
    return JSONResponse(
        {"branches": listed(branches), "tags": listed(tags), "converts": [], "pullRequests": listed(pulls)}
    )


def tree(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    commit, recursive, expand = hub.commit(request, repo), _asked(request, "recursive"), _asked(request, "expand")
    folder = file_path(request).strip("/")
    entries = folder_entries(commit, folder, recursive=recursive)
    last = commit if expand else None
    return _paged(request, [_file(path, file, last) if file else _folder(path) for path, file in entries.items()])


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}


def _file(name: str, file: File, commit: Commit | None) -> dict[str, Any]:
    last = {"lastCommit": {"id": commit.oid, "title": commit.message, "date": commit.date}} if commit else {}
    return {"type": "file", "oid": file.blob_id, "size": file.size, "path": name, **_lfs(file, "oid"), **last}


async def paths_info(hub: Hub, request: Request) -> Response:
    repo = await aside(request, hub.repo, request)
    body = await bodies.paths_info(request)
    return await aside(request, _found_paths, hub.store, repo, revision(request), body)


def _found_paths(store: Store, repo: Repo, revision: str, body: bodies.PathsInfo) -> Response:
    commit = store.commit(repo, revision)
    folders, found = folders_of(commit.files), []
    for path in body.paths:
        if path in commit.files:
            found.append(_file(path, commit.files[path], commit if body.expand else None))
        elif path.rstrip("/") in folders:
            found.append(_folder(path))
    return JSONResponse(found)


def commits(hub: Hub, request: Request) -> Response:
    repo = hub.repo(request)
    limit = min(max(1, _number(request, "limit", _PAGE)), _PAGE)
    found = page_of_history(hub.store, repo, request.query_params.get("cursor", revision(request)), limit)
    listed = [
        {"id": commit.oid, "title": commit.message, "message": "", "authors": [{"user": commit.author}],
         "date": commit.date}
        for commit in found.items
    ]  # fmt: skip
    return _page(request, listed, found.next)


def resolve(hub: Hub, request: Request) -> Response:
    repo = hub.readable(request)
    commit = hub.commit(request, repo)
    file = commit.files.get(file_path(request))
    if file is None:
        headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": commit.oid}
        return JSONResponse({"error": "Entry not found"}, 404, headers)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.sha256 if file.lfs else file.blob_id}"'}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    kind = media_type(file_path(request)) or "application/octet-stream"
    return FileResponse(hub.store.contents.file(file), headers=headers | INERT, media_type=kind)


def discussions(hub: Hub, request: Request) -> Response:
    repo, first = hub.repo(request), _number(request, "p", 0) * _DISCUSSIONS
    numbers = hub.store.discussions.numbers(repo)[::-1]
    listed = [_described(repo, hub.store.discussions.get(repo, n)) for n in numbers[first : first + _DISCUSSIONS]]
    return JSONResponse({"discussions": listed, "count": len(numbers), "start": first})


def discussion(hub: Hub, request: Request) -> Response:
    repo, text = hub.repo(request), request.path_params["number"]
    found = hub.store.discussions.get(repo, int(text) if re.fullmatch("[0-9]{1,9}", text) else 0)
    changes = {"base": "refs/heads/main", "head": f"refs/pr/{found.num}"}
    more = {"events": [], "filesWithConflicts": [], "changes": changes, "diffUrl": ""}
    return JSONResponse({**_described(repo, found), **more})


def _described(repo: Repo, discussion: Discussion) -> dict[str, Any]:
    """A discussion as the Hub describes it."""
    return {
        **asdict(discussion),
        "author": {"name": discussion.author},
        "repo": {"name": repo.id, "type": repo.type},
        "repoOwner": {"name": repo.namespace},
    }
