"""Read safetensors files: headers with suspicion, bytes in place."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hf_lwmm.checkpoints.dtypes import BITS, byte_count
from hf_lwmm.errors import CheckpointError, DocumentError
from hf_lwmm.files.byte_file import ByteFile, read_bytes
from hf_lwmm.files.documents import as_mapping, parse_json, shortened

MAX_HEADER = 100_000_000  # the format's own limit, in bytes
_MOST_DIMENSIONS = 64
_MOST_ELEMENTS = 1 << 48
MAX_SHARD_SIZE = 50_000_000_000  # bytes, the Hub's limit for one file


@dataclass(frozen=True)
class TensorInfo:
    """Type (safetensors name) and shape of a stored tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return byte_count(self.dtype, self.count)


@dataclass(frozen=True)
class SafetensorsHeader:
    """The header of a file: tensors, the byte at which each starts in the file, and free metadata."""

    tensors: Mapping[str, TensorInfo]
    starts: Mapping[str, int]
    metadata: Mapping[str, str]


def read_header(file: ByteFile) -> SafetensorsHeader:
    """Read and check the header of a file.

    Raises:
        CheckpointError: if the file is truncated or corrupt: header beyond the file, bad JSON, offsets that
            overlap, leave holes or lie outside the file, sizes that contradict shapes, metadata that is no map of text.
    """
    length = int.from_bytes(read_bytes(file, 0, min(8, file.size)), "little")
    if file.size < 8 or length > min(file.size - 8, MAX_HEADER):
        raise CheckpointError(
            f"{file.name}: not a complete safetensors file: its header should be {length:,} bytes long, the whole "
            f"file has {file.size:,}. Download or save it again."
        )
    return _parse(read_bytes(file, 8, length), file.name, 8 + length, file.size - 8 - length)


def _parse(raw: bytes, name: str, data_start: int, data_size: int) -> SafetensorsHeader:
    """A header's JSON text, checked against the size of the data behind it."""
    try:
        entries = dict(as_mapping(parse_json(raw, "its JSON", max_size=MAX_HEADER), "its JSON"))
        metadata = _metadata(entries.pop("__metadata__", None))
        spans = {key: _span(entry) for key, entry in entries.items()}
    except (DocumentError, ValueError, TypeError, KeyError) as error:
        reason = str(error).rstrip(".")
        raise CheckpointError(f"{name}: corrupt safetensors header ({reason}). Download or save it again.") from None
    end = 0
    for key, (info, begin, stop) in sorted(spans.items(), key=lambda item: (item[1][1], item[1][2])):
        if begin != end or stop - begin != info.nbytes:
            raise CheckpointError(
                f"{name}: corrupt safetensors file: tensor {key!r} ({info.dtype} {list(info.shape)}) claims bytes "
                f"{begin:,} to {stop:,}, but should have {info.nbytes:,} bytes from {end:,} on."
            )
        end = stop
    if end != data_size:
        raise CheckpointError(
            f"{name}: truncated or padded safetensors file: its tensors need {end:,} bytes, it has {data_size:,}. "
            "Download or save it again."
        )
    return SafetensorsHeader(
        {key: info for key, (info, _, _) in spans.items()},
        {key: data_start + begin for key, (_, begin, _) in spans.items()},
        metadata,
    )


def _metadata(found: Any) -> Mapping[str, str]:
    """The free metadata, by the rule of the safetensors library: nothing, or texts by name."""
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"__metadata__ must hold texts by name, not {shortened(found)}")
    return found


def _span(entry: Any) -> tuple[TensorInfo, int, int]:
    dtype, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in BITS:
        raise ValueError(f"unknown type {shortened(dtype)}")
    if any(type(number) is not int or number < 0 for number in (*shape, begin, stop)):
        raise ValueError("sizes and offsets must be natural numbers")
    if len(shape) > _MOST_DIMENSIONS or math.prod(max(size, 1) for size in shape) > _MOST_ELEMENTS:
        raise ValueError("a shape that no file has room for")
    info = TensorInfo(dtype, tuple(shape))
    if info.count * BITS[dtype] % 8:
        raise ValueError(f"{info.count:,} elements of {dtype} end inside a byte")
    return info, begin, stop


def encode_header(tensors: Mapping[str, TensorInfo]) -> tuple[bytes, dict[str, int]]:
    """Return the first bytes of a file with these tensors, and the byte at which each tensor starts.

    Order, padding and spelling are those of the safetensors library (larger element types first, then by
    name; `format: pt`), so that a file written from them equals the one that it would write.
    """
    order = sorted(tensors, key=lambda name: (-BITS[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end, starts = 0, {}
    for name in order:
        info = tensors[name]
        starts[name] = end
        end += info.nbytes
        header[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [starts[name], end]}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    first = len(raw).to_bytes(8, "little") + raw
    return first, {name: len(first) + start for name, start in starts.items()}


class SafetensorsReader:
    """Read bytes of the tensors of a safetensors file by position; several threads may do so at once."""

    def __init__(self, file: ByteFile, header: SafetensorsHeader) -> None:
        self._file, self._header = file, header

    def read(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from its byte `start` on.

        Raises:
            CheckpointError: if the file is closed, or became shorter.
        """
        self._file.read(self._header.starts[name] + start, buffer)

    def spans(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """Return the bytes of the file, first and one past the last, in which tensors lie."""
        header = self._header
        return sorted((header.starts[name], header.starts[name] + header.tensors[name].nbytes) for name in names)

    def renamed(self, names: Mapping[str, str]) -> SafetensorsReader:
        """Return a reader of the tensors of `names`, which has their present names by their new ones."""
        tensors = {name: self._header.tensors[old] for name, old in names.items()}
        starts = {name: self._header.starts[old] for name, old in names.items()}
        return SafetensorsReader(self._file, replace(self._header, tensors=tensors, starts=starts))
