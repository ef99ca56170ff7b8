"""Hash files, several at a time."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from hf_lwmm import hub

_K = TypeVar("_K")


def file_hashes(paths: Mapping[_K, Path]) -> dict[_K, str]:
    """Return the SHA-256 of each file, in hexadecimal, under the same keys."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(paths, pool.map(hub.sha256, paths.values()), strict=True))
