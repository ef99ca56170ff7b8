"""Answer with the pages. Plain functions run in threads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, get_args
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hf_lwmm.localhub.access import Hub, file_path, revision, web_path
from hf_lwmm.localhub.cards import read_card
from hf_lwmm.localhub.listings import Page, folder_entries, page_of_history, page_of_repos
from hf_lwmm.localhub.pages.documents import Place, Shown, shown
from hf_lwmm.localhub.pages.rendering import html
from hf_lwmm.localhub.records import Commit, Repo, StoreError
from hf_lwmm.localhub.values import RepoType, is_repo_id

_FEW, _MANY = 20, 200  # entries of a list on the first page, and of one that has a page for itself
_FILES = 1000  # of a folder or a commit


@dataclass(frozen=True)
class Entry:
    """A repository in a list."""

    repo: Repo
    web: str
    task: str
    date: str


def index(hub: Hub, request: Request) -> Response:
    lists = {kind: _listed(hub, request, kind, _FEW) for kind in get_args(RepoType)}
    return html(request, hub.user(request), "index", title="Repositories", lists=lists)


def repositories(hub: Hub, request: Request) -> Response:
    kind = request.url.path.strip("/")[:-1]
    lists = {kind: _listed(hub, request, kind, _MANY)}
    return html(request, hub.user(request), "index", title=f"{kind.title()}s", lists=lists)


def namespace(hub: Hub, request: Request) -> Response:
    name = request.path_params["namespace"]
    lists = {kind: _listed(hub, request, kind, _MANY, name) for kind in get_args(RepoType)}
    if not any(page.items for page in lists.values()):
        raise StoreError(404, f"There is no {name} here.", "RepoNotFound")
    return html(request, hub.user(request), "index", title=name, lists=lists)


def _listed(hub: Hub, request: Request, kind: str, limit: int, author: str = "") -> Page[Entry]:
    def entry(repo: Repo, commit: Commit) -> Entry:
        task = read_card(hub.store.contents, commit).get("pipeline_tag")
        return Entry(repo, web_path(repo), task if isinstance(task, str) else "", commit.date)

    after = request.query_params.get("cursor", "")
    return page_of_repos(hub.store, kind, hub.user(request), entry, after=after, limit=limit, author=author)


def repository(hub: Hub, request: Request) -> Response:
    repo = hub.readable(request)
    commit = hub.store.commit(repo, "main")
    name = next((name for name in commit.files if name.lower() == "readme.md"), None)
    card = shown(hub.store.contents, commit.files[name], Place(web_path(repo), "main", name)) if name else Shown()
    facts = _facts(read_card(hub.store.contents, commit))
    return _page(hub, request, repo, "repository", "card", card=card, facts=facts, path=name or "")


def _facts(card: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The facts in the head of a card, each with its name and the page that it leads to, if any."""
    facts = [
        (name, text, "")
        for key, name in (("pipeline_tag", "task"), ("library_name", "library"), ("license", "licence"))
        for text in _texts(card.get(key))
    ]
    relation = "merged from" if card.get("base_model_relation") == "merge" else "base model"
    for key, name, at in (("base_model", relation, "/"), ("datasets", "data set", "/datasets/")):
        for text in _texts(card.get(key)):
            facts.append((name, text, at + text if is_repo_id(text) else ""))
    return facts + [("tag", text, "") for text in _texts(card.get("tags"))]


def _texts(value: Any) -> list[str]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]


def tree(hub: Hub, request: Request) -> Response:
    repo = hub.readable(request)
    commit, folder = hub.commit(request, repo), file_path(request).strip("/")
    entries = folder_entries(commit, folder)
    listed = [(path, PurePosixPath(path).name, file) for path, file in list(entries.items())[:_FILES]]
    listed.sort(key=lambda entry: entry[2] is not None)  # folders first
    rest = len(entries) - len(listed)
    return _page(hub, request, repo, "tree", "files", path=folder, commit=commit, entries=listed, rest=rest)


def blob(hub: Hub, request: Request) -> Response:
    repo = hub.readable(request)
    commit, path = hub.commit(request, repo), file_path(request)
    file = commit.files.get(path)
    if file is None:
        raise StoreError(404, f"There is no file {path} in {repo.id}.", "EntryNotFound")
    found = shown(hub.store.contents, file, Place(web_path(repo), quote(revision(request), safe=""), path))
    return _page(hub, request, repo, "blob", "files", path=path, commit=commit, file=file, shown=found)


def commits(hub: Hub, request: Request) -> Response:
    repo = hub.readable(request)
    start = request.query_params.get("cursor", revision(request))
    return _page(hub, request, repo, "commits", "history", found=page_of_history(hub.store, repo, start, _MANY))


def commit(hub: Hub, request: Request) -> Response:
    repo = hub.readable(request)
    found = hub.commit(request, repo)
    before = hub.store.commit(repo, found.parent).files if found.parent else {}
    changes = [(path, "added" if path not in before else "changed") for path, file in found.files.items()
               if before.get(path) != file]  # fmt: skip
    changes += [(path, "deleted") for path in before if path not in found.files]
    rest = max(0, len(changes) - _FILES)
    return _page(hub, request, repo, "commit", "history", commit=found, changes=changes[:_FILES], rest=rest)


def discussions(hub: Hub, request: Request) -> Response:
    repo = hub.readable(request)
    numbers = hub.store.discussions.numbers(repo)[::-1]
    listed = [hub.store.discussions.get(repo, number) for number in numbers[:_MANY]]
    return _page(hub, request, repo, "discussions", "discussions", listed=listed, rest=len(numbers) - len(listed))


def discussion(hub: Hub, request: Request) -> Response:
    repo, text = hub.readable(request), request.path_params["number"]
    found = hub.store.discussions.get(repo, int(text) if re.fullmatch("[0-9]{1,9}", text) else 0)
    return _page(hub, request, repo, "discussion", "discussions", found=found)


def sign_in(hub: Hub, request: Request) -> Response:
    """Let the browser ask for a name and a token, and lead back to the page `next` of this Hub."""
    hub.signed_in(request)
    return RedirectResponse(f"{request.base_url}{request.query_params.get('next', '').lstrip('/')}", 303)


def _page(hub: Hub, request: Request, repo: Repo, template: str, tab: str, **values: Any) -> Response:
    """A page of a repository."""
    values |= {"repo": repo, "web": web_path(repo), "revision": revision(request), "tab": tab}
    return html(request, hub.user(request), template, **values)
