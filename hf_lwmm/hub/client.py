"""Everything that speaks to the Hub: fix a revision to its commit, list, fetch, check permission, commit.

Only the stock client is used, so HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the cache mean what they always do.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hf_lwmm.errors import HubError
from hf_lwmm.hub.refs import ModelRef, parse_ref
from hf_lwmm.options import Options, option

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_T = TypeVar("_T")
_ATTEMPTS = 5
_RETRIED = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Source:
    """A model fixed for good: a Hub repository at one commit, or a local file or folder.

    `files` are the names in it. `card` is the metadata of its README. `sha` is None for local models.
    """

    ref: ModelRef
    sha: str | None
    files: tuple[str, ...]
    card: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """As it may be shown to anybody, with a short sha."""
        if self.sha is None:
            return self.ref.shown
        files = ":" + "+".join(self.ref.files) if self.ref.files else ""
        return f"{self.ref.repo_id}@{self.sha[:7]}{files}"


@dataclass(frozen=True)
class PushOptions(Options):
    """How files are pushed to the Hub.

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
    """What a push did; `changed` is False if the repository held exactly these files already."""

    repo_id: str
    url: str
    commit: str | None
    pull_request: str | None
    changed: bool


def resolve(ref: ModelRef) -> Source:
    """Fix a reference to a commit and list its files.

    Raises:
        HubError: if the repository or revision does not exist, is private or gated, or the Hub cannot be reached
            and nothing is cached.
    """
    if ref.path is not None:
        return _local_source(ref, ref.path)
    api, repo_id = _api(), ref.repo_id
    assert repo_id is not None
    sha = _call(ref, lambda: api.resolve_revision(repo_id, revision=ref.revision)).resolved
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        return _cached_source(ref, sha)
    info = _call(ref, lambda: api.model_info(repo_id, revision=sha))
    files = tuple(sorted(sibling.rfilename for sibling in info.siblings or ()))
    return Source(ref, sha, files, dict(info.card_data.__dict__) if info.card_data else {})


def fetch(source: Source, name: str) -> Path:
    """A local copy of one file of a source, from the cache or downloaded; a broken download is resumed."""
    if source.ref.path is not None:
        return source.ref.path / name if source.ref.path.is_dir() else source.ref.path
    from huggingface_hub import hf_hub_download

    repo_id = source.ref.repo_id
    assert repo_id is not None
    return Path(_call(source.ref, lambda: hf_hub_download(repo_id, name, revision=source.sha), name))


def remote_header(source: Source, name: str) -> tuple[bytes, int, int] | None:
    """A remote safetensors file's header text, the byte where its data starts, and the data's size.

    None if the file is local or already in the cache, where it is quicker to open it.
    """
    if source.ref.path is not None:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import get_session, hf_raise_for_status

    repo_id = source.ref.repo_id
    assert repo_id is not None
    if is_offline_mode() or isinstance(try_to_load_from_cache(repo_id, name, revision=source.sha), str):
        return None
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repo_id, name, revision=source.sha)

    def read(first: int, last: int) -> tuple[bytes, int]:
        response = get_session().get(
            url, headers={**build_hf_headers(), "Range": f"bytes={first}-{last}"}, follow_redirects=True
        )
        hf_raise_for_status(response)
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return response.content[: last - first + 1], int(total) if total.isdigit() else len(response.content)

    start, size = _call(source.ref, lambda: read(0, 100_000), name)
    length = int.from_bytes(start[:8], "little")
    if length > size - 8:
        return start[8:], 8 + length, size - 8 - length  # the caller's check words this
    if length + 8 > len(start):
        start = start[:8] + _call(source.ref, lambda: read(8, 7 + length), name)[0]
    return start[8 : 8 + length], 8 + length, size - 8 - length


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
    """Find out, before any work, whether this user may push to a repository that may not exist yet.

    Raises:
        HubError: if not, or if there is no token.
    """
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    api = _api()
    user = whoami()
    try:
        _retry(lambda: api.auth_check(repo_id, write=not create_pr))
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
    """The user that the token belongs to. Raises HubError if there is no valid token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    if get_token() is None:
        raise HubError("Pushing needs a token: run `hf auth login`, or set HF_TOKEN.")
    try:
        return dict(_retry(lambda: _api().whoami()))
    except HfHubHTTPError as error:
        raise HubError("The Hub does not accept this token: run `hf auth login`, or set HF_TOKEN.") from error


def push_folder(folder: Path, files: Sequence[str], repo_id: str, options: PushOptions, *, message: str) -> Pushed:
    """Commit files of a folder to a model repository, created if need be, as exactly one commit.

    `message` is for the commit if the options have none.

    Raises:
        HubError: if the Hub refuses; nothing is left half-pushed, since a commit is all or nothing.
    """
    from huggingface_hub import CommitOperationAdd

    revision, create_pr = options.revision, options.create_pr
    api, ref = _api(), ModelRef(repo_id=repo_id, revision=revision)
    if not create_pr:
        _call(ref, lambda: api.create_repo(repo_id, private=options.private, exist_ok=True))
        if revision is not None:
            _call(ref, lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
    head = _call(ref, lambda: api.model_info(repo_id, revision=revision, files_metadata=True))
    remote = {s.rfilename: (s.lfs.sha256 if s.lfs else s.blob_id) for s in head.siblings or ()}
    changed = [name for name in files if remote.get(name) not in _content_ids(folder / name)]
    url = f"{api.endpoint}/{repo_id}"
    if not changed:
        return Pushed(repo_id, url, head.sha, None, changed=False)

    def commit() -> Any:
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in changed]
        return api.create_commit(
            repo_id,
            operations,
            commit_message=options.commit_message or message,
            create_pr=create_pr,
            revision=revision,
            parent_commit=head.sha,
        )

    done = _call(ref, commit)
    return Pushed(repo_id, url, done.oid, done.pr_url, changed=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stamp(path: Path) -> str:
    """What changes when a file, or any file in a folder, does: its name, size and time."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    text = "\n".join(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def _content_ids(path: Path) -> tuple[str, str]:
    """The two names that the Hub gives to content: SHA-256 for large files, git's blob id for the others."""
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            blob.update(block)
    return sha256(path), blob.hexdigest()


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="hf-lwmm")


def _local_source(ref: ModelRef, path: Path) -> Source:
    if path.is_file():
        return Source(ref, None, (path.name,))
    files = tuple(sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file() and ".cache" not in p.parts))
    return Source(ref, None, files, _card_metadata(path / "README.md"))


def _cached_source(ref: ModelRef, sha: str) -> Source:
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    assert ref.repo_id is not None
    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=ref.repo_id, repo_type="model") / "snapshots" / sha
    files = tuple(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()))
    if not files:
        raise HubError(f"{ref}: not in the cache, and offline mode is on. Unset HF_HUB_OFFLINE to download it.")
    return Source(ref, sha, files, _card_metadata(folder / "README.md"))


def _card_metadata(path: Path) -> Mapping[str, Any]:
    from huggingface_hub import ModelCard

    if not path.is_file():
        return {}
    try:
        return dict(ModelCard.load(path, ignore_metadata_errors=True).data.to_dict())
    except ValueError:
        return {}


def _retry(call: Callable[[], _T]) -> _T:
    """Try again what may pass with time: rate limits (as long as the Hub asks to wait), server errors, cut lines."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return call()
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            if status not in _RETRIED or attempt == _ATTEMPTS:
                raise
            asked = error.response.headers.get("Retry-After", "")
            delay = float(asked) if asked.isdigit() else 0.5 * 2**attempt
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            raise
        except _transport_errors():
            if attempt == _ATTEMPTS:
                raise
            delay = 0.5 * 2**attempt
        time.sleep(min(delay, 60))
    raise AssertionError


def _transport_errors() -> tuple[type[Exception], ...]:
    import httpx2

    return (httpx2.TransportError, ConnectionError, TimeoutError)


def _call(ref: ModelRef, call: Callable[[], _T], file: str | None = None) -> _T:
    with _translated(ref, file):
        return _retry(call)


@contextlib.contextmanager
def _translated(ref: ModelRef, file: str | None) -> Iterator[None]:
    """Say the client's errors in words that tell which model, and what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(f"{ref}: gated. Accept its conditions on its page, then log in with `hf auth login`.") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{ref}: no such model on the Hub, or it is private and this token may not read it. "
            "Check the name, or log in with `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{ref}: the repository has no revision {ref.revision!r}.") from error
    except (errors.LocalEntryNotFoundError, errors.RevisionResolutionError, errors.OfflineModeIsEnabled) as error:
        what = f"{ref}{f' ({file})' if file else ''}"
        raise HubError(f"{what}: not in the cache, and the Hub cannot be reached (offline mode?).") from error
    except errors.EntryNotFoundError as error:
        raise HubError(f"{ref}: has no file {file!r} at this revision.") from error
    except errors.HFValidationError as error:
        raise HubError(f"{ref}: not a valid model id: {error}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no")
        text = error.server_message or str(error).splitlines()[0]
        raise HubError(f"{ref}: the Hub answered {status}: {text}") from error
    except _transport_errors() as error:
        raise HubError(f"{ref}: the Hub cannot be reached ({error}). Check the connection and HF_ENDPOINT.") from error
