"""Read `org/name[@revision][:path/in/repo[+path...]]` and local paths into a `ModelRef`; a path may be a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from hf_lwmm.errors import RefError

_REPO_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$|^[A-Za-z0-9][\w.-]*$")


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
    by `+`, or a folder, and a local file or folder (optionally `folder:path`). A path that
    exists is local, as in transformers.

    Raises:
        RefError: if the text is not one of these, or names a path outside the repository.
    """
    if isinstance(text, ModelRef):
        return text
    text = str(text).strip()
    if not text:
        raise RefError("A model reference is empty. Give `org/name`, or a local file or folder.")
    if (local := _local(text)) is not None:
        return local
    repo, colon, files = text.partition(":")
    if repo.startswith(("/", ".", "~")):
        raise RefError(f"{text}: there is no such file or folder.")
    repo_id, at, revision = repo.partition("@")
    if (at and not revision) or (colon and not files):
        raise RefError(f"{text}: nothing follows the last '@' or ':'. Write org/name@revision:path/in/repo.")
    if not _REPO_ID.match(repo_id) or ".." in repo_id or "--" in repo_id:
        raise RefError(f"{text}: neither a local path nor a Hub model id such as org/name or org/name@revision:file.")
    return ModelRef(repo_id=repo_id, revision=revision or None, files=_split_files(files, text))


def _local(text: str) -> ModelRef | None:
    path = Path(text).expanduser()
    if path.exists():
        return ModelRef(path=path)
    folder, colon, files = text.rpartition(":")
    if colon and folder and Path(folder).expanduser().is_dir():
        return ModelRef(path=Path(folder).expanduser(), files=_split_files(files, text))
    return None


def _split_files(files: str, text: str) -> tuple[str, ...]:
    names = tuple(name.rstrip("/") or name for name in files.split("+")) if files else ()
    for name in names:
        check_inside(name, text)
    return names


def check_inside(name: str, where: str) -> None:
    """Refuse a file name that could lead out of its repository; `where` begins the message.

    Raises:
        RefError: for absolute names, `..`, backslashes, colons and empty names.
    """
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in name:
        raise RefError(f"{where}: the file name {name!r} does not stay inside the repository.")
