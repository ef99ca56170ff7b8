"""Push to the Hub: check permission before any work, then commit files, all or none."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_lwmm.errors import HubError, RefError
from hf_lwmm.hub.calls import call, client, reaching, read, readable, retry
from hf_lwmm.hub.client import Source
from hf_lwmm.hub.refs import ModelRef, is_repo_id, parse_hub_ref
from hf_lwmm.options import Options, option
from hf_lwmm.progress import is_watched
from hf_lwmm.text import clashing, is_branch_name

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_COMMIT = re.compile("[0-9a-fA-F]{7,40}")


@dataclass(frozen=True)
class PushOptions(Options):
    """The options of a push to the Hub.

    `repo` is a repository id, a name in the user's own namespace, or empty for the default name.
    """

    repo: str = option(
        "", "Push to the Hub, to the default name if no REPO follows.", name="push", metavar="[REPO]", bare=True
    )
    private: bool = option(False, "Make a new repository private.")
    create_pr: bool = option(False, "Open a pull request instead of committing.")
    revision: str | None = option(None, "Branch, or refs/pr/N of a pull request, to push to.")
    commit_message: str | None = option(None, "Message of the commit.")

    @classmethod
    def of(cls, push: bool | str | PushOptions) -> PushOptions | None:
        """Return the options that a `push` argument means: True for the default name, a repository, or none."""
        if isinstance(push, PushOptions):
            return push
        return cls(push if isinstance(push, str) else "") if push else None


@dataclass(frozen=True)
class Pushed:
    """The result of a push; `changed` is False if the repository held exactly these files already.

    `revision` is the branch or the pull request, such as refs/pr/1, None for main. `warnings` are about files of others
    in the repository.
    """

    repo_id: str
    url: str
    commit: str | None
    pull_request: str | None
    changed: bool
    warnings: tuple[str, ...] = ()
    revision: str | None = None

    @property
    def ref(self) -> str:
        """A reference to what was pushed, as models are named."""
        return self.repo_id if self.revision in (None, "main") else f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True)
class Replacement:
    """The files of a repository that a push deletes, and warnings about those that it does not."""

    deleted: Set[str]
    warnings: tuple[str, ...] = ()


def target_repo(options: PushOptions, default_name: str) -> str:
    """Return the id of the repository to push to; a bare name is one of this user's.

    Raises:
        RefError: if it is no repository id.
        HubError: if nobody is logged in, and the name does not say whose it is.
    """
    wanted = parse_hub_ref(options.repo or default_name)
    assert wanted.repo_id is not None
    if wanted.revision or wanted.files:
        raise RefError(f"{wanted}: a push goes to a repository, such as org/name; --revision names the branch.")
    return wanted.repo_id if "/" in wanted.repo_id else f"{whoami()['name']}/{wanted.repo_id}"


def check_push(repo_id: str, options: PushOptions = PushOptions()) -> str:
    """Check, before any work, that this user may push to a repository, which need not exist yet, with these options.

    Returns:
        The name of the repository on the Hub: a former name leads to the present one.

    Raises:
        HubError: if not, if there is no token, if the repository is public and `private` was asked for, or if the
            revision is nothing that can be pushed to.
    """
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    api, ref = client(), ModelRef(repo_id=repo_id, revision=options.revision)
    user = whoami()
    with readable("Pushing"):
        only_reads = user.get("auth", {}).get("accessToken", {}).get("role") == "read"
    if only_reads:
        raise HubError(f"The token of {user['name']} can only read; pushing to {repo_id} needs one that can write.")
    try:
        with reaching("Pushing"):
            retry(lambda: api.auth_check(repo_id, write=not options.create_pr))
    except GatedRepoError as error:
        raise HubError(
            f"{repo_id}: gated. Accept its conditions on its page before you open a pull request, or name another "
            "repository with --push ORG/NAME."
        ) from error
    except RepositoryNotFoundError:
        _check_new(repo_id, options, user)
        return repo_id
    except HfHubHTTPError as error:
        if not _is_refusal(error):
            raise _answered(repo_id, error) from error
        if not _has_opened(ref, user):
            raise HubError(
                f"{user['name']} may not write to {repo_id}. Use a token with write access, name another repository "
                "with --push ORG/NAME, or open a pull request with --create-pr."
            ) from error
    found = read(ref, lambda: api.model_info(repo_id))
    if options.private:
        _check_private(repo_id, found.private)
    if options.revision is not None:
        refs = read(ref, lambda: api.list_repo_refs(repo_id, include_pull_requests=True))
        branches, tags = ({each.name for each in every} for every in (refs.branches, refs.tags))
        _check_revision(ref, options, branches, tags, {each.ref for each in refs.pull_requests or ()})
    return found.id if is_repo_id(found.id) else repo_id


def _is_refusal(error: HfHubHTTPError) -> bool:
    """True if the Hub has refused this user, and did not fail itself."""
    return error.response.status_code in (400, 401, 403)


def _answered(what: str, error: HfHubHTTPError) -> HubError:
    """The error of a Hub that failed."""
    text = (error.server_message or str(error).splitlines()[0]).rstrip(".")
    return HubError(f"{what}: the Hub answered {error.response.status_code}: {text}. Try again later.")


def _check_private(repo_id: str, private: bool | None) -> None:
    """Refuse to publish what was to be private."""
    if not private:
        raise HubError(
            f"{repo_id}: is public, and --private makes only new repositories private. Name another repository, make "
            "this one private in its settings, or leave --private out to publish."
        )


def check_apart(repo_id: str, options: PushOptions, inputs: Iterable[Source]) -> None:
    """Refuse a push that would take the place of one of the models that its content was made of.

    A repository may have several names and moves on, so the commits that were read are looked for in its history, too.
    Its other branches and pull requests can be pushed to.

    Raises:
        HubError: naming the model.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if options.create_pr:
        return
    ref, api = ModelRef(repo_id, options.revision), client()
    branch = options.revision or "main"

    def last_commit() -> str | None:
        try:
            return api.model_info(repo_id, revision=options.revision).sha
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None

    @cache
    def history(name: str) -> Set[str]:
        return {each.commit_id for each in read(ref, lambda: api.list_repo_commits(repo_id, revision=name))}

    @cache
    def others() -> Set[str]:
        refs = read(ref, lambda: api.list_repo_refs(repo_id, include_pull_requests=True))
        return {each.name for each in refs.branches if each.name != "main"} | {p.ref for p in refs.pull_requests or ()}

    def replaced(source: Source) -> bool:
        named = str(source.ref.repo_id).lower() == repo_id.lower()
        if source.sha == sha or (named and (source.ref.revision or "main") == branch):
            return True
        if source.sha is None or source.ref.repo_id is None:
            return False
        if source.sha in history("main"):  # where other branches begin
            return branch == "main"
        if branch != "main":
            return source.sha in history(branch)
        return named and not any(source.sha in history(name) for name in others())  # its history was rewritten

    sha = read(ref, last_commit)
    for source in inputs if sha is not None else ():
        if replaced(source):
            raise HubError(
                f"{repo_id}: is {source.label}, which this is made of, and a push would take its place. Push to "
                "another repository, to another branch with --revision NAME, or propose it with --create-pr."
            )


def _has_opened(ref: ModelRef, user: Mapping[str, Any]) -> bool:
    """True if the revision is a pull request that this user opened, who may push to it without writing elsewhere."""
    if (number := _pull_request(ref.revision)) is None:
        return False
    try:
        return bool(call(ref, lambda: client().get_discussion_details(str(ref.repo_id), number)).author == user["name"])
    except HubError:
        return False


def _pull_request(revision: str | None) -> int | None:
    """The number of the pull request that a revision is, None if it is none."""
    found = re.fullmatch(r"refs/pr/(\d{1,18})", revision or "", re.ASCII)
    return int(found[1]) if found else None


def _check_new(repo_id: str, options: PushOptions, user: Mapping[str, Any]) -> None:
    """Refuse a repository that does not exist and that this user may not create."""
    namespace = repo_id.split("/")[0]
    with readable("Pushing"):
        organisations = [org["name"] for org in user.get("orgs", ())]
    if namespace != user["name"] and namespace not in organisations:
        raise HubError(f"{user['name']} may not create {repo_id}: not a member of {namespace}.")
    if options.create_pr:
        raise HubError(f"{repo_id} does not exist (or is private), so no pull request can be opened on it.")
    if options.revision is not None:
        _check_revision(ModelRef(repo_id, options.revision), options, {"main"}, set(), set())


def _check_revision(
    ref: ModelRef, options: PushOptions, branches: Set[str], tags: Set[str], pull_requests: Set[str]
) -> None:
    """Refuse a revision that is no branch, cannot become one, and is no open pull request."""
    name = str(ref.revision)
    if name in branches or (name in pull_requests and not options.create_pr):
        return
    if options.create_pr:
        raise HubError(f"{ref}: --create-pr starts from a branch, and the repository has no branch {name!r}.")
    if name.startswith("refs/pr/"):
        raise HubError(f"{ref}: there is no such pull request. Open one with --create-pr, without --revision.")
    if name in tags or _COMMIT.fullmatch(name):
        kind = "tag" if name in tags else "commit"
        raise HubError(f"{ref}: a {kind} cannot be pushed to, nor what looks like one. Name a branch.")
    if not is_branch_name(name):
        raise HubError(f"{ref}: {name!r} cannot be the name of a branch.")
    if other := clashing(name, branches):
        raise HubError(f"{ref}: {name!r} cannot be the name of a branch, since there is a branch {other!r}.")


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
        with readable("Pushing"), reaching("Pushing"):
            user = dict(retry(lambda: client().whoami()))
            if not isinstance(user.get("name"), str):
                raise ValueError("it names no user")
            return user
    except HfHubHTTPError as error:
        if not _is_refusal(error):
            raise _answered("Pushing", error) from error
        raise HubError("The Hub does not accept this token: run `hf auth login`, or set HF_TOKEN.") from error


# Given a repository, the hashes of its files, and those that a push changes, what the push replaces besides.
Superseded = Callable[[Source, Mapping[str, str], Collection[str]], Replacement]


def push_folder(
    folder: Path,
    files: Mapping[str, tuple[str, str]],
    repo_id: str,
    options: PushOptions,
    *,
    message: str,
    superseded: Superseded,
) -> Pushed:
    """Commit files of a folder to a model repository, created if need be, as exactly one commit.

    Files that the repository holds already are not sent again.

    Args:
        folder: the folder.
        files: the names of its files that are pushed, and of each the names of its content (`content_names`).
        repo_id: the repository.
        options: how to push.
        message: the commit's message if the options have none.
        superseded: given the repository, the hashes of its files, as the Hub names their content, and those that are
            changed, returns those that the same commit deletes; it may raise HubError.

    Raises:
        HubError: if the Hub refuses; nothing is left half-pushed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    revision, api = options.revision, client()
    ref = ModelRef(repo_id=repo_id, revision=revision)
    number = _pull_request(revision)
    if not options.create_pr and number is None:
        # None lets an organisation's own rule make it private.
        call(ref, lambda: api.create_repo(repo_id, private=options.private or None, exist_ok=True))
        if revision is not None:
            call(ref, lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
    page = f"{api.endpoint}/{repo_id}"
    pull_request = None if number is None else f"{page}/discussions/{number}"
    attempts = 0

    def attempt() -> Pushed:
        # From the repository's present state: an attempt before may have succeeded without an answer.
        nonlocal attempts
        attempts += 1
        with readable(str(ref)):
            head = api.model_info(repo_id, revision=revision, files_metadata=True)
        if options.private:
            _check_private(repo_id, head.private)
        remote = {s.rfilename: str(s.lfs.sha256 if s.lfs else s.blob_id) for s in head.siblings or ()}
        changed = [name for name in files if remote.get(name) not in files[name]]
        replacement = superseded(Source(ref, head.sha, tuple(sorted(remote))), remote, changed)
        gone, warnings = sorted(replacement.deleted - files.keys()), replacement.warnings
        if not changed and not gone:
            return Pushed(repo_id, page, head.sha, pull_request, attempts > 1, warnings, revision)
        done = api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in changed),
                *(CommitOperationDelete(path_in_repo=name, is_folder=False) for name in gone),
            ],
            commit_message=options.commit_message or message,
            create_pr=options.create_pr,
            revision=revision,
            parent_commit=head.sha,
        )
        return Pushed(
            repo_id, page, done.oid, done.pr_url or pull_request, True, warnings, done.pr_revision or revision
        )

    try:
        with _bars():
            return call(ref, attempt)
    except (RuntimeError, ValueError, OSError) as error:  # the stock client's, after attempts of its own to upload
        why = " ".join(str(error.__cause__ or error).split()).rstrip(".") or type(error).__name__
        raise HubError(f"{ref}: the upload failed, and nothing was committed: {why}. Push again later.") from error


@contextlib.contextmanager
def _bars() -> Iterator[None]:
    """A context in which the stock client draws no bars where nobody watches them, unless its own variable says so."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if is_watched() or HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
