"""Records as JSON files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from hf_lwmm.errors import DocumentError
from hf_lwmm.files.documents import MAX_SIZE
from hf_lwmm.localhub.disk import Disk
from hf_lwmm.localhub.records import DamagedError, StoreError
from hf_lwmm.localhub.values import shaped

_T = TypeVar("_T")


def read_record(disk: Disk, shape: type[_T], path: Path) -> _T:
    """Return a record from its file. Raises DamagedError."""
    try:
        return shaped(shape, disk.json(path), str(path.relative_to(disk.root)))
    except DocumentError as error:
        raise DamagedError(str(error)) from None


def as_json(record: Any) -> bytes:
    """Return a dataclass, or a list of them, as it is written. Raises StoreError (413) if it is too large."""
    content = json.dumps(list(map(asdict, record)) if isinstance(record, list) else asdict(record)).encode()
    if len(content) > MAX_SIZE:
        raise StoreError(413, f"A repository's files or refs take no more than {MAX_SIZE:,} bytes of JSON.")
    return content
