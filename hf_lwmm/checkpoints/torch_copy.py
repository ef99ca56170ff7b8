"""Copy a torch file with other values in its tensors: same container, same pickle, new checksums."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from hf_lwmm.checkpoints.dtypes import ITEM_SIZES, WORD_SIZES
from hf_lwmm.checkpoints.readers import TensorReader
from hf_lwmm.checkpoints.torch_archive import data_start
from hf_lwmm.checkpoints.torch_tensors import StoredTensor, TorchReader
from hf_lwmm.files.byte_file import LocalFile, write_all

_STEP = 1 << 22  # bytes
_DESCRIBED = 1 << 3  # flag of a zip entry whose checksum stands behind its content


def copy_with_tensors(reader: TorchReader, names: Collection[str], values: TensorReader, target: Path) -> None:
    """Copy a torch file, with other values in some of its tensors.

    Args:
        reader: the file's reader. The copy is made from the file that it has open, whatever is at its path by now.
        names: the tensors that get other values, which `check_apart` has found to be apart from all else.
        values: the values, by the same names and in the same types and shapes.
        target: the copy, a path that is free.

    Raises:
        CheckpointError: if the file or a value cannot be read.
    """
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        os.fchmod(descriptor, 0o644)
        buffer = bytearray(_STEP)
        for start in range(0, reader.file.size, _STEP):
            piece = memoryview(buffer)[: reader.file.size - start]
            reader.file.read(start, piece)
            write_all(descriptor, piece, start)
        for name in names:
            if (tensor := reader.tensors[name]).info.count:
                _replace(descriptor, reader, name, tensor, values)
        if reader.archive.directory:
            _write_checksums(target, descriptor, reader)
    finally:
        os.close(descriptor)


def _replace(descriptor: int, reader: TorchReader, name: str, tensor: StoredTensor, values: TensorReader) -> None:
    place = reader.place(tensor)
    if not tensor.contiguous or reader.archive.big_endian:
        raw = np.empty(tensor.info.nbytes, np.uint8)
        values.read(name, 0, raw.data)
        span = np.frombuffer(bytearray(os.pread(descriptor, tensor.reach, place)), np.uint8)
        item = ITEM_SIZES[tensor.info.dtype]
        if reader.archive.big_endian:
            raw.view(f"u{WORD_SIZES[tensor.info.dtype]}").byteswap(inplace=True)
        new = raw.view(f"u{item}").reshape(tensor.info.shape)
        strides = [stride * item for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(span.view(f"u{item}"), tensor.info.shape, strides)
        view[...] = new
        write_all(descriptor, span.data, place)
        return
    for start in range(0, tensor.info.nbytes, _STEP):
        buffer = bytearray(min(_STEP, tensor.info.nbytes - start))
        values.read(name, start, memoryview(buffer))
        write_all(descriptor, memoryview(buffer), place + start)


def _write_checksums(target: Path, descriptor: int, reader: TorchReader) -> None:
    """Write the checksums of changed blocks where a zip archive has them: behind the content, and in its directory."""
    fresh: dict[int, bytes] = {}
    file = LocalFile(target)
    try:
        for key in {tensor.storage.key for tensor in reader.tensors.values() if tensor.info.count}:
            block = reader.archive.blocks[key]
            start, crc = data_start(file, block), 0
            for begin in range(0, block.size, _STEP):
                crc = zlib.crc32(os.pread(descriptor, min(_STEP, block.size - begin), start + begin), crc)
            fresh[block.start] = struct.pack("<I", crc)
            [flags] = struct.unpack("<H", os.pread(descriptor, 2, block.start + 6))
            behind = start + block.size
            if not flags & _DESCRIBED:
                write_all(descriptor, fresh[block.start], block.start + 14)
            else:  # the signature before it may be missing
                signed = os.pread(descriptor, 4, behind) == b"PK\7\x08"
                write_all(descriptor, fresh[block.start], behind + 4 * signed)
    finally:
        file.close()
    _write_directory(descriptor, reader.archive.directory, fresh)


def _write_directory(descriptor: int, start: int, fresh: Mapping[int, bytes]) -> None:
    """Put checksums into a zip archive's directory; `fresh` has them by the bytes at which the entries begin."""
    raw = os.pread(descriptor, os.fstat(descriptor).st_size - start, start)
    position = 0
    while raw[position : position + 4] == b"PK\1\2":
        sizes = struct.unpack_from("<HHH", raw, position + 28)
        [header] = struct.unpack_from("<I", raw, position + 42)
        if header == 0xFFFFFFFF:
            header = _wide_offset(raw[position + 46 + sizes[0] :][: sizes[1]], raw[position : position + 46])
        if header in fresh:
            write_all(descriptor, fresh[header], start + position + 16)
        position += 46 + sum(sizes)


def _wide_offset(extra: bytes, entry: bytes) -> int:
    """Where an entry beyond 4 GiB begins: in its zip64 field, which holds only what the entry has no room for."""
    while extra:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == 1:
            missing = sum(struct.unpack_from("<I", entry, at)[0] == 0xFFFFFFFF for at in (20, 24))
            return int(struct.unpack_from("<Q", extra, 4 + 8 * missing)[0])
        extra = extra[4 + size :]
    return -1
