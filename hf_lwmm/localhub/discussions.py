"""Discussions and pull requests of repositories: a file each, and so many of them at most."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from hf_lwmm.localhub.disk import Disk
from hf_lwmm.localhub.record_files import read_record
from hf_lwmm.localhub.records import DamagedError, Discussion, Repo, StoreError, User
from hf_lwmm.localhub.values import MAX_TITLE, now

# In a repository: of all who may not write to it with the others, of one of them, and of one who may. The last has no
# need to share, so that strangers cannot leave no room.
MOST, MOST_OF_A_USER, MOST_OF_A_WRITER = 1000, 200, 1000


class Discussions:
    """The files `discussions/N-user.json` in the folders of repositories."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def numbers(self, repo: Repo) -> list[int]:
        """Return the numbers of a repository's discussions, ascending."""
        return sorted(self._authors(repo))

    def author(self, repo: Repo, number: int) -> str | None:
        """Return the name of the user who opened a discussion, None if there is none of this number."""
        return self._authors(repo).get(number)

    def get(self, repo: Repo, number: int) -> Discussion:
        """Return a discussion. Raises StoreError (404) if there is none of this number, DamagedError."""
        author = self._authors(repo).get(number)
        if author is None:
            raise StoreError(404, "Discussion not found")
        found = read_record(self._disk, Discussion, self._path(repo, number, author))
        if found.num != number:
            raise DamagedError(f"{repo.id}: discussion {number} has another number in this Hub's folder.")
        return found

    def new(self, repo: Repo, title: str, user: User, *, pull_request: bool) -> tuple[Discussion, Path]:
        """Return a discussion that is to be written, and where.

        Raises:
            StoreError: 403 if the repository, or the user, has too many.
        """
        authors = self._authors(repo)
        own = sum(author == user.name for author in authors.values())
        writes = user.may_write(repo.namespace)
        if own >= (MOST_OF_A_WRITER if writes else MOST_OF_A_USER) or (not writes and len(authors) >= MOST):
            raise StoreError(
                403,
                f"{repo.id} has {len(authors):,} discussions and pull requests, {own:,} of them by {user.name}. "
                f"A user who may write to it can open at most {MOST_OF_A_WRITER:,}, any other {MOST_OF_A_USER}, and "
                f"those only while there are fewer than {MOST:,} in all.",
            )
        pulls = [int(ref.rpartition("/")[2]) for ref in repo.refs if re.fullmatch("refs/pr/[0-9]{1,9}", ref)]
        number = max([*authors, *pulls], default=0) + 1
        status: Literal["draft", "open"] = "draft" if pull_request and not title else "open"
        discussion = Discussion(number, title[:MAX_TITLE], status, pull_request, user.name, now())
        return discussion, self._path(repo, number, user.name)

    def _authors(self, repo: Repo) -> dict[int, str]:
        """The authors of a repository's discussions, by number, from the names of the files."""
        names = [path.name for path in self._folder(repo).glob("*-*.json")]
        found = [re.fullmatch(r"([1-9][0-9]{0,8})-(.+)\.json", name) for name in names]
        return {int(each[1]): each[2] for each in found if each}

    def _folder(self, repo: Repo) -> Path:
        return self._disk.root / "repos" / f"{repo.type}s" / repo.id / "discussions"

    def _path(self, repo: Repo, number: int, author: str) -> Path:
        return self._folder(repo) / f"{number}-{author}.json"
