"""Hash files: their content, the names that the Hub gives to content, and a cheap sign of change."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from hf_lwmm.errors import CheckpointError
from hf_lwmm.files.walking import files_below
from hf_lwmm.hub.concurrently import concurrently

_K = TypeVar("_K")
# Bytes that are read at a time. After each block a thread may wait for others that run Python, for as long as two take.
_BLOCK = 1 << 22
_AT_A_TIME = 2 if (os.cpu_count() or 1) > 3 else 1  # files; a merge goes on beside it


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises CheckpointError if the file cannot be read."""
    digest = hashlib.sha256()
    with _opened(path) as (_, blocks):
        for block in blocks:
            digest.update(block)
    return digest.hexdigest()


def content_names(path: Path) -> tuple[str, str]:
    """Return what the Hub may call the content of a file: its SHA-256 if it is large, git's name otherwise.

    That name is the SHA-1 of a short header and the content. Both are in hexadecimal.

    Raises:
        CheckpointError: if the file cannot be read.
    """
    with _opened(path) as (size, blocks):
        large, small = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        for block in blocks:
            large.update(block)
            small.update(block)
    return large.hexdigest(), small.hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, Iterator[memoryview]]]:
    """The size of a file, and its content in blocks, of which each takes the place of the last in memory."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            buffer = memoryview(bytearray(min(_BLOCK, size)))
            yield size, (buffer[:count] for count in iter(lambda: file.readinto(buffer), 0))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}.") from None


def file_hashes(paths: Mapping[_K, Path]) -> dict[_K, str]:
    """Return the SHA-256 of each file, in hexadecimal, under the same keys; few are read at a time.

    The threads that read are daemons: a process that ends does not wait for them.

    Raises:
        CheckpointError: if a file cannot be read.
    """
    left = iter(tuple(paths.items()))  # each thread takes the next one

    def some() -> dict[_K, str]:
        return {key: sha256(path) for key, path in left}

    found = {key: digest for part in concurrently([some] * _AT_A_TIME) for key, digest in part.result().items()}
    return {key: found[key] for key in paths}


def stamp(path: Path) -> str:
    """Return a text that changes when a file, or any file in a folder, changes its name, size or time."""
    files = [path] if path.is_file() else files_below(path)
    text = "\n".join(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()
