"""Repositories on disk: content under its hash, commits that never change, and refs that point at commits. No HTTP.

blobs/ab/abcd...                 content, under its SHA-256
uploads/user/abcd...             large files that a user has uploaded and not committed yet
repos/models/org/name/repo.json  visibility and refs
repos/models/org/name/commits/   one JSON file for each commit: its parent and its files
repos/models/org/name/discussions/  one JSON file for each discussion or pull request
users.json                       users, tokens, roles, organisations
incoming/                        what is being written
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from hf_lwmm.files.documents import shortened
from hf_lwmm.localhub.contents import Contents, Draft, lfs_file
from hf_lwmm.localhub.discussions import Discussions
from hf_lwmm.localhub.disk import Disk, write
from hf_lwmm.localhub.record_files import as_json, read_record
from hf_lwmm.localhub.records import Changes, Commit, DamagedError, File, Repo, StoreError, User
from hf_lwmm.localhub.values import RepoType, is_name, now, shaped
from hf_lwmm.text import clashing

_USERS = "users.json"
_SMALL = 2**16  # bytes of a commit that is quickly read
_MOST_REFS, _MOST_REPOS = 4000, 5000  # in a repository, and of a kind in a namespace


class Store:
    """All repositories under one folder, which survive restarts; several threads may use it at once."""

    def __init__(self, root: Path) -> None:
        self.disk = Disk(root)
        self.root = self.disk.root
        self.contents = Contents(self.disk)
        self._lock = threading.RLock()  # of the users, of the names of repositories, and of uploads
        self._locks: dict[tuple[str, str], threading.RLock] = {}  # of repositories
        self.discussions = Discussions(self.disk)
        self._listed: dict[tuple[str, str], set[str]] = {}  # the content in the commits of a repository
        self._listing = threading.Lock()
        for folder in ("blobs", "uploads", *(f"repos/{type}s" for type in get_args(RepoType))):
            for path in (self.root / folder).parent, self.root / folder:
                path.mkdir(mode=0o700, exist_ok=True)  # for private content
        if not (self.root / _USERS).exists():
            self.add_user(User("local", f"hf_{secrets.token_hex(16)}"))

    # users

    def users(self) -> tuple[User, ...]:
        """Return all users, in the order in which they were added or changed. Raises DamagedError."""
        path = self.root / _USERS
        return read_record(self.disk, tuple[User, ...], path) if path.exists() else ()

    def add_user(self, user: User) -> User:
        """Add a user in place of the one of that name, if there is one. Raises DocumentError for an invalid one."""
        shaped(User, asdict(user), f"The user {shortened(user.name)}")
        with self._lock:
            others = [other for other in self.users() if other.name != user.name]
            self.disk.write(self.root / _USERS, as_json([*others, user]))
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

    def lfs_file(self, user: User, sha256: str, size: int | None, readable: Callable[[], Sequence[Set[str]]]) -> File:
        """Return a large file that a user has uploaded or may read; a commit that copies one does not say its size.

        `readable` returns what `readable_content` does, and is called if the user has not uploaded the file.

        Raises:
            StoreError: 400 if the user has not uploaded it, and no repository that the user may read has it.
        """
        found = self.contents.available_size(user.name, sha256, ())
        if found is None:
            found = self.contents.available_size(user.name, sha256, readable())
        if found is None or size not in (None, found):
            raise StoreError(400, f"The LFS object {sha256} was not uploaded.")
        return lfs_file(sha256, found)

    def readable_content(self, user: User | None) -> list[set[str]]:
        """Return the hashes of all content in each of the repositories that a user may read."""
        repos = [repo for type in get_args(RepoType) for repo in self.repos(type) if repo.readable_by(user)]
        with self._listing:
            return list(map(self._content, repos))

    def _content(self, repo: Repo) -> set[str]:
        """The content of all commits, which are read once; `add_commit` tells of new ones, also while this reads."""
        key = (repo.type, repo.id)
        if key in self._listed:
            return self._listed[key]
        hashes = self._listed[key] = set()
        for path in list((self._folder(*key) / "commits").glob("*.json")):
            with contextlib.suppress(DamagedError):
                hashes.update(file.sha256 for file in self._read_commit(repo, path.stem).files.values())
        return hashes

    # repositories

    def create(self, type: RepoType, id: str, user: User, private: bool = False) -> Repo:
        """Create a repository with a first commit.

        Raises:
            StoreError: 409 if it exists, 403 if its namespace has too many.
        """
        with self._lock, self.draft() as draft, self.disk.scratch() as scratch:
            folder = self._folder(type, id)
            if folder.exists():
                raise StoreError(409, f"You already created this {type} repo: {id}")
            if folder.parent.is_dir() and len(list(folder.parent.iterdir())) >= _MOST_REPOS:
                raise StoreError(403, f"{id.split('/')[0]} has {_MOST_REPOS:,} {type} repositories, and takes no more.")
            attributes = draft.add(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
            commit = _new_commit(None, "initial commit", user.name, {".gitattributes": attributes})
            repo = Repo(type, id, private, None, now(), {"main": commit.oid})
            made = scratch / "repo"
            (made / "commits").mkdir(parents=True)
            write(made / "commits" / f"{commit.oid}.json", as_json(commit))
            write(made / "repo.json", as_json(repo))
            self.contents.keep(attributes, user.name, draft)
            self.disk.place(made, folder)
            return repo

    def repo(self, type: str, id: str) -> Repo:
        """Return a repository. Raises StoreError (404) if it does not exist, DamagedError if it cannot be read."""
        folder = self._folder(type, id)
        if not folder.exists():
            raise StoreError(404, "Repository not found", "RepoNotFound")
        repo = read_record(self.disk, Repo, folder / "repo.json")
        if (repo.type, repo.id) != (type, id):  # a file system may take one name for another
            raise StoreError(404, "Repository not found", "RepoNotFound")
        if "main" not in repo.refs:
            raise DamagedError(f"{repo.id} has no branch main in this Hub's folder.")
        return repo

    def repos(self, type: str) -> list[Repo]:
        """Return all repositories of a type, by name, without those that cannot be read."""
        found = []
        for id in self.ids(type):
            with contextlib.suppress(StoreError):
                found.append(self.repo(type, id))
        return found

    def ids(self, type: str) -> list[str]:
        """Return the ids of all repositories of a type, by name, also of those that cannot be read."""
        folders = (self.root / "repos" / f"{type}s").glob("*/*")
        return sorted(f"{path.parent.name}/{path.name}" for path in folders)

    def delete(self, repo: Repo) -> None:
        """Delete a repository with its history; its content stays among the blobs. Raises StoreError (404)."""
        with self._locked(repo):
            self.disk.remove(self._folder(repo.type, self.repo(repo.type, repo.id).id))
            self._listed.pop((repo.type, repo.id), None)

    def change(self, repo: Repo, private: bool, gated: Literal["auto", "manual"] | None) -> Repo:
        """Give a repository other values of `private` and `gated`, and return it. Raises StoreError (404)."""
        with self._locked(repo):
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
            known = (folder / f"{revision}.json").exists()  # those folders can be long
            oid = revision if known else next((path.stem for path in folder.glob(f"{revision}*.json")), None)
        if oid is None:
            raise StoreError(404, f"Invalid rev id: {shortened(revision)}", "RevisionNotFound")
        return self._read_commit(repo, oid)

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
        with self._locked(repo), self.disk.scratch() as scratch:
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
            opened = self.discussions.new(repo, message, user, pull_request=True) if as_pull_request else None
            changed = _with_ref(repo, f"refs/pr/{opened[0].num}" if opened else revision, commit.oid)
            # All are written before anything is changed, in case the disk is full.
            write(scratch / "commit", as_json(commit))
            write(scratch / "repo", as_json(changed))
            if opened:
                write(scratch / "discussion", as_json(opened[0]))
            for file in changes.added.values():
                with self._lock:
                    self.contents.keep(file, user.name, draft)
            folder = self._folder(repo.type, repo.id)
            self.disk.place(scratch / "commit", folder / "commits" / f"{commit.oid}.json")
            if (known := self._listed.get((repo.type, repo.id))) is not None:
                known.update(file.sha256 for file in changes.added.values())
            if opened:
                self.disk.place(scratch / "discussion", opened[1])
            self.disk.place(scratch / "repo", folder / "repo.json")
            return commit, opened[0].num if opened else None

    def set_ref(self, repo: Repo, name: str, oid: str | None) -> None:
        """Make a branch or a tag (`tags/x`) point at a commit, or delete it if `oid` is None.

        Raises:
            StoreError: 409 if it exists, 400 if it cannot stand beside another, 404 or 403 if it cannot be deleted.
        """
        if oid is None and name == "main":
            raise StoreError(403, "The branch main cannot be deleted")
        with self._locked(repo):
            repo = self.repo(repo.type, repo.id)
            if oid is not None and name in repo.refs:
                raise StoreError(409, f"Reference already exists: {name}")
            if oid is not None and (other := clashing(name, _of_its_kind(repo, name))):
                raise StoreError(400, f"{name} cannot stand beside {other}: git keeps a folder for one of them.")
            if oid is None and name not in repo.refs:
                raise StoreError(404, f"Invalid rev id: {name}", "RevisionNotFound")
            refs = {key: value for key, value in repo.refs.items() if key != name}
            self._save(replace(repo, refs=refs) if oid is None else _with_ref(repo, name, oid))

    def open_discussion(self, repo: Repo, title: str, user: User, pull_request: bool) -> int:
        """Open a discussion, or a pull request without changes, and return its number. Raises StoreError (403)."""
        with self._locked(repo), self.disk.scratch() as scratch:
            repo = self.repo(repo.type, repo.id)
            discussion, path = self.discussions.new(repo, title, user, pull_request=pull_request)
            write(scratch / "discussion", as_json(discussion))
            if pull_request:
                changed = _with_ref(repo, f"refs/pr/{discussion.num}", repo.refs["main"])
                write(scratch / "repo", as_json(changed))
            self.disk.place(scratch / "discussion", path)
            if pull_request:
                self.disk.place(scratch / "repo", self._folder(repo.type, repo.id) / "repo.json")
            return discussion.num

    def _locked(self, repo: Repo) -> threading.RLock:
        """The lock of a repository: who changes much in one keeps nobody from changing others."""
        return self._locks.setdefault((repo.type, repo.id), threading.RLock())

    def _read_commit(self, repo: Repo, oid: str) -> Commit:
        path = self._folder(repo.type, repo.id) / "commits" / f"{oid}.json"
        found = self.disk.file(path).stat()
        if found.st_size < _SMALL:
            return read_record(self.disk, Commit, path)
        return _large_commit(self.disk, path, (found.st_ino, found.st_size, found.st_mtime_ns))

    def _folder(self, type: str, id: str) -> Path:
        parts = id.split("/")
        if type not in get_args(RepoType) or len(parts) != 2 or not all(map(is_name, parts)):
            raise StoreError(404, "Repository not found", "RepoNotFound")
        return self.root / "repos" / f"{type}s" / parts[0] / parts[1]

    def _save(self, repo: Repo) -> None:
        self.disk.write(self._folder(repo.type, repo.id) / "repo.json", as_json(repo))


def _new_commit(parent: str | None, message: str, author: str, files: Mapping[str, File]) -> Commit:
    """A commit, whose name is unlike any other's."""
    files = dict(sorted(files.items()))
    commit = Commit("", parent, message, author, now(), files)
    named = as_json(commit) + secrets.token_bytes(8)
    return replace(commit, oid=hashlib.sha1(named, usedforsecurity=False).hexdigest())


@lru_cache(maxsize=4)
def _large_commit(disk: Disk, path: Path, state: tuple[int, ...]) -> Commit:
    """A commit of many files, which request after request asks for, as long as the state of its file is the same."""
    return read_record(disk, Commit, path)


def _of_its_kind(repo: Repo, name: str) -> list[str]:
    """The branches of a repository if the name is one of a branch, else its tags."""
    tag = name.startswith("tags/")
    return [each for each in repo.refs if each.startswith("tags/") == tag and not each.startswith("refs/")]


def _with_ref(repo: Repo, name: str, oid: str) -> Repo:
    """A repository in which a branch, a tag or a pull request points at a commit. Raises StoreError (403)."""
    if name not in repo.refs and len(repo.refs) >= _MOST_REFS:
        raise StoreError(403, f"{repo.id} has {_MOST_REFS:,} branches, tags and pull requests, and takes no more.")
    return replace(repo, refs={**repo.refs, name: oid})
