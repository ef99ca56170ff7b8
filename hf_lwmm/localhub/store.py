"""Repositories on disk: content under its hash, commits that never change, and refs that point at commits. No HTTP.

blobs/ab/abcd...                 content, under its SHA-256
repos/models/org/name/repo.json  visibility, refs, discussions
repos/models/org/name/commits/   one JSON file for each commit: its parent and its files
users.json                       users, tokens, roles, organisations
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hf_lwmm.files.atomic import atomic
from hf_lwmm.localhub.records import Changes, Commit, File, Repo, StoreError, User

_REPO_TYPES = ("model", "dataset", "space")


class Store:
    """All repositories under one folder, which survive restarts; several threads may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        for folder in ("blobs", "repos"):
            (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)  # for private content
        if not (root / "users.json").exists():
            self.add_user(User("local", f"hf_{secrets.token_hex(16)}"))

    # users

    def users(self) -> tuple[User, ...]:
        """Return all users, in the order in which they were added or changed."""
        path = self.root / "users.json"
        entries = json.loads(path.read_text()) if path.exists() else []
        return tuple(User(**{**entry, "orgs": tuple(entry["orgs"])}) for entry in entries)

    def add_user(self, user: User) -> User:
        """Add a user in place of the one of that name, if there is one."""
        with self._lock:
            others = [asdict(other) for other in self.users() if other.name != user.name]
            _write_json(self.root / "users.json", [*others, asdict(user)], mode=0o600)  # it holds the tokens
        return user

    def user(self, token: str) -> User | None:
        """Return the user of a token, None if no user has it."""
        return next((u for u in self.users() if secrets.compare_digest(u.token.encode(), token.encode())), None)

    # blobs

    def blob(self, sha256: str) -> Path:
        """Return the path at which content of this hash is, or would be."""
        return self.root / "blobs" / sha256[:2] / sha256

    def add_content(self, content: bytes) -> File:
        """Keep small content, and return it as a regular file."""
        digest = hashlib.sha256(content).hexdigest()
        path = self.blob(digest)
        if not path.exists():
            _write(path, content)
        return File(digest, len(content), _git_blob_id(content), lfs=False)

    @contextlib.contextmanager
    def upload(self, sha256: str) -> Iterator[Path]:
        """Return a context whose value is a free path; the file written there becomes the blob if no error occurs.

        Raises:
            StoreError: 422 if the name is no hash.
        """
        check_sha256(sha256)
        with atomic(self.blob(sha256)) as place:
            yield place

    def holds(self, sha256: str, size: int | None = None) -> bool:
        """Return True if content of this hash (and size in bytes, if given) is kept."""
        path = self.blob(sha256)
        return path.is_file() and size in (None, path.stat().st_size)

    def lfs_file(self, sha256: str, size: int | None = None) -> File:
        """Return an uploaded large file; a commit that copies one does not say its size.

        Raises:
            StoreError: 400 if it was not uploaded.
        """
        check_sha256(sha256)
        if not self.holds(sha256, size):
            raise StoreError(400, f"The LFS object {sha256} was not uploaded.")
        size = self.blob(sha256).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return File(sha256, size, _git_blob_id(pointer), lfs=True)

    # repositories

    def create(self, type: str, id: str, user: User, *, private: bool = False) -> Repo:
        """Create a repository with a first commit.

        Raises:
            StoreError: 409 if it exists.
        """
        with self._lock:
            folder = self._folder(type, id)
            if (folder / "repo.json").exists():
                raise StoreError(409, f"You already created this {type} repo: {id}")
            folder.mkdir(parents=True, exist_ok=True)
            attributes = File(**asdict(self.add_content(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")))
            commit = self._new_commit(folder, None, "initial commit", user.name, {".gitattributes": attributes})
            repo = Repo(type, id, private, None, _now(), {"main": commit.oid})
            self._save(repo)
            return repo

    def repo(self, type: str, id: str) -> Repo:
        """Return a repository. Raises StoreError (404) if it does not exist."""
        path = self._folder(type, id) / "repo.json"
        if not path.is_file():
            raise StoreError(404, "Repository not found", "RepoNotFound")
        entry = json.loads(path.read_text())
        return Repo(**{**entry, "discussions": tuple(entry["discussions"])})

    def repos(self, type: str) -> list[Repo]:
        """Return all repositories of a type, by name."""
        found = (self.root / "repos" / f"{type}s").glob("*/*/repo.json")
        return [self.repo(type, f"{path.parent.parent.name}/{path.parent.name}") for path in sorted(found)]

    def delete(self, repo: Repo) -> None:
        """Delete a repository with its history; its content stays among the blobs. Raises StoreError (404)."""
        with self._lock:
            shutil.rmtree(self._folder(repo.type, self.repo(repo.type, repo.id).id))

    def change(self, repo: Repo, private: bool, gated: str | None) -> Repo:
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
        folder = self._folder(repo.type, repo.id) / "commits"
        if oid is None and len(revision) >= 7 and all(c in "0123456789abcdef" for c in revision):
            oid = next((path.stem for path in folder.glob(f"{revision}*.json")), None)
        if oid is None:
            raise StoreError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        entry = json.loads((folder / f"{oid}.json").read_text())
        return Commit(**{**entry, "files": {name: File(**f) for name, f in entry["files"].items()}})

    def history(self, repo: Repo, revision: str) -> list[Commit]:
        """Return a commit and all those before it, newest first."""
        commits = [self.commit(repo, revision)]
        while commits[-1].parent is not None:
            commits.append(self.commit(repo, commits[-1].parent))
        return commits

    def add_commit(
        self,
        repo: Repo,
        revision: str,
        user: User,
        message: str,
        changes: Changes,
        *,
        expected_parent: str | None = None,
        as_pull_request: bool = False,
    ) -> tuple[Commit, int | None]:
        """Add a commit to the branch `revision`, or open a pull request with it.

        A commit that changes nothing is not added and opens nothing. A pull request starts at `expected_parent`.

        Returns:
            The commit (the branch's last one if nothing changes), and the number of the new pull request, if any.

        Raises:
            StoreError: 412 if the branch is not at `expected_parent`, 400 if `revision` is not a branch, and as for
                `Changes.applied`.
        """
        with self._lock:
            repo = self.repo(repo.type, repo.id)
            head = self.commit(repo, (as_pull_request and expected_parent) or revision)
            if not as_pull_request and (revision not in repo.refs or revision.startswith("tags/")):
                raise StoreError(400, f"Commits go to a branch or a pull request, and {revision} is neither.")
            if expected_parent is not None and not head.oid.startswith(expected_parent):
                raise StoreError(412, "A commit has happened since. Please refresh and try again.")
            files = changes.applied(head.files)
            if files == head.files:
                return head, None
            commit = self._new_commit(self._folder(repo.type, repo.id), head.oid, message, user.name, files)
            if not as_pull_request:
                self._save(replace(repo, refs={**repo.refs, revision: commit.oid}))
                return commit, None
            number = len(repo.discussions) + 1
            discussion = self._discussion(number, message, user, pull_request=True)
            refs = {**repo.refs, f"refs/pr/{number}": commit.oid}
            self._save(replace(repo, refs=refs, discussions=(*repo.discussions, discussion)))
            return commit, number

    def set_ref(self, repo: Repo, name: str, oid: str | None) -> None:
        """Make a branch or a tag (`tags/x`) point at a commit, or delete it if `oid` is None.

        Raises:
            StoreError: 400 for an invalid name, 409 if it exists, 404 or 403 if it cannot be deleted.
        """
        if not re.fullmatch(r"(tags/)?(?!refs/|tags/)\w[\w./+-]*", name) or ".." in name:
            raise StoreError(400, f"Invalid reference for a branch or tag: {name}")
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

    def open_discussion(self, repo: Repo, title: str, user: User, *, pull_request: bool) -> Mapping[str, Any]:
        """Open a discussion, or a pull request without changes, and return it as the Hub describes it."""
        with self._lock:
            repo = self.repo(repo.type, repo.id)
            number = len(repo.discussions) + 1
            discussion = self._discussion(number, title, user, pull_request=pull_request)
            refs = {**repo.refs, **({f"refs/pr/{number}": repo.refs["main"]} if pull_request else {})}
            self._save(replace(repo, refs=refs, discussions=(*repo.discussions, discussion)))
            return discussion

    def _discussion(self, number: int, title: str, user: User, *, pull_request: bool) -> dict[str, Any]:
        status = "draft" if pull_request and not title else "open"
        return {
            "num": number,
            "title": title,
            "status": status,
            "isPullRequest": pull_request,
            "author": {"name": user.name},
            "createdAt": _now(),
        }

    def _new_commit(
        self, folder: Path, parent: str | None, message: str, author: str, files: Mapping[str, File]
    ) -> Commit:
        content = {
            "parent": parent,
            "message": message,
            "author": author,
            "date": _now(),
            "files": {name: asdict(file) for name, file in sorted(files.items())},
        }
        oid = hashlib.sha1(json.dumps(content).encode() + secrets.token_bytes(8), usedforsecurity=False).hexdigest()
        _write_json(folder / "commits" / f"{oid}.json", {"oid": oid, **content})
        return Commit(oid, parent, message, author, content["date"], files)  # type: ignore[arg-type]

    def _folder(self, type: str, id: str) -> Path:
        parts = id.split("/")
        if type not in _REPO_TYPES or len(parts) != 2 or any(not _is_name(part) for part in parts):
            raise StoreError(404, "Repository not found", "RepoNotFound")
        return self.root / "repos" / f"{type}s" / parts[0] / parts[1]

    def _save(self, repo: Repo) -> None:
        _write_json(self._folder(repo.type, repo.id) / "repo.json", asdict(repo))


def _write_json(path: Path, content: Any, mode: int = 0o644) -> None:
    _write(path, json.dumps(content, indent=1).encode(), mode)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    with atomic(path) as place:
        place.touch(mode)
        place.write_bytes(content)


def check_sha256(name: str) -> None:
    """Refuse a name of content that is no SHA-256 in hexadecimal. Raises StoreError (422)."""
    if not re.fullmatch("[0-9a-f]{64}", name):
        raise StoreError(422, f"Not a SHA-256: {name[:80]}")


def _git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _is_name(part: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*", part, re.ASCII) is not None and ".." not in part


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
