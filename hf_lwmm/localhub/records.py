"""The records of a store: users, files, commits, repositories, and the error of a request that it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import StrictBool, StrictInt

from hf_lwmm.files.documents import shortened
from hf_lwmm.localhub.values import FilePath, GitId, Name, RepoId, RepoType, Sha256, Size


class StoreError(Exception):
    """A request that cannot be served; `code` is the Hub's X-Error-Code, `status` the HTTP status."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class DamagedError(StoreError):
    """A file of the store is missing or is not as the store wrote it.

    The status is 409, not 500, after which clients would try again and again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(409, message)


@dataclass(frozen=True)
class User:
    """A user, known by the token of a request; `role` is read or write."""

    name: Name
    token: str
    role: Literal["read", "write"] = "write"
    orgs: tuple[Name, ...] = ()

    def may_write(self, namespace: str) -> bool:
        """Return True if this user may write to the repositories of a user or an organisation."""
        return self.role == "write" and self.belongs_to(namespace)

    def belongs_to(self, namespace: str) -> bool:
        """Return True if a namespace is this user's own or one of an organisation of theirs."""
        return namespace == self.name or namespace in self.orgs


@dataclass(frozen=True)
class File:
    """A file in a commit. `blob_id` is git's name for its content, or for its LFS pointer if `lfs`."""

    sha256: Sha256
    size: Size
    blob_id: GitId
    lfs: StrictBool


@dataclass(frozen=True)
class Changes:
    """The files that a commit adds or replaces, and the files and folders that it deletes."""

    added: Mapping[str, File]
    deleted: Sequence[str] = ()
    deleted_folders: Sequence[str] = ()

    def applied(self, files: Mapping[str, File]) -> dict[str, File]:
        """Return the files after the change.

        Raises:
            StoreError: 404 if a file or folder to delete is not there, 400 if a path is both a file and a folder.
        """
        left = dict(files)
        for path in self.deleted:
            if left.pop(path, None) is None:
                raise StoreError(404, f"A file with this name doesn't exist: {shortened(path)}", "EntryNotFound")
        gone = set(self.deleted_folders)
        if missing := gone - folders_of(left):
            raise StoreError(404, f"A folder with this name doesn't exist: {shortened(min(missing))}", "EntryNotFound")
        left = {name: file for name, file in left.items() if gone.isdisjoint(_folders(name))} | dict(self.added)
        if clash := folders_of(left) & left.keys():
            raise StoreError(400, f"{shortened(min(clash))} would be a file and a folder.")
        return left


def folders_of(files: Mapping[str, File]) -> set[str]:
    """Return all folders that files are in."""
    return {folder for name in files for folder in _folders(name)}


def _folders(path: str) -> Iterator[str]:
    place = path.find("/")
    while place >= 0:
        yield path[:place]
        place = path.find("/", place + 1)


@dataclass(frozen=True)
class Commit:
    """The state of a repository after one change."""

    oid: GitId
    parent: GitId | None
    message: str
    author: str
    date: str
    files: Mapping[FilePath, File] = field(repr=False)


@dataclass(frozen=True)
class Discussion:
    """A discussion or pull request; `author` is the name of a user. The other names are the Hub's."""

    num: StrictInt
    title: str
    status: Literal["draft", "open"]
    isPullRequest: StrictBool
    author: Name
    createdAt: str


@dataclass(frozen=True)
class Repo:
    """A repository; `refs` maps main and other branches, `tags/x` and `refs/pr/n` to the names of commits."""

    type: RepoType
    id: RepoId
    private: StrictBool
    gated: Literal["auto", "manual"] | None
    created: str
    refs: Mapping[str, GitId]

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def visible_to(self, user: User | None) -> bool:
        """Return True if a user, None for one without a token, may know of the repository."""
        return not self.private or (user is not None and user.belongs_to(self.namespace))

    def readable_by(self, user: User | None) -> bool:
        """Return True if a user, None for one without a token, may read the files."""
        return self.visible_to(user) and (not self.gated or (user is not None and user.belongs_to(self.namespace)))
