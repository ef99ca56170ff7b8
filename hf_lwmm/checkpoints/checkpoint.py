"""Open the named tensors of a model, whatever files they come in, and read their values."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_lwmm import hub
from hf_lwmm.checkpoints.companions import (
    RECIPE,
    ProcessorSettings,
    beside,
    merged_branch,
    other_weights,
    read_config,
    read_processor,
)
from hf_lwmm.checkpoints.dtypes import BITS, TORCH_NAMES, Bytes, byte_count, widen
from hf_lwmm.checkpoints.hosted import Hosted, hosted_by
from hf_lwmm.checkpoints.inert_pickle import shown
from hf_lwmm.checkpoints.readers import JoinedReader, TensorReader
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.checkpoints.shard_index import ShardIndex, listed_tensors
from hf_lwmm.checkpoints.weight_file import WeightFile, open_weight_file, unwrapped_files
from hf_lwmm.checkpoints.weight_files import choose_files
from hf_lwmm.errors import CheckpointError
from hf_lwmm.files.byte_file import ByteFile, LocalFile
from hf_lwmm.hub.client import Source
from hf_lwmm.labels import LabelSet, labels_of_rows
from hf_lwmm.layouts import Order, SlotMap, classes_of_rows, map_slots, place_of
from hf_lwmm.progress import Progress, silent

# A torch file mostly begins with its pickle and ends with its directory, which have about 200 bytes for each tensor. So
# many bytes of both are asked for at once, or a thousandth of the file if that is less.
_AHEAD, _AHEAD_OF = 1 << 20, 1000
STUDENT = "student"  # the branch that is read where none is named


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model, by the names that its own code gives them, and the facts in its files.

    `files` are those that hold the tensors, and `folder` is the one that they stand in, with what belongs to them.
    `classes` are label names in order, None if unknown. `config` is what can be used of the config.json. `notes` say
    which files were chosen, and what was left out of them or cannot be used. `metadata` are facts of the training run,
    if a torch file holds any. `renamed` is true if the files store the tensors under other names, or others beside
    them. `branch` is the network that was taken, where there are several.
    """

    source: Source
    files: tuple[str, ...]
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    classes: tuple[str, ...] | None = field(repr=False)
    config: Mapping[str, Any] = field(repr=False)
    reader: TensorReader = field(repr=False)
    notes: tuple[str, ...] = ()
    parts: tuple[WeightFile, ...] = field(default=(), repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: str = ""
    renamed: bool = field(default=False, repr=False)
    branch: str = field(default=STUDENT, repr=False)

    @property
    def label(self) -> str:
        """The model's name in messages and cards."""
        return self.source.label

    @cached_property
    def slot_map(self) -> SlotMap:
        """The tensors as slots."""
        return map_slots({name: info.shape for name, info in self.tensors.items()})

    @property
    def weight_count(self) -> int:
        """The number of weights: all elements but BatchNorm's counters, which no forward pass reads."""
        return sum(info.count for name, info in self.tensors.items() if not name.endswith("num_batches_tracked"))

    @property
    def stored_names(self) -> Mapping[str, str]:
        """The name in its file of each tensor."""
        return {tensor: part.stored.get(tensor, tensor) for part in self.parts for tensor in part.tensors}

    @cached_property
    def processor(self) -> ProcessorSettings | None:
        """The settings of the image processor beside the weights, None if there are none.

        Raises:
            DocumentError: if they cannot be used.
        """
        return read_processor(self.source, self.folder)

    @property
    def reduces_labels(self) -> bool:
        """True if the image processor says that ids in label files are one more than the classes."""
        return self.processor is not None and self.processor.reduces_labels

    def order_of(self, tensor: str) -> Order | None:
        """Return the order of a stored tensor's elements, None if it is that of its slots, or they are cut bytes."""
        order = self.slot_map.atoms[tensor][0].order
        return order if order and BITS[self.tensors[tensor].dtype] >= 8 else None

    def read_elements(self, tensor: str, start: int, out: Bytes) -> None:
        """Fill `out` with the bytes of a tensor from its element `start` on, in the order of its slots.

        Raises:
            CheckpointError: if the checkpoint is closed, or its file damaged.
        """
        info, order = self.tensors[tensor], self.order_of(tensor)
        if order is None:
            self.read_stored(tensor, start, out)
            return
        stored = np.empty(info.nbytes, np.uint8)
        self.read_stored(tensor, 0, stored)
        item = BITS[info.dtype] // 8
        first = start * item
        out[...] = order.to_slot(stored.reshape(-1, item)).reshape(-1)[first : first + len(out)]

    def read_stored(self, tensor: str, start: int, out: Bytes) -> None:
        """Fill `out` with the bytes of a tensor from its element `start` on, in the order in which it is stored.

        Raises:
            CheckpointError: as `read_elements`.
        """
        self.reader.read(tensor, byte_count(self.tensors[tensor].dtype, start), memoryview(out))  # type: ignore[arg-type]

    def slot_bytes(self, slot: str, start: int = 0, count: int | None = None) -> Bytes:
        """Return `count` elements of a slot (all if None) from element `start` on, as bytes of the stored type.

        Raises:
            CheckpointError: as `read_elements`.
        """
        atom = self.slot_map.slots[slot]
        count = math.prod(atom.shape) - start if count is None else count
        raw = np.empty(byte_count(self.tensors[atom.tensor].dtype, count), np.uint8)
        self.read_elements(atom.tensor, atom.start + start, raw)
        return raw

    def slot_values(self, slot: str, start: int = 0, count: int | None = None) -> npt.NDArray[np.float64]:
        """Return `count` elements of a slot of floats (all if None) from element `start` on: (count,) float64.

        Raises:
            CheckpointError: as `read_elements`.
        """
        atom = self.slot_map.slots[slot]
        dtype = self.tensors[atom.tensor].dtype
        raw = self.slot_bytes(slot, start, count)
        values = np.empty(math.prod(atom.shape) - start if count is None else count, np.float64)
        widen(raw, dtype, values)
        return values

    def close(self) -> None:
        """Close the files. A closed checkpoint still describes its tensors, and cannot be read."""
        self.reader.close()
        for part in self.parts:
            part.file.close()

    @property
    def paths(self) -> Mapping[str, Path]:
        """The files that are on this machine, by name."""
        return {part.name: path for part in self.parts if (path := part.file.path) is not None}

    @property
    def recorded(self) -> Mapping[str, str]:
        """The SHA-256 that the Hub records, in hexadecimal, of each file that is not on this machine as a whole."""
        remote = {part.name: part.file for part in self.parts if isinstance(part.file, hub.RemoteFile)}
        return {name: str(file.sha256) for name, file in remote.items() if file.path is None}

    def check_unchanged(self) -> None:
        """Raise CheckpointError if a file on this machine is another one by now than that which was opened."""
        for part in self.parts:
            if isinstance(part.file, LocalFile):
                part.file.check_unchanged()

    def fetch(self, tensors: Collection[str], *, whole: bool = False, progress: Progress = silent) -> None:
        """Bring the bytes of some tensors from the Hub into its cache, before they are read.

        With `whole`, whole files are downloaded, as they are where most of a file is needed.

        Raises:
            HubError: if they cannot be fetched.
        """
        spans = self._spans(tensors)
        advance = _advancing(f"Fetching {self.label}", spans.values(), progress)
        for file, needed in spans.items():
            file.fetch(needed, advance, whole=whole)

    def _spans(self, tensors: Collection[str]) -> dict[hub.RemoteFile, list[tuple[int, int]]]:
        """The bytes of the files on the Hub in which some tensors lie."""
        return {
            part.file: part.reader.spans(name for name in tensors if name in part.tensors)
            for part in self.parts
            if isinstance(part.file, hub.RemoteFile)
        }


def fetch_together(wanted: Sequence[tuple[Checkpoint, Collection[str]]], progress: Progress = silent) -> None:
    """Bring the bytes of some tensors of several checkpoints from the Hub, as `Checkpoint.fetch` does one by one.

    Raises:
        HubError: if they cannot be fetched.
    """
    spans = {file: needed for each, tensors in wanted for file, needed in each._spans(tensors).items()}
    labels = dict.fromkeys(each.label for each, _ in wanted)
    hub.fetch_together(spans, _advancing(f"Fetching {' and '.join(labels)}", spans.values(), progress))


def _advancing(what: str, spans: Iterable[Sequence[tuple[int, int]]], progress: Progress) -> Callable[[int], None]:
    """A function that is told of bytes as they come, and tells of all that have come of the spans of some files."""
    total, done = sum(end - start for each in spans for start, end in each), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(what, min(done, total), total)

    return advance


def open_checkpoint(source: Source, *, branch: str | None = STUDENT, headers_only: bool = False) -> Checkpoint:
    """Open the weights of a source.

    Args:
        source: where they are.
        branch: which of several networks in them, as for `unwrap`; in place of the student the one that was merged, if
            the recipe of a merge says so, with a note; None for what this package wrote itself, of which all tensors
            keep their names.
        headers_only: describe files on the Hub from their headers, without downloading them; `Checkpoint.fetch` brings
            what is read of them later.

    Raises:
        CheckpointError: if there are no weights, several candidates, no such branch, or a damaged or unsafe file.
        DocumentError: if the config.json beside the weights is no JSON object.
        HubError: if a file cannot be fetched.
    """
    chosen = choose_files(source)
    kinds = {PurePosixPath(name).suffix == ".safetensors" for name in chosen.names}
    if len(kinds) > 1:
        raise CheckpointError(f"{source.label}: name files of one kind, not safetensors beside torch files.")
    merged = merged_branch(source, chosen.names) if branch is not None else None
    taken = merged if merged is not None and branch in (STUDENT, merged) else branch
    config = read_config(source, chosen.folder)
    chosen_files = (*chosen.names, *([chosen.index.name] if chosen.index else []))
    named = None if source.ref.files else other_weights(config.content, chosen_files, chosen.folder)
    if named is not None:
        raise CheckpointError(
            f"{source.label}: its config.json names {named!r} as the weights, which transformers loads in place of "
            f"{chosen.names[0]}. Say which: {source.ref.of(beside(chosen.folder, named)).shown}"
        )
    with contextlib.ExitStack() as opened:
        parts = []
        for name in chosen.names:
            file = _open_file(source, name, headers_only)
            opened.callback(file.close)
            parts.append(open_weight_file(name, file, taken or STUDENT))
        parts = _by_index(source, chosen.index, parts)
        tensors = _union(source, parts)
        stored, unwrapped, alone = tensors.keys(), tuple[str, ...](), False
        if taken is not None:
            parts, unwrapped, alone = _one_network(source, parts, taken, merged, hosted_by(config.content))
            tensors = _union(source, parts)
        opened.pop_all()
    readers = {tensor: part.reader for part in parts for tensor in part.tensors}
    classes = next((part.classes for part in parts if part.classes), None) or config.classes
    found = (*(note for part in parts for note in part.notes), *unwrapped)
    if taken is not None and taken != branch:
        read = "and there is no other network in it" if alone else "so that was read, not the student"
        found = (f"{source.label}: its {RECIPE} says that {shown(taken)} was merged, {read}", *found)
    return Checkpoint(
        source,
        chosen.names,
        tensors,
        classes,
        config.content,
        JoinedReader(readers),
        notes=(*source.notes, *chosen.notes, *config.notes, *found),
        parts=tuple(parts),
        metadata={name: value for part in parts for name, value in part.metadata.items()},
        folder=chosen.folder,
        renamed=tensors.keys() != stored,
        branch=taken or STUDENT,
    )


def _one_network(
    source: Source, parts: Sequence[WeightFile], taken: str, merged: str | None, hosted: Hosted | None
) -> tuple[list[WeightFile], tuple[str, ...], bool]:
    """The files with the tensors of one network, notes on the choice, and True if there is none but the merged one.

    What a merge writes as safetensors holds no other, by no name of a branch.
    """
    try:
        found, notes = unwrapped_files(source.label, parts, taken, hosted=hosted)
    except CheckpointError:
        if taken != merged or any(not part.name.endswith(".safetensors") for part in parts):
            raise
        return (*unwrapped_files(source.label, parts, STUDENT, hosted=hosted), True)
    if taken == merged:  # --branch student takes it, too, and not the student
        named = "(--branch with the beginning of its names and a dot)"
        notes = tuple(note.replace(f"(--branch {STUDENT})", named) for note in notes)
    return found, notes, _count(found) == _count(parts)


def _count(parts: Sequence[WeightFile]) -> int:
    return sum(len(part.tensors) for part in parts)


def _open_file(source: Source, name: str, headers_only: bool) -> ByteFile:
    remote = hub.open_remote(source, name) if headers_only else None
    if remote is None or remote.sha256 is None:  # a file without a recorded hash is a small one
        return LocalFile(hub.fetch(source, name), source.file_label(name))
    if PurePosixPath(name).suffix != ".safetensors":
        remote.prefetch_ends(min(_AHEAD, remote.size // _AHEAD_OF))
    return remote


def classifier_rows(slot_map: SlotMap) -> int | None:
    """Return the number of classes of the classifiers, None if they have none or disagree."""
    slots = slot_map.slots
    counts_classes = ((s, a) for s, a in slots.items() if (p := place_of(s)) and "classes" in p[1].flags and a.shape)
    rows = {classes_of_rows(slot, atom.shape[0]) for slot, atom in counts_classes}
    return rows.pop() if len(rows) == 1 else None


def main_float_type(checkpoint: Checkpoint) -> str:
    """Return the torch name of the float type that most of a checkpoint's weights have, float32 if it has no floats."""
    counts: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        if info.dtype in TORCH_NAMES:
            counts[info.dtype] = counts.get(info.dtype, 0) + info.count
    return TORCH_NAMES[max(counts, key=lambda name: counts[name])] if counts else "float32"


def with_labels(checkpoint: Checkpoint, label_sets: Sequence[LabelSet]) -> Checkpoint:
    """Return the checkpoint with the classes of the first fitting label set, if it does not name its own.

    Its own names are left out, with a note, if they are not as many as the rows of its classifier.
    """
    rows = classifier_rows(checkpoint.slot_map)
    if rows is None or (checkpoint.classes is not None and len(checkpoint.classes) == rows):
        return checkpoint
    classes = labels_of_rows(rows, label_sets)
    if checkpoint.classes is None:
        return replace(checkpoint, classes=classes) if classes else checkpoint
    note = (
        f"{checkpoint.label}: names {len(checkpoint.classes)} classes, but its classifier has {rows} rows, so the "
        f"names were left out{'' if classes else ' (--labels names them)'}"
    )
    return replace(checkpoint, classes=classes, notes=(*checkpoint.notes, note))


def _by_index(source: Source, index: ShardIndex | None, parts: Sequence[WeightFile]) -> list[WeightFile]:
    """The files with the tensors that the index takes from each, or with all where there is no index."""
    if index is None:
        return list(parts)
    kept, notes = listed_tensors(index, {part.name: part.tensors for part in parts}, source.label)
    return [
        replace(part, tensors=kept[part.name], notes=(*part.notes, *(notes if part is parts[0] else ())))
        for part in parts
    ]


def _union(source: Source, parts: Sequence[WeightFile]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for part in parts:
        if twice := tensors.keys() & part.tensors.keys():
            raise CheckpointError(
                f"{source.label}: {part.name} repeats the tensor {min(twice)!r} of another of its files."
            )
        tensors.update(part.tensors)
    if not tensors:
        raise CheckpointError(f"{source.label}: holds no tensors.")
    return tensors
