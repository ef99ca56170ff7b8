"""Values that requests and records may hold, and how a dataclass of them is made from JSON."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, StrictInt, TypeAdapter, ValidationError

from hf_lwmm.errors import DocumentError
from hf_lwmm.files.documents import shortened
from hf_lwmm.text import is_branch_name

_T = TypeVar("_T")
_LONGEST_PATH, _LONGEST_PART = 4096, 255  # bytes, as file systems have them
_ODD_PART = re.compile(r"(^|/)(\.{0,2}|\.[gG][iI][tT])(/|\Z)")
_ODD_LETTER = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029]")  # controls, and what ends lines


def is_name(text: str) -> bool:
    """Return True for the name of a user, an organisation or a repository, which is also a folder's."""
    return len(text) <= 96 and re.fullmatch(r"\w[\w.-]*", text, re.ASCII) is not None and ".." not in text


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"{shortened(text)} is no name of a user or a repository")
    return text


def is_repo_id(text: str) -> bool:
    """Return True for the id of a repository, `namespace/name`."""
    return text.count("/") == 1 and all(map(is_name, text.split("/")))


def _repo_id(text: str) -> str:
    if not is_repo_id(text):
        raise ValueError(f"{shortened(text)} is no repository id")
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{shortened(text)} is no SHA-256")
    return text


def _path(text: str) -> str:
    size = len(text.encode())
    long = size > _LONGEST_PART and any(len(part.encode()) > _LONGEST_PART for part in text.split("/"))
    if long or size > _LONGEST_PATH or _ODD_PART.search(text) or _ODD_LETTER.search(text):
        raise ValueError(f"{shortened(text)} is no path in a repository")
    return text


def _folder(text: str) -> str:
    return _path(text.rstrip("/"))


def _ref(text: str) -> str:
    if not is_branch_name(text):
        raise ValueError(f"{shortened(text)} is no name of a branch or a tag")
    return text


Name = Annotated[str, AfterValidator(_name)]
RepoId = Annotated[str, AfterValidator(_repo_id)]
RepoType = Literal["model", "dataset", "space"]
Sha256 = Annotated[str, AfterValidator(_sha256)]
GitId = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
ShortGitId = Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")]
FilePath = Annotated[str, AfterValidator(_path)]
FolderPath = Annotated[str, AfterValidator(_folder)]
RefName = Annotated[str, AfterValidator(_ref)]
Size = Annotated[StrictInt, Field(ge=0, lt=1 << 63)]
MAX_TITLE = 1000  # characters of a discussion's title
Title = Annotated[str, Field(max_length=10_000)]


def shaped(shape: type[_T], content: Any, where: str) -> _T:
    """Return a value of a type, most often a dataclass, with the content of a JSON text; `where` names the text.

    Raises:
        DocumentError: if something is missing or is not of its type. Entries that the type does not have are ignored.
    """
    hint: Any = shape
    try:
        value: _T = _adapter(hint).validate_python(content)
        return value
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) if is_name(str(part)) else shortened(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise DocumentError(f"{where}: {place + ': ' if place else ''}{message}.") from None


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def now() -> str:
    """Return the time as the Hub writes it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
