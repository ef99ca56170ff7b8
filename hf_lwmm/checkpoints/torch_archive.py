"""Read the containers of torch files: the zip archives that torch writes now, and the stream of pickles of before."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_lwmm.checkpoints.inert_pickle import Name, PickleError, read_pickle, shown
from hf_lwmm.errors import CheckpointError
from hf_lwmm.files.byte_file import ByteFile, read_bytes, stream

MAX_PICKLE = 1 << 26  # bytes; a training checkpoint of 10,000 tensors has 3 MB
_MAX_DIRECTORY = 1 << 23  # bytes; that of 10,000 tensors, with Adam's state, has 3 MB
_COUNT = 8  # bytes that the number of a storage's elements takes in older files
_MAX_START = 1000  # steps of the short pickles before the tree
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ZIP_DAMAGE = (zipfile.BadZipFile, ValueError, ArithmeticError, NotImplementedError, EOFError, OSError, struct.error)
_AGAIN = "Download or save it again."
# The storage classes that pickles name, without "Storage": the type of their elements, and its size in bytes. A type
# that safetensors does not know goes by torch's name, and its tensors cannot be read.
_KINDS = {
    "Double": ("F64", 8), "Float": ("F32", 4), "Half": ("F16", 2), "BFloat16": ("BF16", 2), "Long": ("I64", 8),
    "Int": ("I32", 4), "Short": ("I16", 2), "Char": ("I8", 1), "Byte": ("U8", 1), "Bool": ("BOOL", 1),
    "Untyped": ("U8", 1), "ComplexFloat": ("C64", 8), "ComplexDouble": ("complex128", 16), "QInt8": ("qint8", 1),
    "QUInt8": ("quint8", 1), "QInt32": ("qint32", 4), "QUInt4x2": ("quint4x2", 1), "QUInt2x4": ("quint2x4", 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of bytes of a torch file, which tensors are views of.

    It is `nbytes` of the block `key` from byte `start` on; `dtype` is the type of its elements. Only files of torch
    before 0.4 have storages that begin inside a block.
    """

    key: str
    dtype: str
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Block:
    """Where a storage is kept: `size` bytes somewhere between the bytes `start` and `stop` of the file.

    In a zip archive a header of unknown length comes first, and `name` and `crc` are those of the directory. In an
    older file the number of elements comes first, which should be `count`, and `name` is the storage's key.
    """

    start: int
    stop: int
    size: int
    name: str = ""
    crc: int | None = None
    count: int | None = None


@dataclass(frozen=True)
class TorchArchive:
    """The content of a torch file: a tree of plain values, records and storages, and where each storage's bytes are.

    A zip archive's directory begins at the byte `directory`, and `preface` bytes stand before its first entry.
    """

    tree: Any = field(repr=False)
    blocks: Mapping[str, Block] = field(repr=False)
    big_endian: bool = False
    directory: int = 0
    preface: int = 0


def read_archive(file: ByteFile) -> TorchArchive:
    """Read the directory and the pickle of a torch file, and none of its storages.

    Raises:
        CheckpointError: if it is no torch file, is truncated or damaged, or compressed.
    """
    start = read_bytes(file, 0, min(file.size, 4))
    try:
        if start.startswith(b"PK"):
            return _zip_archive(file)
        return _legacy_archive(file)
    except PickleError as error:
        raise CheckpointError(f"{file.name}: its pickle cannot be read: {error}. {_AGAIN}") from None


def _zip_archive(file: ByteFile) -> TorchArchive:
    blocks, directory, preface = _blocks(file)
    order, pickled = blocks.pop("//byteorder", None), blocks.pop("//data.pkl")
    if pickled.size > MAX_PICKLE:
        raise CheckpointError(f"{file.name}: its pickle has {pickled.size:,} bytes, more than weights need.")
    endian = _content(file, order) if order and order.size < 100 else b"little"
    if endian not in (b"little", b"big"):
        raise CheckpointError(f"{file.name}: its byte order is neither little nor big. {_AGAIN}")
    start = data_start(file, pickled)
    check_content(file, pickled, start)
    tree = read_pickle(stream(file, start, pickled.size), lambda id: _storage(id)[0])
    return TorchArchive(tree, blocks, endian == b"big", directory, preface)


def _blocks(file: ByteFile) -> tuple[dict[str, Block], int, int]:
    """Where the storages of a zip archive are, by key, and where its directory and its first entry begin.

    Its other records have keys that begin with two slashes.
    """
    entries, end = _directory(file)
    roots = [name.removesuffix("/data.pkl") for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(roots) > 1:
        raise CheckpointError(
            f"{file.name}: is a zip archive of several torch files: it has {shown(roots[0])}/data.pkl and "
            f"{shown(roots[1])}/data.pkl. Save each in a file of its own."
        )
    if not roots:
        held = ", ".join(map(shown, list(entries)[:3])) or "nothing"
        raise CheckpointError(
            f"{file.name}: is a zip archive, but not of torch: it has no data.pkl, only {held}. If a checkpoint is in "
            "it, unzip it first."
        )
    [root] = roots
    if f"{root}/constants.pkl" in entries:
        raise CheckpointError(
            f"{file.name}: is a TorchScript archive, a program with its weights. Save the weights alone: "
            "torch.save(torch.jit.load(file).state_dict(), 'weights.pth')."
        )
    starts = sorted(entry.header_offset for entry in entries.values())
    following = dict(zip(starts, [*starts[1:], end], strict=True))
    blocks = {}
    for name, entry in entries.items():
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            how = "encrypted" if entry.flag_bits & 1 else "compressed"
            raise CheckpointError(
                f"{file.name}: its entry {name} is {how}, which torch never does; somebody packed it anew. "
                "Unpack it and zip it without compression (zip -0), or save it again with torch."
            )
        block = Block(entry.header_offset, following[entry.header_offset], entry.file_size, name, entry.CRC)
        if block.start + 30 + len(name.encode()) + block.size > block.stop:
            raise CheckpointError(f"{file.name}: its directory gives {name} bytes of another entry. {_AGAIN}")
        if name.startswith(f"{root}/data/"):
            blocks[name.removeprefix(f"{root}/data/")] = block
        elif name in (f"{root}/data.pkl", f"{root}/byteorder"):
            blocks[f"/{name.removeprefix(root)}"] = block
    return blocks, end, starts[0]


def _directory(file: ByteFile) -> tuple[dict[str, zipfile.ZipInfo], int]:
    """The entries of a zip archive by name, and the byte at which its directory begins."""
    try:
        with zipfile.ZipFile(stream(file, most=_MAX_DIRECTORY)) as archive:
            listed, end = archive.infolist(), archive.start_dir
    except _ZIP_DAMAGE as error:
        raise CheckpointError(f"{file.name}: a truncated or damaged torch file ({error}). {_AGAIN}") from None
    entries = {entry.filename: entry for entry in listed}
    places = {entry.header_offset for entry in listed}
    if len(entries) != len(listed) or len(places) != len(listed) or min(places, default=0) < 0:
        raise CheckpointError(f"{file.name}: its directory lists an entry twice. {_AGAIN}")
    return entries, end


def data_start(file: ByteFile, block: Block) -> int:
    """Return the byte of the file at which a block's content begins.

    Raises:
        CheckpointError: if what is said of the block elsewhere in the file and what stands there contradict each other.
    """
    if block.count is not None:
        if int.from_bytes(read_bytes(file, block.start, _COUNT), "little") != block.count:
            raise CheckpointError(
                f"{file.name}: its storage {shown(block.name)} is not as long as its tensors say. {_AGAIN}"
            )
        return block.start + _COUNT
    name = block.name.encode()
    head = read_bytes(file, block.start, 30 + len(name))
    signature, _, compression = struct.unpack("<4sIH", head[:10])
    name_size, extra_size = struct.unpack("<HH", head[26:30])
    start = block.start + 30 + name_size + extra_size
    if signature != b"PK\3\4" or head[30:] != name or compression or start + block.size > block.stop:
        raise CheckpointError(f"{file.name}: its entry {block.name} is not what the directory says. {_AGAIN}")
    return int(start)


def check_content(file: ByteFile, block: Block, start: int) -> None:
    """Compare a block's content, which begins at a byte of the file, with the checksum that the archive gives.

    Raises:
        CheckpointError: if they differ.
    """
    if block.crc is None:
        return
    found, buffer = 0, bytearray(min(block.size, 1 << 20))
    for begin in range(0, block.size, len(buffer) or 1):
        view = memoryview(buffer)[: min(len(buffer), block.size - begin)]
        file.read(start + begin, view)
        found = zlib.crc32(view, found)
    if found != block.crc:
        raise CheckpointError(
            f"{file.name}: the content of {block.name} does not have the checksum that the file gives for it. It is "
            "damaged: download or save it again (torch must write checksums: torch.serialization.set_crc32_options)."
        )


def _content(file: ByteFile, block: Block) -> bytes:
    start = data_start(file, block)
    check_content(file, block, start)
    return read_bytes(file, start, block.size)


def _legacy_archive(file: ByteFile) -> TorchArchive:
    """A file as torch wrote it before 1.6: three short pickles, the tree, the storages' keys, and the storages."""
    sizes: dict[str, int] = {}  # of the blocks, in bytes
    counts: dict[str, int] = {}  # and in elements

    def resolve(id: Any) -> Any:
        if isinstance(id, tuple) and len(id) > 1 and id[0] == "module":
            return id[1]
        found, counts[found.key], sizes[found.key] = _storage(id)
        return found

    flow = stream(file, 0, min(file.size, MAX_PICKLE))
    try:
        magic = read_pickle(flow, steps=_MAX_START)
    except PickleError:
        magic = None
    if magic != _MAGIC:
        raise CheckpointError(
            f"{file.name}: is a pickle, but not one that torch.save wrote. Load it where it was made, and save the "
            "weights with torch.save or safetensors."
        )
    protocol = read_pickle(flow, steps=_MAX_START)
    if protocol != _PROTOCOL:
        raise CheckpointError(f"{file.name}: has the protocol {shown(protocol)} of torch; only {_PROTOCOL} is read.")
    read_pickle(flow, steps=_MAX_START)  # of the machine that wrote it: but torch wrote little-endian on any
    tree = read_pickle(flow, resolve)
    keys = read_pickle(flow, steps=_MAX_START + 4 * len(sizes))
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in sizes for key in keys):
        raise CheckpointError(f"{file.name}: its list of storages is damaged. {_AGAIN}")
    position, blocks = flow.tell(), {}
    for key in keys:  # their counts are read with them: over a network each would be a request of its own
        stop = position + _COUNT + sizes[key]
        blocks[key] = Block(position, stop, sizes[key], key, count=counts[key])
        position = stop
    if position > file.size:
        raise CheckpointError(f"{file.name}: ends too early; it is truncated. {_AGAIN}")
    return TorchArchive(tree, blocks)


def _storage(id: Any) -> tuple[Storage, int, int]:
    """The storage that a persistent id of torch stands for, and elements and bytes of its block.

    Raises:
        PickleError: if it stands for something else.
    """
    match id:
        case ("storage", Name() as cls, str() as key, _, int() as count, *rest):
            dtype, size = _KINDS.get(cls.name.removesuffix("Storage"), ("", 0))
            match rest:
                case [] | [None]:
                    start, length = 0, count
                case [(_, int() as start, int() as length)]:
                    pass
                case _:
                    start = length = -1
            if size and 0 <= start <= start + length <= count < 1 << 48:
                return Storage(key, dtype, start * size, length * size), count, count * size
    old = " (protocol 0 of pickle, which torch itself does not load)" if isinstance(id, str) else ""
    raise PickleError(f"it names something outside of it that is no storage of a known type{old}")
