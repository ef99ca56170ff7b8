"""Push to the Hub: check permission before any work, then commit files, all or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_lwmm.errors import HubError
from hf_lwmm.hub.calls import call, client, retry
from hf_lwmm.hub.hashes import git_blob_id, sha256
from hf_lwmm.hub.refs import ModelRef, parse_ref
from hf_lwmm.options import Options, option

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


@dataclass(frozen=True)
class PushOptions(Options):
    """The options of a push to the Hub.

    `repo` is a repository id, a name in the user's own namespace, or empty for the default name.
    """

    repo: str = option("", "Push to the Hub, to the default name if no REPO follows.", name="push", metavar="[REPO]")
    private: bool = option(False, "Make a new repository private.")
    create_pr: bool = option(False, "Open a pull request instead of committing.")
    revision: str | None = option(None, "Branch to push to.")
    commit_message: str | None = option(None, "Message of the commit.")

    @classmethod
    def of(cls, push: bool | str | PushOptions) -> PushOptions | None:
        """Return the options that a `push` argument means: True for the default name, a repository, or none."""
        if isinstance(push, PushOptions):
            return push
        return cls(push if isinstance(push, str) else "") if push else None


@dataclass(frozen=True)
class Pushed:
    """The result of a push; `changed` is False if the repository held exactly these files already."""

    repo_id: str
    url: str
    commit: str | None
    pull_request: str | None
    changed: bool


def target_repo(options: PushOptions, default_name: str) -> str:
    """Return the id of the repository to push to; a bare name is one of this user's.

    Raises:
        RefError: if it is no repository id.
        HubError: if nobody is logged in, and the name does not say whose it is.
    """
    wanted = options.repo or default_name
    repo_id = wanted if "/" in wanted else f"{whoami()['name']}/{wanted}"
    return str(parse_ref(repo_id).repo_id)


def check_push(repo_id: str, *, create_pr: bool = False) -> None:
    """Check, before any work, that this user may push to a repository, which need not exist yet.

    Raises:
        HubError: if not, or if there is no token.
    """
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    api = client()
    user = whoami()
    try:
        retry(lambda: api.auth_check(repo_id, write=not create_pr))
        return
    except RepositoryNotFoundError:
        pass
    except HfHubHTTPError as error:
        raise HubError(
            f"{user['name']} may not write to {repo_id}. Use a token with write access, name another repository "
            "with --push ORG/NAME, or open a pull request with --create-pr."
        ) from error
    namespace = repo_id.split("/")[0]
    organisations = [org["name"] for org in user.get("orgs", ())]
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise HubError(f"The token of {user['name']} can only read; pushing to {repo_id} needs one that can write.")
    if namespace != user["name"] and namespace not in organisations:
        raise HubError(f"{user['name']} may not create {repo_id}: not a member of {namespace}.")
    if create_pr:
        raise HubError(f"{repo_id} does not exist (or is private), so no pull request can be opened on it.")


def whoami() -> dict[str, Any]:
    """Return the user that the token belongs to, as the Hub describes users.

    Raises:
        HubError: if there is no valid token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    if get_token() is None:
        raise HubError("Pushing needs a token: run `hf auth login`, or set HF_TOKEN.")
    try:
        return dict(retry(lambda: client().whoami()))
    except HfHubHTTPError as error:
        raise HubError("The Hub does not accept this token: run `hf auth login`, or set HF_TOKEN.") from error


def push_folder(folder: Path, files: Sequence[str], repo_id: str, options: PushOptions, *, message: str) -> Pushed:
    """Commit files of a folder to a model repository, created if need be, as exactly one commit.

    Files that the repository holds already are not sent again. `message` is used if the options have none.

    Raises:
        HubError: if the Hub refuses; nothing is left half-pushed.
    """
    from huggingface_hub import CommitOperationAdd

    revision, create_pr = options.revision, options.create_pr
    api, ref = client(), ModelRef(repo_id=repo_id, revision=revision)
    if not create_pr:
        call(ref, lambda: api.create_repo(repo_id, private=options.private, exist_ok=True))
        if revision is not None:
            call(ref, lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
    head = call(ref, lambda: api.model_info(repo_id, revision=revision, files_metadata=True))
    remote = {s.rfilename: (s.lfs.sha256 if s.lfs else s.blob_id) for s in head.siblings or ()}
    # The Hub names large files by their SHA-256 and all others as git does.
    changed = [n for n in files if remote.get(n) not in (sha256(folder / n), git_blob_id(folder / n))]
    url = f"{api.endpoint}/{repo_id}"
    if not changed:
        return Pushed(repo_id, url, head.sha, None, changed=False)

    def commit() -> CommitInfo:
        return api.create_commit(
            repo_id,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in changed],
            commit_message=options.commit_message or message,
            create_pr=create_pr,
            revision=revision,
            parent_commit=head.sha,
        )

    done = call(ref, commit)
    return Pushed(repo_id, url, done.oid, done.pr_url, changed=True)
