"""Find the user and the repository of a request, and check what that user may do there."""

from __future__ import annotations

import base64
import contextlib

from starlette.requests import Request

from hf_lwmm.localhub.records import Commit, Repo, StoreError, User
from hf_lwmm.localhub.store import Store


class Hub:
    """The store, and the permissions that every answer depends on."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def user(self, request: Request) -> User | None:
        """Return the user whose token the request carries, None without a token. A wrong token is a 401."""
        token = _token(request)
        if not token:
            return None
        user = self.store.user(token)
        if user is None:
            raise StoreError(401, "Invalid credentials in Authorization header")
        return user

    def signed_in(self, request: Request) -> User:
        """Return the user of a request that needs one, else 401."""
        user = self.user(request)
        if user is None:
            raise StoreError(401, "Invalid username or password.")
        return user

    def writer(self, request: Request) -> User:
        """Return the user if the token may write at all, else 403; a read token cannot even open a pull request."""
        user = self.signed_in(request)
        if user.role != "write":
            raise StoreError(403, "This token may only read")
        return user

    def repo(self, request: Request) -> Repo:
        """Return the request's repository if it exists and this user may know of it, else 404 (401 without a token)."""
        path = request.url.path.removeprefix("/api")
        kind = next((t for t in ("dataset", "space", "model") if path.startswith(f"/{t}s/")), "model")
        user = self.user(request)
        # To those who may not know of it, one that exists is as one that does not.
        unknown = StoreError(404 if user else 401, "Repository not found", "RepoNotFound")
        try:
            repo = self.store.repo(kind, f"{request.path_params['namespace']}/{request.path_params['name']}")
        except StoreError as error:
            raise unknown if error.status == 404 else error from None
        if not repo.visible_to(user):
            raise unknown
        return repo

    def readable(self, request: Request) -> Repo:
        """Return the request's repository if this user may read its files, else 403 (401 without a token)."""
        repo, user = self.repo(request), self.user(request)
        if not repo.readable_by(user):
            raise StoreError(403 if user else 401, f"Access to {repo.id} is restricted.", "GatedRepo")
        return repo

    def writable(self, request: Request) -> tuple[Repo, User]:
        """Return the request's repository and user if this user may write to it, else 403."""
        repo, user = self.repo(request), self.signed_in(request)
        if not user.may_write(repo.namespace):
            raise StoreError(403, f"You don't have the rights to write to {repo.id}.")
        return repo, user

    def commit(self, request: Request, repo: Repo) -> Commit:
        """Return the commit that the request's path names, main's if it names none."""
        return self.store.commit(repo, revision(request))


def _token(request: Request) -> str:
    """The token of a request, empty if there is none.

    A browser gives it as the password of whatever name. It does so by itself from then on, also for what the pages of
    others ask of this Hub; so it counts where pages and their pictures are read, and nowhere else.
    """
    header = request.headers.get("Authorization", "")
    scheme, _, given = header.partition(" ")
    reads = request.method in ("GET", "HEAD") and not request.url.path.startswith("/api/")
    if scheme.lower() == "basic" and reads:
        with contextlib.suppress(ValueError):
            return base64.b64decode(given, validate=True).decode().partition(":")[2]
    return header.removeprefix("Bearer ").strip()


def encoded(path: str) -> str:
    """Return the path of a request, as it came, for the framework, which decodes it and then splits it at slashes.

    An encoded slash, as in `refs%2Fpr%2F1`, is part of one segment: `revision` and `file_path` decode it.
    """
    for twice in ("%25", "%2F", "%2f"):
        path = path.replace(twice, "%25" + twice[1:])
    return path


def revision(request: Request) -> str:
    """Return the revision in the request's path, main if there is none."""
    return _decoded(request, "revision", "main")


def file_path(request: Request) -> str:
    """Return the path of a file or folder in the request's path, empty if there is none."""
    return _decoded(request, "path", "")


def _decoded(request: Request, name: str, default: str) -> str:
    text = str(request.path_params.get(name, default))
    return text.replace("%2F", "/").replace("%2f", "/").replace("%25", "%")


def web_path(repo: Repo) -> str:
    """Return the path of a repository's page."""
    return f"/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"


def web_url(request: Request, repo: Repo) -> str:
    """Return the address of a repository's page."""
    return f"{str(request.base_url).rstrip('/')}{web_path(repo)}"
