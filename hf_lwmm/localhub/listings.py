"""Walk through repositories, folders and histories, a page at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Generic, TypeVar

from hf_lwmm.localhub.records import Commit, DamagedError, File, Repo, StoreError, User
from hf_lwmm.localhub.store import Store

T = TypeVar("T")
_LONGEST = 2.0  # seconds after which a page ends, and the rest is left to the next


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list; `next` is where the next begins, None for the last."""

    items: list[T]
    next: str | None


def page_of_repos(
    store: Store,
    kind: str,
    user: User | None,
    select: Callable[[Repo, Commit], T | None],
    *,
    after: str = "",
    limit: int,
    search: str = "",
    author: str = "",
) -> Page[T]:
    """Return what `select` makes of the repositories that a user may know of and their latest commits, by name.

    Those for which it returns None are left out, and so are damaged ones. It says nothing, not even by where it ends,
    of those that the user may not know of.
    """
    found: list[T] = []
    last, begun, until = after, False, time.monotonic() + _LONGEST
    for repo_id in store.ids(kind):
        if repo_id <= after or search.lower() not in repo_id.lower() or author not in ("", repo_id.split("/")[0]):
            continue
        with contextlib.suppress(StoreError):
            repo = store.repo(kind, repo_id)
            if not repo.visible_to(user):
                continue
            if begun and (len(found) == limit or time.monotonic() > until):
                return Page(found, last)
            begun, last = True, repo_id
            item = select(repo, store.commit(repo, "main"))
            if item is not None:
                found.append(item)
    return Page(found, None)


def page_of_history(store: Store, repo: Repo, start: str, limit: int) -> Page[Commit]:
    """Return the commit that a revision names and those before it, the latest first.

    Raises:
        StoreError: 404 if there is no such revision.
        DamagedError: if a commit cannot be read, or the history never ends.
    """
    found: dict[str, Commit] = {}
    commit, until = store.commit(repo, start), time.monotonic() + _LONGEST
    while True:
        if commit.oid in found:
            raise DamagedError(f"{repo.id}: the history comes back to {commit.oid} in this Hub's folder.")
        found[commit.oid] = commit
        if commit.parent is None or len(found) == limit or time.monotonic() > until:
            return Page(list(found.values()), commit.parent)
        commit = store.commit(repo, commit.parent)


def folder_entries(commit: Commit, folder: str, *, recursive: bool = False) -> dict[str, File | None]:
    """Return the paths in a folder, by name, and their files, None for folders.

    Raises:
        StoreError: 404 if there is no such folder.
    """
    entries: dict[str, File | None] = {}
    for name, file in commit.files.items():
        if folder and not name.startswith(folder + "/"):
            continue
        inner = PurePosixPath(name[len(folder) + 1 :] if folder else name)
        for parent in reversed(inner.parents[:-1]):
            if recursive or len(parent.parts) == 1:
                entries[f"{folder}/{parent}" if folder else str(parent)] = None
        if recursive or len(inner.parts) == 1:
            entries[name] = file
    if folder and not entries:
        raise StoreError(404, f"{folder} does not exist", "EntryNotFound")
    return dict(sorted(entries.items()))
