"""Find out if tensors of a torch file can get other values without anything else in the file changing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hf_lwmm.checkpoints.inert_pickle import Record, shown
from hf_lwmm.checkpoints.torch_archive import Storage
from hf_lwmm.checkpoints.torch_tensors import (
    StoredTensor,
    TorchReader,
    elements,
    entries,
    is_module,
    is_tensor,
    stored_tensor,
)
from hf_lwmm.errors import CheckpointError, MergeError

_REMEDY = "Use --format safetensors."
_SHARE = "share memory, or lie among each other's elements, in the anchor's file"

_Path = tuple[Any, ...]  # the keys on the way to a value, the last one first: (key, (key before it, ...))
_Span = tuple[str, int, int]  # a block of a file, and its bytes that something covers


def check_apart(reader: TorchReader, names: Collection[str]) -> None:
    """Refuse tensors whose values cannot be changed apart from each other's, and from all else in the file.

    Ties among them are no hindrance: they have one value under several names. Neither are other attributes of the
    module whose tensors they are: these follow its tensors, as they do where its own code loads a state dict.

    Args:
        reader: the file's reader.
        names: the tensors that are to get other values.

    Raises:
        MergeError: naming what shares memory, or if the file begins with something else than its archive.
    """
    file, archive = reader.file.name, reader.archive
    if archive.preface:
        raise MergeError(
            f"{file}: {archive.preface:,} other bytes stand before its archive, which torch itself does not read. "
            f"{_REMEDY}"
        )
    tensors = {name: reader.tensors[name] for name in names if reader.tensors[name].info.count}
    covered = _covered(file, tensors)
    chosen = {id(tensor) for tensor in tensors.values()}
    beside = ((n, _span(t)) for n, t in reader.network.items() if id(t) not in chosen and t.info.count)
    for other, (key, start, end) in (*beside, *_spans_elsewhere(reader)):
        spans = covered.get(key, [])
        place = bisect_left(spans, (end,)) - 1  # the last one that begins before the other's end
        if place >= 0 and spans[place][1] > start:
            raise MergeError(
                f"{file}: '{shown(spans[place][2])}', which is merged, and '{shown(other)}', which is not, {_SHARE}, "
                f"so they cannot be written apart. {_REMEDY}"
            )


def _covered(file: str, tensors: Mapping[str, StoredTensor]) -> dict[str, list[tuple[int, int, str]]]:
    """The bytes of each block that tensors cover, in order, with their names. Raises MergeError if some share any."""
    covered: dict[str, list[tuple[int, int, str]]] = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].first_byte):
        key, start, end = _span(tensor)
        spans = covered.setdefault(key, [])
        if tensor.overlaps_itself:
            raise MergeError(
                f"{file}: elements of '{shown(name)}' share memory in the anchor's file, so they cannot be written "
                f"apart. {_REMEDY}"
            )
        if spans and spans[-1][1] > start:
            if tensors[spans[-1][2]] == tensor:
                continue
            raise MergeError(
                f"{file}: '{shown(spans[-1][2])}' and '{shown(name)}' {_SHARE}, so they cannot be written apart. "
                f"{_REMEDY}"
            )
        spans.append((start, end, name))
    return covered


def _span(tensor: StoredTensor) -> _Span:
    return tensor.storage.key, tensor.first_byte, tensor.first_byte + tensor.reach


def _spans_elsewhere(reader: TorchReader) -> Iterator[tuple[str, _Span]]:
    """Yield the memory of what is in a file besides a network, with the names on the way to it.

    Raises:
        MergeError: if the network itself is there under a second name.
    """
    holders = {id(holder) for holder in reader.holders}
    seen: set[int] = set()
    pending: list[tuple[Any, _Path]] = [(reader.archive.tree, ())]
    while pending:
        value, path = pending.pop()
        if isinstance(value, Storage):
            yield _text(path), (value.key, value.start, value.start + value.nbytes)
        if not isinstance(value, Record | dict | list | tuple):
            continue
        if id(value) in seen and id(value) in holders:
            raise MergeError(
                f"{reader.file.name}: '{_text(path)}' is the merged network itself once more, so it would change too. "
                f"{_REMEDY}"
            )
        if id(value) in seen:
            continue
        seen.add(id(value))
        if is_tensor(value):
            try:
                tensor = stored_tensor(value, _text(path), reader.archive, reader.file)
            except CheckpointError:
                pass  # of another kind: all of its storages count
            else:
                if tensor.info.count:
                    yield _text(path), _span(tensor)
                continue
        held = id(value) in holders
        if held and (is_module(value) or not entries(value)):
            continue
        for key, part in _parts(value):
            if not (held and isinstance(key, str) and is_tensor(part)):
                pending.append((part, path if key is None else (key, path)))


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of a value with their keys, None for those that have none of their own."""
    if isinstance(value, Record):
        yield from ((None, part) for part in (value.cls, value.arguments, value.state))
    yield from entries(value).items()
    numbered = not isinstance(value, tuple)  # those are mostly arguments of calls
    yield from ((place if numbered else None, part) for place, part in enumerate(elements(value)))


def _text(path: _Path) -> str:
    """The keys on the way to a value, joined as the names of tensors are; of a long way, its end."""
    keys: list[str] = []
    while path and len(keys) < 20:
        keys.append(shown(path[0]))
        path = path[1]
    return ".".join(reversed(keys))
