"""Who is asking for which repository, and what they may do with it."""

from __future__ import annotations

from starlette.requests import Request

from hf_lwmm.localhub.store import Commit, Repo, Store, StoreError, User


class Hub:
    """What answers share: the store, and who may do what."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def user(self, request: Request) -> User | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not token:
            return None
        user = self.store.user(token)
        if user is None:
            raise StoreError(401, "Invalid credentials in Authorization header")
        return user

    def signed_in(self, request: Request) -> User:
        user = self.user(request)
        if user is None:
            raise StoreError(401, "Invalid username or password.")
        return user

    def writer(self, request: Request) -> User:
        """Somebody whose token may write somewhere; a read token opens no pull request either."""
        user = self.signed_in(request)
        if user.role != "write":
            raise StoreError(403, "This token may only read")
        return user

    def repo(self, request: Request) -> Repo:
        """The request's repository, if it exists and this user may know it."""
        path = request.url.path.removeprefix("/api")
        kind = next((t for t in ("dataset", "space", "model") if path.startswith(f"/{t}s/")), "model")
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        repo = self.store.repo(kind, f"{namespace}/{name}")
        user = self.user(request)
        if repo.private and (user is None or (user.name != namespace and namespace not in user.orgs)):
            raise StoreError(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def readable(self, request: Request) -> Repo:
        """The same, if this user may also read its files."""
        repo, user = self.repo(request), self.user(request)
        if repo.gated and (user is None or (user.name != repo.namespace and repo.namespace not in user.orgs)):
            raise StoreError(403 if user else 401, f"Access to {repo.id} is restricted.", "GatedRepo")
        return repo

    def writable(self, request: Request) -> tuple[Repo, User]:
        repo, user = self.repo(request), self.signed_in(request)
        if not user.may_write(repo.namespace):
            raise StoreError(403, f"You don't have the rights to write to {repo.id}.")
        return repo, user

    def commit(self, request: Request, repo: Repo) -> Commit:
        return self.store.commit(repo, revision(request))


def revision(request: Request) -> str:
    return str(request.path_params.get("revision", "main")).replace("%2F", "/")


def web_url(request: Request, repo: Repo) -> str:
    return f"{request.base_url}{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"
