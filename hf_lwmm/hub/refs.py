"""Read `org/name[@revision][:path/in/repo[+path...]]`, addresses of the Hub and local paths into a `ModelRef`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from hf_lwmm.errors import RefError
from hf_lwmm.files.nearest import or_nearest

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_NO_REVISION = re.compile(r"[\s~^:?*\[\\]|\.\.|^/|/$|//")  # none of these is in the name of a branch or a tag
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
# The path of an address: a repository, or it at a revision, or a file or folder in it.
_PAGE = re.compile(
    r"(?P<repo>[^/]+(?:/[^/]+)?)"
    r"(?:/(?P<view>tree|blob|resolve|raw|commit)/(?P<revision>refs/pr/\d+|[^/]+)(?:/(?P<file>.+))?)?"
)


@dataclass(frozen=True)
class ModelRef:
    """A reference to a model: a Hub repository at a revision, or a local file or folder.

    Exactly one of `repo_id` and `path` is set. `files` are the files inside it that the reference names; several files
    together make up one model (`org/fada:extractor.pth+classifier.pth`), and one folder holds one
    (`org/run:checkpoint-500`).
    """

    repo_id: str | None = None
    revision: str | None = None
    path: Path | None = None
    files: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """True for a local file or folder."""
        return self.path is not None

    @property
    def name(self) -> str:
        """A short name: `name` for `org/name`, and a local path without its folders and its suffix."""
        if self.repo_id is not None:
            return self.repo_id.split("/")[-1]
        assert self.path is not None
        path = self.path.resolve()
        return path.stem if path.is_file() else path.name

    @property
    def merge_name(self) -> str:
        """The name of a merge with this model as its anchor, where none is given."""
        return f"{self.name}-lwmm"

    @property
    def shown(self) -> str:
        """A text that may be shown to anybody: of a local path it has only the last part."""
        files = ":" + "+".join(self.files) if self.files else ""
        if self.repo_id is not None:
            return self.repo_id + (f"@{self.revision}" if self.revision else "") + files
        assert self.path is not None
        return self.path.resolve().name + files

    def of(self, *files: str) -> ModelRef:
        """Return a reference to other files of the same repository or folder."""
        return replace(self, files=files)

    def at(self, sha: str) -> ModelRef:
        """Return the same model at a commit."""
        return ModelRef(repo_id=self.repo_id, revision=sha, files=self.files)

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path) + (":" + "+".join(self.files) if self.files else "")
        return self.shown


Ref = str | Path | ModelRef  # what users may pass to name a model


def parse_ref(text: Ref) -> ModelRef:
    """Read a model reference.

    Accepts `org/name`, `org/name@revision`, `org/name@revision:path/in/repo`, where the path is a file, several joined
    by `+`, or a folder; the address of one of these on the Hub, with or without its host; and a local file or folder
    (optionally `folder:path`).
    A path that exists is local, as in transformers; around other references spaces have no meaning.

    Raises:
        RefError: if the text is not one of these, or names a path outside the repository.
    """
    if isinstance(text, ModelRef):
        return text
    text = str(text) if os.path.exists(text) else str(text).strip()  # noqa: PTH110  (pathlib's fails for long texts)
    if not text:
        raise RefError("A model reference is empty. Give `org/name`, or a local file or folder.")
    return _local(text) or parse_hub_ref(text)


def parse_hub_ref(text: str) -> ModelRef:
    """Read a reference as `parse_ref` does, but to a model on the Hub, whatever is on this machine.

    Raises:
        RefError: if the text is no such reference.
    """
    if re.match("https?://", text, re.IGNORECASE):
        return _of_address(text)
    if text.partition("/")[0].lower() in _HOSTS:
        return _of_address(f"https://{text}")
    if (page := _PAGE.fullmatch(text)) and page["view"] and is_repo_id(page["repo"]):
        return _of_page(page, text)
    if re.match("file:/", text, re.IGNORECASE):
        raise RefError(f"{text}: an address of a file. Give its plain path: {unquote(_split(text).path)}")
    if re.match("[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        raise RefError(f"{text}: not an address of the Hub. Name a model of it as org/name, or give a local path.")
    repo, colon, files = text.partition(":")
    if repo.startswith(("/", ".", "~")) or re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        raise RefError(f"{text}: there is no such file or folder.{or_nearest(text)}")
    repo_id, at, revision = repo.partition("@")
    if (at and not revision) or (colon and not files):
        raise RefError(f"{text}: nothing follows the last '@' or ':'. Write org/name@revision:path/in/repo.")
    if not is_repo_id(repo_id):
        raise RefError(
            f"{text}: neither a local path nor a Hub model id such as org/name or org/name@revision:file."
            f"{or_nearest(text)}"
        )
    return ModelRef(repo_id, _revision(revision, text), files=_split_files(files, text))


def is_repo_id(text: str) -> bool:
    """Return True for a text that can be the name of a repository of the Hub."""
    return _REPO_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def _revision(text: str, where: str) -> str | None:
    """A revision, of which addresses write a slash as %2F."""
    revision = re.sub("%2f", "/", text, flags=re.IGNORECASE)
    if _NO_REVISION.search(revision) or not revision.isprintable():
        raise RefError(f"{where}: {revision!r} is not the name of a branch, a tag, a commit or a pull request.")
    return revision or None


def data_set_name(text: str) -> str:
    """Return `org/name` or `org/name@revision` for the address of a data set on the Hub, and any other text as it is.

    Raises:
        RefError: for an address of anything else, or of another site.
    """
    if text.partition("/")[0].lower() in _HOSTS:
        text = f"https://{text}"
    if not re.match("https?://", text, re.IGNORECASE):
        return text
    path = _path_on_hub(text, "Name a data set of it as org/name, or download it and give its folder.").strip("/")
    found = _PAGE.fullmatch(path.removeprefix("datasets/"))
    if not path.startswith("datasets/") or found is None or found["file"] or not is_repo_id(found["repo"]):
        raise RefError(f"{text}: not the address of a data set. Write org/name or org/name@revision.")
    return _of_page(found, text).shown


def _of_address(text: str) -> ModelRef:
    """A reference from an address of the Hub."""
    path = _path_on_hub(text, "Name a model of it as org/name, or download the file and give its path.")
    found = _PAGE.fullmatch(path.strip("/"))
    if path.startswith(("/datasets/", "/spaces/")) or found is None or not is_repo_id(found["repo"]):
        raise RefError(f"{text}: not the address of a model, or of a file of one. Write org/name@revision:file.")
    return _of_page(found, text)


def _path_on_hub(text: str, remedy: str) -> str:
    """The path of an address of the Hub."""
    from huggingface_hub import constants

    address, endpoint = _split(text), _split(constants.ENDPOINT)
    if address.netloc == endpoint.netloc:
        return address.path.removeprefix(endpoint.path.rstrip("/"))
    if address.hostname not in _HOSTS:
        raise RefError(f"{text}: not an address of the Hub ({constants.ENDPOINT}). {remedy}")
    return address.path


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError as error:  # an odd host
        raise RefError(f"{text}: not an address ({error}).") from None


def _of_page(found: re.Match[str], text: str) -> ModelRef:
    """A reference from the path of an address, such as org/name/blob/main/model.safetensors."""
    revision, file = unquote(found["revision"] or ""), unquote(found["file"] or "").rstrip("/")
    if file or found["view"] in ("blob", "resolve", "raw"):
        check_inside(file, text)
    return ModelRef(found["repo"], _revision(revision, text), files=(file,) if file else ())


def _local(text: str) -> ModelRef | None:
    folder, colon, files = text.rpartition(":")
    try:
        path = Path(text).expanduser()
        if path.exists():
            return ModelRef(path=path)
        if colon and folder and (path := Path(folder).expanduser()).is_dir():
            return ModelRef(path=path, files=_split_files(files, text))
    except (OSError, RuntimeError):  # a name that is too long, or a home that nobody has
        return None
    return None


def _split_files(files: str, text: str) -> tuple[str, ...]:
    names = tuple(name.rstrip("/") or name for name in files.split("+")) if files else ()
    for name in names:
        check_inside(name, text)
    return names


def check_inside(name: str, where: str) -> None:
    """Refuse a file name that could lead out of its repository; `where` begins the message.

    Raises:
        RefError: for absolute names, `..`, backslashes, colons, empty names, and characters that do not print.
    """
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not name.isprintable():
        raise RefError(f"{where}: the file name {name!r} does not stay inside the repository.")
