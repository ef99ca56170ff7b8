"""The records of a store: users, files, commits, repositories, and the error of a request that it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any


class StoreError(Exception):
    """A request that cannot be served; `code` is the Hub's X-Error-Code, `status` the HTTP status."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class User:
    """A user, known by the token of a request; `role` is read or write."""

    name: str
    token: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def may_write(self, namespace: str) -> bool:
        """Return True if this user may write to the repositories of a user or an organisation."""
        return self.role == "write" and self.belongs_to(namespace)

    def belongs_to(self, namespace: str) -> bool:
        """Return True if a namespace is this user's own or one of an organisation of theirs."""
        return namespace == self.name or namespace in self.orgs


@dataclass(frozen=True)
class File:
    """A file in a commit. `blob_id` is git's name for its content, or for its LFS pointer if `lfs`."""

    sha256: str
    size: int
    blob_id: str
    lfs: bool


@dataclass(frozen=True)
class Changes:
    """The files that a commit adds or replaces, and the files and folders that it deletes."""

    added: Mapping[str, File]
    deleted: Sequence[str] = ()
    deleted_folders: Sequence[str] = ()

    def applied(self, files: Mapping[str, File]) -> dict[str, File]:
        """Return the files after the change.

        Raises:
            StoreError: 404 if a file or folder to delete is not there, 400 if an added path is not valid or is both a
                file and a folder.
        """
        for path in self.added:
            _check_path(path)
        left = dict(files)
        for path in self.deleted:
            if left.pop(path, None) is None:
                raise StoreError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for folder in self.deleted_folders:
            inside = [name for name in left if name.startswith(folder.rstrip("/") + "/")]
            if not inside:
                raise StoreError(404, f"A folder with this name doesn't exist: {folder}", "EntryNotFound")
            for name in inside:
                del left[name]
        left |= self.added
        if clash := {str(folder) for name in left for folder in PurePosixPath(name).parents} & left.keys():
            raise StoreError(400, f"{min(clash)!r} would be a file and a folder.")
        return left


@dataclass(frozen=True)
class Commit:
    """The state of a repository after one change."""

    oid: str
    parent: str | None
    message: str
    author: str
    date: str
    files: Mapping[str, File] = field(repr=False)


@dataclass(frozen=True)
class Repo:
    """A repository; `refs` maps main and other branches, `tags/x` and `refs/pr/n` to the names of commits."""

    type: str
    id: str
    private: bool
    gated: str | None
    created: str
    refs: Mapping[str, str]
    discussions: tuple[Mapping[str, Any], ...] = ()

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]


def _check_path(path: str) -> None:
    odd = any(part in ("", ".", "..", ".git") for part in path.split("/"))
    if odd or "\\" in path or any(ord(c) < 32 for c in path):
        raise StoreError(400, f"Invalid path in repository: {path!r}")
