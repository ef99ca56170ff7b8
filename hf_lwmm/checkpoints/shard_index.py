"""Read the index of a sharded checkpoint, which decides the file that each tensor is taken from."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from hf_lwmm import hub
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.checkpoints.torch_file import WEIGHT_SUFFIXES
from hf_lwmm.errors import CheckpointError, DocumentError, RefError
from hf_lwmm.files.documents import ForeignDocumentError, as_mapping, read_json, shortened
from hf_lwmm.hub import Source
from hf_lwmm.hub.refs import check_inside

INDEX_SUFFIX = ".index.json"
_SHARD = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})(\.\w+)")

Tensors = Mapping[str, TensorInfo]


@dataclass(frozen=True)
class ShardIndex:
    """An index: the path of the file of each tensor."""

    name: str
    files: Mapping[str, str] = field(repr=False)

    @property
    def shards(self) -> tuple[str, ...]:
        """The files, each once."""
        return tuple(sorted(set(self.files.values())))


def read_index(source: Source, name: str) -> ShardIndex:
    """Return the index at a path in a source.

    Raises:
        CheckpointError: if it is no index, or lists a file that is not there, or lies outside the repository.
    """
    where = f"{source.label}, {name}"
    try:
        content = as_mapping(read_json(hub.fetch(source, name), where), where)
        listed = as_mapping(content.get("weight_map"), f"{where}, weight_map")
    except ForeignDocumentError as error:
        raise CheckpointError(str(error)) from None
    except DocumentError as error:
        raise CheckpointError(f"{error} It should be a shard index, with the file of each tensor.") from None
    files = {tensor: _path(source, name, tensor, shard) for tensor, shard in listed.items()}
    if not files:
        raise CheckpointError(f"{where}: lists no tensors.")
    return ShardIndex(name, files)


def _path(source: Source, name: str, tensor: str, shard: object) -> str:
    where = f"{source.label}: {name}"
    if not isinstance(shard, str):
        raise CheckpointError(f"{where} is no shard index: the file of {tensor!r} is {shortened(shard)}, not a text.")
    try:
        check_inside(shard, source.label)
    except RefError:
        raise CheckpointError(f"{where} points outside the repository, to {shortened(shard)}.") from None
    path = (PurePosixPath(name).parent / shard).as_posix()
    if path not in source.files or not path.endswith(WEIGHT_SUFFIXES):
        raise CheckpointError(
            f"{where} lists {shortened(shard)} for {tensor!r}, a file of weights that the repository does not have. "
            "Download all shards."
        )
    return path


def listed_tensors(
    index: ShardIndex, shards: Mapping[str, Tensors], label: str
) -> tuple[dict[str, Tensors], list[str]]:
    """Return the tensors of each shard that the index takes from it, and notes on those that it does not list.

    Args:
        index: the index.
        shards: the tensors in each shard, by its path.
        label: the model's name, for messages.

    Raises:
        CheckpointError: if a tensor is not in the file that the index names.
    """
    kept: dict[str, Tensors] = {}
    notes = []
    for shard, tensors in shards.items():
        named = {tensor: None for tensor, file in index.files.items() if file == shard}
        if lacking := [tensor for tensor in named if tensor not in tensors]:
            other = next((file for file, found in shards.items() if lacking[0] in found), None)
            raise CheckpointError(
                f"{label}: {index.name} says that {lacking[0]!r} is in {shard}, which lacks it"
                + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
                + (f"; it is in {other}." if other else ".")
                + " Download or save the model again."
            )
        kept[shard] = {name: info for name, info in tensors.items() if name in named}
        if left := [name for name in tensors if name not in named]:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            other = index.files.get(left[0])
            reason = f"takes it from {other}" if other else "does not list it"
            notes.append(f"{label}: left out {left[0]!r}{more} of {shard}: {index.name} {reason}")
    return kept, notes


def is_shard(name: str) -> bool:
    """Return True for the name of one of several files of a model."""
    return _SHARD.fullmatch(PurePosixPath(name).name) is not None


def index_of(shard: str) -> str:
    """Return the name that the index of a shard's model has."""
    return _SHARD.sub(rf"\1\4{INDEX_SUFFIX}", shard)


def lacking_shards(names: Collection[str], source: Source) -> str | None:
    """Describe what is missing where files are some of a model's shards without their index; None if nothing is."""
    for name in names:
        found = _SHARD.fullmatch(name)
        if found is None:
            continue
        stem, number, count, suffix = found.groups()
        every = [f"{stem}-{each:0{len(number)}}-of-{count}{suffix}" for each in range(1, min(int(count), 9999) + 1)]
        if lacking := [each for each in every if each not in names]:
            there = all(each in source.files for each in every)
            remedy = (
                f"Name them all: {source.ref.of(*every).shown}" if there and len(every) <= 10
                else f"Download the others, such as {lacking[0]}, and {index_of(name)}"
            )  # fmt: skip
            return f"{name} is one of {int(count)} shards of a model, and the others are not read. {remedy}"
    return None
