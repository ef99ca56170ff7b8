"""Torch files made by hand, byte by byte and without torch: those of old versions, damaged ones and hostile ones."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from hf_lwmm.checkpoints.weight_file import WeightFile, open_weight_file, unwrapped_files
from hf_lwmm.errors import CheckpointError
from hf_lwmm.files.byte_file import LocalFile

ITEMS = {"Float": 4, "Half": 2, "Double": 8, "Long": 8, "Byte": 1}


@dataclass
class Named:
    """A class or function that a pickle names, which need not exist."""

    module: str
    name: str

    def __call__(self) -> None: ...  # the standard pickler wants it so


@dataclass
class Made:
    """An object that a pickle makes: by a call, with what is set on it then."""

    cls: Any
    arguments: tuple[Any, ...] = ()
    state: Any = None
    entries: Mapping[Any, Any] = field(default_factory=dict)

    def __call__(self) -> None: ...


@dataclass
class Kept:
    """A persistent id: a value that a pickle keeps outside of itself."""

    id: Any

    def __call__(self) -> None: ...


class _Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def persistent_id(self, value: Any) -> Any:
        return value.id if isinstance(value, Kept) else None

    def _save_named(self, value: Named) -> None:
        if self.proto >= 4:
            self.save(value.module)
            self.save(value.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        self.memoize(value)

    def _save_made(self, value: Made) -> None:
        items = iter(value.entries.items()) if value.entries else None
        self.save_reduce(value.cls, value.arguments, value.state, None, items, obj=value)

    dispatch[Named], dispatch[Made] = _save_named, _save_made


def pickled(value: Any, protocol: int = 2) -> bytes:
    """A pickle of plain values, `Named`, `Made` and `Kept`."""
    file, limit = io.BytesIO(), sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        _Pickler(file, protocol).dump(value)
    finally:
        sys.setrecursionlimit(limit)
    return file.getvalue()


def ordered(entries: Mapping[Any, Any]) -> Made:
    return Made(Named("collections", "OrderedDict"), (), None, entries)


def storage(key: str, count: int, kind: str = "Float", *view: Any) -> Kept:
    return Kept(("storage", Named("torch", f"{kind}Storage"), key, "cpu", count, *view))


def tensor(kept: Any, shape: tuple[Any, ...], strides: tuple[Any, ...] = (), offset: Any = 0) -> Made:
    strides = strides or tuple(_steps(shape))
    return Made(Named("torch._utils", "_rebuild_tensor_v2"), (kept, offset, shape, strides, False, ordered({})))


def _steps(shape: tuple[int, ...]) -> list[int]:
    steps = [1]
    for size in shape[:0:-1]:
        steps.append(steps[-1] * size)
    return steps[::-1][: len(shape)]


def module(parameters: Any = None, modules: Any = None, buffers: Any = None, **more: Any) -> Made:
    """A module as torch pickles it."""
    state = {"training": True, "_parameters": ordered(parameters or {}), "_buffers": ordered(buffers or {}), **more}
    state["_modules"] = ordered(modules or {})
    return Made(Named("somewhere.networks", "Network"), (), state)


def zipped(
    tree: Any,
    blocks: Mapping[str, bytes],
    *,
    protocol: int = 2,
    root: str = "archive",
    byteorder: str | None = "little",
    by_name: bool = False,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """A zip archive as torch writes it; `tree` may be the bytes of a pickle."""
    records = {"data.pkl": tree if isinstance(tree, bytes) else pickled(tree, protocol)}
    if byteorder is not None:
        records["byteorder"] = byteorder.encode()
    records |= {f"data/{key}": content for key, content in blocks.items()} | {"version": b"3\n"}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in sorted(records) if by_name else records:
            archive.writestr(zipfile.ZipInfo(f"{root}/{name}"), records[name], compression)
    return file.getvalue()


def legacy(
    tree: Any,
    blocks: Mapping[str, tuple[int, bytes]],
    *,
    protocol: int = 2,
    little_endian: bool = True,
    keys: Any = None,
) -> bytes:
    """A file as torch wrote it before 1.6: each storage has its number of elements before its bytes."""
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": sizes}
    parts = [pickled(0x1950A86A20F9469CFC6C, protocol), pickled(1001, protocol), pickled(system, protocol)]
    parts.append(tree if isinstance(tree, bytes) else pickled(tree, protocol))
    parts.append(pickled(sorted(blocks), protocol) if keys is None else keys)
    parts += [struct.pack("<q", blocks[key][0]) + blocks[key][1] for key in sorted(blocks)]
    return b"".join(parts)


def both(tree: Any, blocks: Mapping[str, bytes], zip_file: bool, protocol: int = 2) -> bytes:
    """The same content, of floats, in either format."""
    if zip_file:
        return zipped(tree, blocks, protocol=protocol)
    return legacy(tree, {key: (len(data) // 4, data) for key, data in blocks.items()}, protocol=protocol)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@dataclass
class Held:
    """A file that is held in memory."""

    content: bytes
    name: str = "a.pth"
    path: Path | None = None

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, start: int, buffer: memoryview) -> None:
        found = self.content[start : start + len(buffer)] if start >= 0 else b""
        if len(found) != len(buffer):
            raise CheckpointError(f"{self.name}: ends too early; it is truncated, or changed while being read.")
        buffer[:] = found

    def close(self) -> None: ...


def opened(content: bytes | Path, branch: str = "student") -> WeightFile:
    file = Held(content) if isinstance(content, bytes) else LocalFile(content)
    [found], notes = unwrapped_files(file.name, [open_weight_file(file.name, file, branch)], branch)
    return replace(found, notes=(*found.notes, *notes))


def bytes_of(file: WeightFile) -> dict[str, bytes]:
    """All values of a file, as bytes."""
    found = {}
    for name, info in file.tensors.items():
        buffer = bytearray(info.nbytes)
        file.reader.read(name, 0, memoryview(buffer))
        found[name] = bytes(buffer)
    return found


def values(content: bytes | Path) -> dict[str, list[float]]:
    """All values of a file of 32-bit floats."""
    return {name: list(struct.unpack(f"<{len(raw) // 4}f", raw)) for name, raw in bytes_of(opened(content)).items()}
