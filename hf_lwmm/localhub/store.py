"""Repositories on disk: content under its hash, commits that never change, and refs that point at commits. No HTTP.

blobs/ab/abcd...                 content, under its SHA-256
uploads/user/abcd...             large files that a user has uploaded and not committed yet
repos/models/org/name/repo.json  visibility, refs, discussions
repos/models/org/name/commits/   one JSON file for each commit: its parent and its files
users.json                       users, tokens, roles, organisations
incoming/                        what is being written
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from hf_lwmm.errors import DocumentError
from hf_lwmm.files.documents import MAX_SIZE, shortened
from hf_lwmm.localhub.contents import Contents, Draft, lfs_file
from hf_lwmm.localhub.disk import Disk, write
from hf_lwmm.localhub.records import Changes, Commit, DamagedError, File, Repo, StoreError, User
from hf_lwmm.localhub.values import RepoType, is_name, shaped

_T = TypeVar("_T")
_USERS = "users.json"


class Store:
    """All repositories under one folder, which survive restarts; several threads may use it at once."""

    def __init__(self, root: Path) -> None:
        self.disk = Disk(root)
        self.root = self.disk.root
        self.contents = Contents(self.disk)
        self._lock = threading.RLock()
        self._listed: dict[tuple[str, str], tuple[set[str], set[str]]] = {}  # commits, and the content in them
        for folder in ("blobs", "uploads", *(f"repos/{type}s" for type in get_args(RepoType))):
            for path in (self.root / folder).parent, self.root / folder:
                path.mkdir(mode=0o700, exist_ok=True)  # for private content
        if not (self.root / _USERS).exists():
            self.add_user(User("local", f"hf_{secrets.token_hex(16)}"))

    # users

    def users(self) -> tuple[User, ...]:
        """Return all users, in the order in which they were added or changed. Raises DamagedError."""
        path = self.root / _USERS
        return self._record(tuple[User, ...], path) if path.exists() else ()

    def add_user(self, user: User) -> User:
        """Add a user in place of the one of that name, if there is one. Raises DocumentError for an invalid one."""
        shaped(User, asdict(user), f"The user {shortened(user.name)}")
        with self._lock:
            others = [asdict(other) for other in self.users() if other.name != user.name]
            self.disk.write(self.root / _USERS, _encoded([*others, asdict(user)]))
        return user

    def user(self, token: str) -> User | None:
        """Return the user of a token, None if no user has it."""
        return next((u for u in self.users() if secrets.compare_digest(u.token.encode(), token.encode())), None)

    # content

    @contextlib.contextmanager
    def draft(self) -> Iterator[Draft]:
        """Return a context whose value takes the small files of a commit; what is not committed in it vanishes."""
        with self.disk.scratch() as folder:
            yield Draft(folder)

    def lfs_file(self, user: User, sha256: str, size: int | None = None) -> File:
        """Return a large file that a user has uploaded or may read; a commit that copies one does not say its size.

        Raises:
            StoreError: 400 if the user has not uploaded it, and no repository that the user may read has it.
        """
        found = self.contents.available_size(user.name, sha256, frozenset())
        if found is None:
            found = self.contents.available_size(user.name, sha256, self.readable_content(user))
        if found is None or size not in (None, found):
            raise StoreError(400, f"The LFS object {sha256} was not uploaded.")
        return lfs_file(sha256, found)

    def readable_content(self, user: User | None) -> frozenset[str]:
        """Return the hashes of all content in the repositories that a user may read."""
        with self._lock:
            repos = [repo for type in get_args(RepoType) for repo in self.repos(type) if repo.readable_by(user)]
            return frozenset().union(*map(self._content, repos))

    def _content(self, repo: Repo) -> set[str]:
        commits, hashes = self._listed.setdefault((repo.type, repo.id), (set(), set()))
        for path in (self._folder(repo.type, repo.id) / "commits").glob("*.json"):
            if path.stem not in commits:
                commits.add(path.stem)
                with contextlib.suppress(DamagedError):
                    hashes.update(file.sha256 for file in self._read_commit(repo, path.stem).files.values())
        return hashes

    # repositories

    def create(self, type: RepoType, id: str, user: User, *, private: bool = False) -> Repo:
        """Create a repository with a first commit.

        Raises:
            StoreError: 409 if it exists.
        """
        with self._lock, self.draft() as draft, self.disk.scratch() as scratch:
            folder = self._folder(type, id)
            if folder.exists():
                raise StoreError(409, f"You already created this {type} repo: {id}")
            attributes = draft.add(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
            commit = _new_commit(None, "initial commit", user.name, {".gitattributes": attributes})
            repo = Repo(type, id, private, None, _now(), {"main": commit.oid})
            made = scratch / "repo"
            (made / "commits").mkdir(parents=True)
            write(made / "commits" / f"{commit.oid}.json", _encoded(asdict(commit)))
            write(made / "repo.json", _encoded(asdict(repo)))
            self.contents.keep(attributes, user.name, draft)
            self.disk.place(made, folder)
            return repo

    def repo(self, type: str, id: str) -> Repo:
        """Return a repository. Raises StoreError (404) if it does not exist, DamagedError if it cannot be read."""
        folder = self._folder(type, id)
        if not folder.exists():
            raise StoreError(404, "Repository not found", "RepoNotFound")
        repo = self._record(Repo, folder / "repo.json")
        if (repo.type, repo.id) != (type, id):  # a file system may take one name for another
            raise StoreError(404, "Repository not found", "RepoNotFound")
        if "main" not in repo.refs:
            raise DamagedError(f"{repo.id} has no branch main in this Hub's folder.")
        return repo

    def repos(self, type: str) -> list[Repo]:
        """Return all repositories of a type, by name, without those that cannot be read."""
        found = []
        for path in sorted((self.root / "repos" / f"{type}s").glob("*/*/repo.json")):
            with contextlib.suppress(StoreError):
                found.append(self.repo(type, f"{path.parent.parent.name}/{path.parent.name}"))
        return found

    def delete(self, repo: Repo) -> None:
        """Delete a repository with its history; its content stays among the blobs. Raises StoreError (404)."""
        with self._lock:
            self.disk.remove(self._folder(repo.type, self.repo(repo.type, repo.id).id))
            self._listed.pop((repo.type, repo.id), None)

    def change(self, repo: Repo, private: bool, gated: Literal["auto", "manual"] | None) -> Repo:
        """Give a repository other values of `private` and `gated`, and return it. Raises StoreError (404)."""
        with self._lock:
            changed = replace(self.repo(repo.type, repo.id), private=private, gated=gated)
            self._save(changed)
            return changed

    # history

    def commit(self, repo: Repo, revision: str) -> Commit:
        """Return the commit of a branch, a tag, a pull request's ref, or at least 7 characters of a commit's name.

        Raises:
            StoreError: 404 if there is none.
        """
        oid = repo.refs.get(revision) or repo.refs.get(f"tags/{revision}")
        if oid is None and 7 <= len(revision) <= 40 and all(c in "0123456789abcdef" for c in revision):
            folder = self._folder(repo.type, repo.id) / "commits"
            oid = next((path.stem for path in folder.glob(f"{revision}*.json")), None)
        if oid is None:
            raise StoreError(404, f"Invalid rev id: {shortened(revision)}", "RevisionNotFound")
        return self._read_commit(repo, oid)

    def history(self, repo: Repo, revision: str) -> list[Commit]:
        """Return a commit and all those before it, newest first."""
        commit = self.commit(repo, revision)
        found = {commit.oid: commit}
        while commit.parent is not None:
            commit = self._read_commit(repo, commit.parent)
            if commit.oid in found:
                raise DamagedError(f"{repo.id}: the history comes back to {commit.oid} in this Hub's folder.")
            found[commit.oid] = commit
        return list(found.values())

    def add_commit(
        self,
        repo: Repo,
        revision: str,
        user: User,
        message: str,
        changes: Changes,
        draft: Draft,
        *,
        expected_parent: str | None = None,
        as_pull_request: bool = False,
    ) -> tuple[Commit, int | None]:
        """Add a commit to the branch `revision`, or open a pull request with it.

        A commit that changes nothing is not added and opens nothing. A pull request starts at `expected_parent`. The
        content of small files comes from `draft`.

        Returns:
            The commit (the branch's last one if nothing changes), and the number of the new pull request, if any.

        Raises:
            StoreError: 412 if the branch is not at `expected_parent`, 400 if `revision` is not a branch, and as for
                `Changes.applied`.
        """
        with self._lock, self.disk.scratch() as scratch:
            repo = self.repo(repo.type, repo.id)
            head = self.commit(repo, (as_pull_request and expected_parent) or revision)
            if not as_pull_request and (revision not in repo.refs or revision.startswith("tags/")):
                raise StoreError(
                    400, f"Commits go to a branch or a pull request, and {shortened(revision)} is neither."
                )
            if expected_parent is not None and not head.oid.startswith(expected_parent):
                raise StoreError(412, "A commit has happened since. Please refresh and try again.")
            files = changes.applied(head.files)
            if files == head.files:
                return head, None
            commit = _new_commit(head.oid, message, user.name, files)
            number = len(repo.discussions) + 1 if as_pull_request else None
            changed = replace(repo, refs={**repo.refs, f"refs/pr/{number}" if number else revision: commit.oid})
            if number is not None:
                discussion = _discussion(number, message, user, pull_request=True)
                changed = replace(changed, discussions=(*repo.discussions, discussion))
            # Both are written before anything is changed, in case the disk is full.
            write(scratch / "commit", _encoded(asdict(commit)))
            write(scratch / "repo", _encoded(asdict(changed)))
            for file in changes.added.values():
                self.contents.keep(file, user.name, draft)
            folder = self._folder(repo.type, repo.id)
            self.disk.place(scratch / "commit", folder / "commits" / f"{commit.oid}.json")
            self.disk.place(scratch / "repo", folder / "repo.json")
            return commit, number

    def set_ref(self, repo: Repo, name: str, oid: str | None) -> None:
        """Make a branch or a tag (`tags/x`) point at a commit, or delete it if `oid` is None.

        Raises:
            StoreError: 409 if it exists, 404 or 403 if it cannot be deleted.
        """
        if oid is None and name == "main":
            raise StoreError(403, "The branch main cannot be deleted")
        with self._lock:
            repo = self.repo(repo.type, repo.id)
            if oid is not None and name in repo.refs:
                raise StoreError(409, f"Reference already exists: {name}")
            if oid is None and name not in repo.refs:
                raise StoreError(404, f"Invalid rev id: {name}", "RevisionNotFound")
            refs = {key: value for key, value in repo.refs.items() if key != name}
            self._save(replace(repo, refs=refs if oid is None else {**refs, name: oid}))

    def open_discussion(self, repo: Repo, title: str, user: User, *, pull_request: bool) -> int:
        """Open a discussion, or a pull request without changes, and return its number."""
        with self._lock:
            repo = self.repo(repo.type, repo.id)
            number = len(repo.discussions) + 1
            discussion = _discussion(number, title, user, pull_request=pull_request)
            refs = {**repo.refs, **({f"refs/pr/{number}": repo.refs["main"]} if pull_request else {})}
            self._save(replace(repo, refs=refs, discussions=(*repo.discussions, discussion)))
            return number

    def _read_commit(self, repo: Repo, oid: str) -> Commit:
        return self._record(Commit, self._folder(repo.type, repo.id) / "commits" / f"{oid}.json")

    def _record(self, shape: type[_T], path: Path) -> _T:
        try:
            return shaped(shape, self.disk.json(path), str(path.relative_to(self.root)))
        except DocumentError as error:
            raise DamagedError(str(error)) from None

    def _folder(self, type: str, id: str) -> Path:
        parts = id.split("/")
        if type not in get_args(RepoType) or len(parts) != 2 or not all(map(is_name, parts)):
            raise StoreError(404, "Repository not found", "RepoNotFound")
        return self.root / "repos" / f"{type}s" / parts[0] / parts[1]

    def _save(self, repo: Repo) -> None:
        self.disk.write(self._folder(repo.type, repo.id) / "repo.json", _encoded(asdict(repo)))


def _new_commit(parent: str | None, message: str, author: str, files: Mapping[str, File]) -> Commit:
    """A commit, whose name is unlike any other's."""
    files = dict(sorted(files.items()))
    commit = Commit("", parent, message, author, _now(), files)
    named = _encoded(asdict(commit)) + secrets.token_bytes(8)
    return replace(commit, oid=hashlib.sha1(named, usedforsecurity=False).hexdigest())


def _discussion(number: int, title: str, user: User, *, pull_request: bool) -> dict[str, Any]:
    """A discussion as the Hub describes it."""
    return {
        "num": number,
        "title": title,
        "status": "draft" if pull_request and not title else "open",
        "isPullRequest": pull_request,
        "author": {"name": user.name},
        "createdAt": _now(),
    }


def _encoded(record: Any) -> bytes:
    """A record as it is written. Raises StoreError (413) if it would be too large to be read again."""
    content = json.dumps(record, indent=1).encode()
    if len(content) > MAX_SIZE:
        raise StoreError(413, f"A repository's files and discussions take no more than {MAX_SIZE:,} bytes of JSON.")
    return content


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
