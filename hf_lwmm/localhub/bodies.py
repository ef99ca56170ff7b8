"""Read the bodies of requests: bounded in size and time, and as dataclasses that hold nothing malformed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qs

from pydantic import BeforeValidator, Field, StrictBool
from starlette.requests import Request

from hf_lwmm.files.documents import MAX_SIZE, parse_json
from hf_lwmm.localhub.records import StoreError
from hf_lwmm.localhub.values import (
    MAX_TITLE,
    FilePath,
    FolderPath,
    Name,
    RefName,
    RepoType,
    Sha256,
    ShortGitId,
    Size,
    Title,
    shaped,
)
from hf_lwmm.localhub.workers import aside, sender

_T = TypeVar("_T")
_WHERE = "The request's body"
GRACE, SLOWEST = 30.0, 10_000  # a body may take so many seconds, and one more for each so many bytes that have come
_LONGEST, _LONGEST_OF_STRANGERS = 4 * 2**20, 2**20  # bytes of a body, but for uploads and commits
_LONGEST_COMMIT, _MOST_OPERATIONS = 4 * 2**30, 100_000


def _decoded(text: Any) -> bytes:
    """Bytes written in base64."""
    if not isinstance(text, str):
        raise ValueError("must be a text in base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"is no base64: {error}") from None


def _content(value: Any) -> Any:
    """The content of a small file as bytes, whether it came as base64 or as plain text."""
    if not isinstance(value, dict) or value.get("encoding") == "base64" or not isinstance(value.get("content"), str):
        return value
    return {**value, "content": base64.b64encode(value["content"].encode()).decode()}


Base64 = Annotated[bytes, BeforeValidator(_decoded)]
Flag = StrictBool | None
Visibility = Literal["public", "private", "protected"] | None


@dataclass(frozen=True)
class NamedRepo:
    """The repository to delete, or with a visibility the one to create."""

    name: Name
    organization: Name | None = None
    type: RepoType | None = None
    private: Flag = None
    visibility: Visibility = None


@dataclass(frozen=True)
class Settings:
    private: Flag = None
    visibility: Visibility = None
    gated: Literal["auto", "manual", False] | None = None


@dataclass(frozen=True)
class Announced:
    """A file that will be sent, and how it begins."""

    path: FilePath
    size: Size
    sample: Base64 = b""


@dataclass(frozen=True)
class Preupload:
    files: tuple[Announced, ...]


@dataclass(frozen=True)
class LargeObject:
    oid: Sha256
    size: Size


@dataclass(frozen=True)
class Batch:
    operation: Literal["upload"]
    objects: tuple[LargeObject, ...]


@dataclass(frozen=True)
class Header:
    """The first line of a commit's body."""

    summary: Title = ""
    parentCommit: ShortGitId | None = None


@dataclass(frozen=True)
class SmallFile:
    path: FilePath
    content: Base64


@dataclass(frozen=True)
class LargeFile:
    path: FilePath
    oid: Sha256
    size: Size | None = None


@dataclass(frozen=True)
class DeletedFile:
    path: FilePath


@dataclass(frozen=True)
class DeletedFolder:
    path: FolderPath


Operation = Header | SmallFile | LargeFile | DeletedFile | DeletedFolder
_OPERATIONS: dict[str, Any] = {
    "header": Header,
    "file": Annotated[SmallFile, BeforeValidator(_content)],
    "lfsFile": LargeFile,
    "deletedFile": DeletedFile,
    "deletedFolder": DeletedFolder,
}


@dataclass(frozen=True)
class _Line:
    key: Literal["header", "file", "lfsFile", "deletedFile", "deletedFolder"]
    value: Any


@dataclass(frozen=True)
class PathsInfo:
    paths: tuple[str, ...]
    expand: StrictBool = False


@dataclass(frozen=True)
class Tag:
    tag: RefName


@dataclass(frozen=True)
class Branch:
    startingPoint: str | None = None


@dataclass(frozen=True)
class NewDiscussion:
    title: Annotated[str, Field(max_length=MAX_TITLE)]
    pull_request: Annotated[Flag, Field(alias="pullRequest")] = None


@dataclass(frozen=True)
class Card:
    content: str


async def blocks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yield a body piece by piece.

    Raises:
        StoreError: 413 if it has more than `limit` bytes, 408 if it comes too slowly.
    """
    too_long = StoreError(413, f"The request's body is longer than {limit:,} bytes.")
    if int(request.headers.get("Content-Length", 0)) > limit:
        raise too_long
    received, waited = 0, 0.0
    stream = request.stream()
    while True:
        begun = time.monotonic()
        try:
            block = await asyncio.wait_for(anext(stream), GRACE + received / SLOWEST - waited)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise StoreError(408, "The request's body comes too slowly.") from None
        waited += time.monotonic() - begun
        received += len(block)
        if received > limit:
            raise too_long
        yield block


async def parsed(request: Request, shape: type[_T]) -> _T:
    """Return a JSON body as a dataclass; an empty one as an object without entries.

    Raises:
        StoreError: as for `blocks`.
        DocumentError: if it is malformed.
    """
    content = await _body(request)
    return await aside(request, lambda: shaped(shape, parse_json(content or b"{}", _WHERE), _WHERE))


async def paths_info(request: Request) -> PathsInfo:
    """Return a list of paths, which comes as JSON or as a form. Raises as `parsed`."""
    if "json" in request.headers.get("Content-Type", ""):
        return await parsed(request, PathsInfo)
    try:
        fields = parse_qs((await _body(request)).decode(), max_num_fields=_MOST_OPERATIONS)
    except ValueError as error:  # no UTF-8, or too many
        raise StoreError(400, f"{_WHERE}: is no form: {error}.") from None
    return PathsInfo(tuple(fields.get("paths", ())), fields.get("expand", [""])[0].lower() == "true")


async def operations(request: Request) -> AsyncIterator[list[Operation]]:
    """Yield what a commit does, some at a time; its body has a JSON object on each line. Raises as `parsed`."""
    number = 0
    async for lines in _lines(request):
        if number + len(lines) > _MOST_OPERATIONS:
            raise StoreError(413, f"A commit has at most {_MOST_OPERATIONS:,} operations. Make several.")
        yield await aside(request, _operations, lines, number + 1)
        number += len(lines)


def _operations(lines: list[bytes], first: int) -> list[Operation]:
    return [_operation(line, number) for number, line in enumerate(lines, first)]


def _operation(line: bytes, number: int) -> Operation:
    where = f"{_WHERE}, line {number}"
    entry = shaped(_Line, parse_json(line, where), where)
    operation: Operation = shaped(_OPERATIONS[entry.key], entry.value, where)
    return operation


async def _lines(request: Request) -> AsyncIterator[list[bytes]]:
    begun = bytearray()
    async for block in blocks(request, _LONGEST_COMMIT):
        first, *more = block.split(b"\n")
        begun += first
        if more:
            yield [bytes(begun), *more[:-1]]
            begun = bytearray(more[-1])
        if len(begun) > MAX_SIZE:
            raise StoreError(413, f"A line of the commit is longer than {MAX_SIZE:,} bytes. Send large files with LFS.")
    if begun:
        yield [bytes(begun)]


async def _body(request: Request) -> bytes:
    limit = _LONGEST if sender(request) is not None else _LONGEST_OF_STRANGERS
    return b"".join([block async for block in blocks(request, limit)])
