"""What tests of files on the Hub share: a content, what the cache holds of it, and what goes over the wire."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from hf_lwmm.hub import RemoteFile
from hf_lwmm.localhub import LocalHub

MIB = 1 << 20
CONTENT = np.random.default_rng(0).bytes(4 * MIB + 1234)
OTHER = CONTENT[::-1]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = r"/model\.bin$"
SCATTERED = [(start, start + 70_000) for start in range(10_000, 4 * MIB, 400_000)]
MOST = [(0, int(0.6 * len(CONTENT)))]


def left(folder: Path) -> list[str]:
    """The contents, whole or not, that the cache holds of a repository."""
    return sorted(path.name.replace(SHA256, "sha256") for path in (folder / "blobs").glob("*"))


def read(file: RemoteFile, start: int, end: int) -> bytes:
    buffer = bytearray(end - start)
    file.read(start, memoryview(buffer))
    return bytes(buffer)


def ignored(count: int) -> None:
    """Take no notice of progress."""


class Wire:
    """The bytes of answers, and the requests, since it was made."""

    def __init__(self, hub: LocalHub) -> None:
        self._line, self._bytes, self._requests = hub.throttle, hub.throttle.bytes_sent, hub.throttle.requests

    @property
    def bytes(self) -> int:
        return self._line.bytes_sent - self._bytes

    @property
    def requests(self) -> int:
        return self._line.requests - self._requests
