"""Read from the Hub: fix a revision to its commit, list models and files, fetch files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_lwmm.errors import CheckpointError, HubError
from hf_lwmm.hub.calls import client, raise_if_away, reaching, read, readable
from hf_lwmm.hub.card import README, card_metadata, read_card
from hf_lwmm.hub.concurrently import in_background
from hf_lwmm.hub.local_folder import file_of, files_of
from hf_lwmm.hub.refs import ModelRef

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo


_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """A model at one point in time: a Hub repository at a commit, or a local file or folder.

    `files` are the names of its files, and `card` is the metadata of its README, of which `notes` say what cannot be
    used. `sha` is None for local models. `name` replaces the reference in messages and reports if it is not empty.
    `cached` is True if offline mode is on, so that `files` are those in the cache alone.
    """

    ref: ModelRef
    sha: str | None
    files: tuple[str, ...]
    card: Mapping[str, Any] = field(default_factory=dict, repr=False)
    name: str = ""
    notes: tuple[str, ...] = field(default=(), repr=False)
    cached: bool = False

    @property
    def label(self) -> str:
        """A name that may be shown to anybody, with the first characters of the commit."""
        if self.name:
            return self.name
        if self.sha is None:
            return self.ref.shown
        files = ":" + "+".join(self.ref.files) if self.ref.files else ""
        return f"{self.ref.repo_id}@{self.sha[:7]}{files}"

    @property
    def exact(self) -> ModelRef:
        """The reference at its commit, by which no later one is read."""
        return self.ref.at(self.sha) if self.sha else self.ref

    def file_label(self, name: str) -> str:
        """Return what messages call one of its files: the model's label, and the file's name unless it ends with it."""
        label = self.label
        return label if label == name or label.endswith((f":{name}", f"/{name}")) else f"{label}: {name}"


@dataclass(frozen=True)
class ListedModel:
    """An entry of the Hub's list of models."""

    source: Source
    downloads: int


def resolve(ref: ModelRef) -> Source:
    """Fix a reference to a commit, and list its files.

    Raises:
        HubError: if the repository or the revision does not exist, is private or gated, or is not in the cache while
            the Hub cannot be reached.
    """
    if ref.path is not None:
        return _local_source(ref, ref.path)
    from huggingface_hub import is_offline_mode

    api, repo_id = client(), _repo_id(ref)

    def commit() -> str:
        return read(ref, lambda: api.resolve_revision(repo_id, revision=ref.revision)).resolved

    def listing() -> ModelInfo:
        return api.model_info(repo_id, revision=ref.revision)

    if is_offline_mode():
        return _cached_source(ref, commit())
    # To wait for one answer in place of two: what the revision lists is, as good as always, what its commit lists.
    asking = in_background(listing)
    sha = commit()
    listed = asking.result() if asking.exception() is None else None
    if listed is None or listed.sha != sha:
        # Where the Hub fails, the client takes the commit from its cache, an older one perhaps: only a listing is sure.
        with reaching(str(ref)):
            raise_if_away(asking.exception())
        listed = read(ref, listing)
    if ref.revision is not None and _COMMIT.fullmatch(ref.revision) and listed.sha != ref.revision:
        raise HubError(f"{ref}: a branch or a tag of this name hides the commit; it leads to {listed.sha}.")
    if listed.sha != sha:
        commit()  # for the client's cache, where offline mode finds it
    return _listed_source(ref, listed)


def list_models(query: Mapping[str, str], limit: int) -> list[ListedModel]:
    """List public models and those that the token may see, the most downloaded first.

    Args:
        query: what they have in common: `filter` (a tag), `search` (part of the name) and `pipeline_tag`, as in
            `huggingface_hub.HfApi.list_models`.
        limit: the largest number of models to list.

    Raises:
        HubError: if the Hub refuses or cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError

    properties: Any = ["cardData", "downloads", "sha", "siblings"]
    asked: dict[str, Any] = {**query, "sort": "downloads", "limit": limit, "expand": properties}
    with readable("Searching"), reaching("Searching"):
        try:
            found = list(client().list_models(**asked))
        except HfHubHTTPError as error:
            raise HubError(f"The Hub's list of models: {str(error).splitlines()[0]}") from error
    return [ListedModel(_listed_source(ModelRef(repo_id=info.id), info), info.downloads or 0) for info in found]


def fetch(source: Source, name: str) -> Path:
    """Return the local path of one file of a model, downloading it if it is not in the cache.

    Raises:
        HubError: if there is no such file, or the Hub cannot be reached.
        CheckpointError: if it is a link that leads out of a local model's folder.
    """
    if source.ref.path is not None:
        return file_of(source.ref.path, name) if source.ref.path.is_dir() else source.ref.path
    from huggingface_hub import hf_hub_download

    repo_id = _repo_id(source.ref)
    return Path(read(source.ref, lambda: hf_hub_download(repo_id, name, revision=source.sha), name))


def _repo_id(ref: ModelRef) -> str:
    assert ref.repo_id is not None, "a reference without a path names a repository"
    return ref.repo_id


def _local_source(ref: ModelRef, path: Path) -> Source:
    if path.is_file():
        return Source(ref, None, (path.name,))
    if not path.is_dir():
        raise CheckpointError(f"{path}: is neither a file nor a folder.")
    files = files_of(path)
    if README in files:
        file_of(path, README)
    return _described(Source(ref, None, files), path)


def _listed_source(ref: ModelRef, info: ModelInfo) -> Source:
    files = tuple(sorted(sibling.rfilename for sibling in info.siblings or ()))
    source = Source(ref, info.sha, files)
    if not hasattr(info.card_data, "__dict__"):
        return source
    card = card_metadata(vars(info.card_data), f"{source.label}, {README}")
    return replace(source, card=card.content, notes=card.notes)


def _cached_source(ref: ModelRef, sha: str) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # Its folder is what is wanted; with no file asked for, one that lacks some files of the repository will do.
        folder = Path(snapshot_download(_repo_id(ref), revision=sha, local_files_only=True, allow_patterns=[]))
    except LocalEntryNotFoundError:
        raise HubError(
            f"{ref}: not in the cache, and offline mode is on. Unset HF_HUB_OFFLINE to download it."
        ) from None
    files = tuple(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()))
    return _described(Source(ref, sha, files, cached=True), folder)


def _described(source: Source, folder: Path) -> Source:
    """The source with the metadata of the README in its folder."""
    card = read_card(folder / README, f"{source.label}, {README}")
    return replace(source, card=card.content, notes=card.notes)
