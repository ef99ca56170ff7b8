"""Open the named tensors of a model, whatever files they come in, and read their values."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_lwmm import hub
from hf_lwmm.checkpoints.containers import BRANCHES
from hf_lwmm.checkpoints.dtypes import ITEM_SIZES, Bytes, widen
from hf_lwmm.checkpoints.readers import FileReader, JoinedReader, TensorReader
from hf_lwmm.checkpoints.safetensors_file import SafetensorsReader, TensorInfo, read_header
from hf_lwmm.checkpoints.torch_file import WEIGHT_SUFFIXES, read_torch_file
from hf_lwmm.errors import CheckpointError, PlanError, RefError
from hf_lwmm.files.byte_file import ByteFile, LocalFile
from hf_lwmm.hub.client import Source
from hf_lwmm.hub.refs import check_inside
from hf_lwmm.labels import LabelSet, labels_of_rows
from hf_lwmm.layouts import SlotMap, map_slots, place_of
from hf_lwmm.options import did_you_mean
from hf_lwmm.progress import Progress, silent

# What transformers looks for, in its order.
_PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_NOT_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler", "random_states")


@dataclass(frozen=True)
class WeightFile:
    """One of the files that hold a model's tensors."""

    name: str
    file: ByteFile
    tensors: Mapping[str, TensorInfo]
    reader: FileReader
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model by stored name, and the facts in its files.

    `classes` are label names in order, None if unknown. `notes` say which files were chosen and what was left out of
    them. `metadata` are facts of the training run, if a torch file holds any.
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

    @property
    def label(self) -> str:
        """The model's name in messages and cards."""
        return self.source.label

    @cached_property
    def slot_map(self) -> SlotMap:
        """The tensors as slots."""
        return map_slots({name: info.shape for name, info in self.tensors.items()})

    def read_elements(self, tensor: str, start: int, out: Bytes) -> None:
        """Fill `out` with the bytes of a stored tensor from its element `start` on.

        Raises:
            CheckpointError: if the checkpoint is closed, or its file damaged.
        """
        self.reader.read(tensor, start * ITEM_SIZES[self.tensors[tensor].dtype], memoryview(out))  # type: ignore[arg-type]

    def slot_bytes(self, slot: str, start: int = 0, count: int | None = None) -> Bytes:
        """Return `count` elements of a slot (all if None) from element `start` on, as bytes of the stored type.

        Raises:
            CheckpointError: as `read_elements`.
        """
        atom = self.slot_map.slots[slot]
        count = math.prod(atom.shape) - start if count is None else count
        raw = np.empty(count * ITEM_SIZES[self.tensors[atom.tensor].dtype], np.uint8)
        self.read_elements(atom.tensor, atom.start + start, raw)
        return raw

    def slot_values(self, slot: str, start: int = 0, count: int | None = None) -> npt.NDArray[np.float64]:
        """Return `count` elements of a slot of floats (all if None) from element `start` on: (count,) float64.

        Raises:
            CheckpointError: as `read_elements`.
        """
        dtype = self.tensors[self.slot_map.slots[slot].tensor].dtype
        raw = self.slot_bytes(slot, start, count)
        values = np.empty(len(raw) // ITEM_SIZES[dtype], np.float64)
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

    def fetch(self, tensors: Collection[str], *, whole: bool = False, progress: Progress = silent) -> None:
        """Bring the bytes of some tensors from the Hub into its cache, before they are read.

        With `whole`, whole files are downloaded, as they are where most of a file is needed.

        Raises:
            HubError: if they cannot be fetched.
        """
        remote = [part for part in self.parts if isinstance(part.file, hub.RemoteFile)]
        spans = {part.name: part.reader.spans(name for name in tensors if name in part.tensors) for part in remote}
        total = sum(end - start for found in spans.values() for start, end in found)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(f"Fetching {self.label}", min(done, total), total)

        for part in remote:
            assert isinstance(part.file, hub.RemoteFile)
            part.file.fetch(spans[part.name], advance, whole=whole)


def open_checkpoint(source: Source, *, branch: str = "student", headers_only: bool = False) -> Checkpoint:
    """Open the weights of a source.

    With `headers_only`, files on the Hub are described from their headers, and not downloaded; `Checkpoint.fetch`
    brings what is read of them later.

    Raises:
        CheckpointError: if there are no weights, several candidates, or a damaged or unsafe file.
        HubError: if a file cannot be fetched.
        PlanError: for a branch that does not exist.
    """
    if branch not in BRANCHES:
        raise PlanError(f"--branch {branch} is not one of {', '.join(BRANCHES)}.{did_you_mean(branch, BRANCHES)}")
    chosen, notes = choose_files(source)
    shards = _expand_index(source, chosen)
    kinds = {PurePosixPath(name).suffix == ".safetensors" for name in shards}
    if len(kinds) > 1:
        raise CheckpointError(f"{source.label}: name files of one kind, not safetensors beside torch files.")
    if kinds == {True} and branch == "teacher":
        raise CheckpointError(f"{source.label}: safetensors files have no teacher; leave out --branch teacher.")
    config = read_config(source)
    with contextlib.ExitStack() as opened:
        parts = []
        for name in shards:
            file = _open_file(source, name, headers_only)
            opened.callback(file.close)
            parts.append(_open_part(name, file, branch))
        tensors = _union(source, parts)
        opened.pop_all()
    readers = {tensor: part.reader for part in parts for tensor in part.tensors}
    classes = next((part.classes for part in parts if part.classes), None) or _classes(config)
    notes += tuple(note for part in parts for note in part.notes)
    metadata = {name: value for part in parts for name, value in part.metadata.items()}
    reader = JoinedReader(readers)
    return Checkpoint(source, shards, tensors, classes, config, reader, notes, tuple(parts), metadata)


def _open_file(source: Source, name: str, headers_only: bool) -> ByteFile:
    remote = hub.open_remote(source, name) if headers_only else None
    if remote is None or remote.sha256 is None:  # a file without a recorded hash is a small one
        return LocalFile(hub.fetch(source, name))
    return remote


def _open_part(name: str, file: ByteFile, branch: str) -> WeightFile:
    if name.endswith(".safetensors"):
        header = read_header(file)
        return WeightFile(name, file, header.tensors, SafetensorsReader(file, header))
    read = read_torch_file(file, branch)
    return WeightFile(name, file, read.tensors, read.reader, read.classes, read.notes, read.metadata)


def classifier_rows(slot_map: SlotMap) -> int | None:
    """Return the number of classes of the classifiers, None if they have none or disagree."""
    slots = slot_map.slots
    rows = {a.shape[0] for s, a in slots.items() if (p := place_of(s)) and "classes" in p[1].flags and a.shape}
    return rows.pop() if len(rows) == 1 else None


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


def choose_files(source: Source) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the files that hold the weights, and return them with a note where there was a choice.

    Raises:
        CheckpointError: if there is none, or no way to tell which.
    """
    if source.ref.files:
        missing = [name for name in source.ref.files if name not in source.files]
        if missing:
            have = ", ".join(_candidates(source)[:10]) or "no weights at all"
            raise CheckpointError(f"{source.label}: has no file {missing[0]!r}. It has {have}.")
        return source.ref.files, ()
    if source.ref.path is not None and source.ref.path.is_file():
        return source.files, ()
    candidates = _candidates(source)
    preferred = [name for name in _PREFERRED if name in source.files]
    if preferred:
        others = [name for name in candidates if name not in preferred and not _is_shard(name)] + preferred[1:]
        note = (f"{source.label}: took {preferred[0]}, not {', '.join(others[:5])}",) if others else ()
        return (preferred[0],), note
    if not candidates:
        have = ", ".join(source.files[:10]) or "nothing"
        raise CheckpointError(
            f"{source.label}: no weights found (looked for {', '.join(WEIGHT_SUFFIXES)}); it has {have}."
        )
    if len(candidates) > 1:
        raise CheckpointError(
            f"{source.label}: several files could hold the weights: {', '.join(candidates[:10])}. "
            f"Say which: {source.ref.shown}:{candidates[0]}"
        )
    return (candidates[0],), (f"{source.label}: took {candidates[0]}",)


def read_config(source: Source) -> Mapping[str, Any]:
    """Return the content of the source's config.json, empty if it has none that can be read."""
    if "config.json" not in source.files or (source.ref.path is not None and source.ref.path.is_file()):
        return {}
    try:
        config = json.loads(hub.fetch(source, "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _candidates(source: Source) -> list[str]:
    names = (name for name in source.files if name.endswith(WEIGHT_SUFFIXES))
    return [name for name in names if not PurePosixPath(name).name.startswith(_NOT_WEIGHTS)]


def _is_shard(name: str) -> bool:
    return "-of-" in name


def _expand_index(source: Source, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Replace each shard index by the shards that it lists."""
    shards: list[str] = []
    for name in chosen:
        if not name.endswith(".index.json"):
            shards.append(name)
            continue
        try:
            listed = json.loads(hub.fetch(source, name).read_text(encoding="utf-8"))["weight_map"].values()
            listed = sorted(set(listed))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{source.label}: {name} is not a shard index ({error}).") from None
        for shard in listed:
            try:
                check_inside(str(shard), source.label)
            except RefError:
                raise CheckpointError(f"{source.label}: {name} points outside the repository, to {shard!r}.") from None
            path = str(PurePosixPath(name).parent / str(shard))
            if path not in source.files or not path.endswith(WEIGHT_SUFFIXES):
                raise CheckpointError(f"{source.label}: {name} lists {shard!r}, which the repository does not have.")
            shards.append(path)
    return tuple(shards)


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


def _classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names of id2label; transformers' placeholders (LABEL_0, ...) do not count."""
    labels = config.get("id2label")
    if not isinstance(labels, dict) or not labels:
        return None
    try:
        names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    except ValueError:
        return None
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names
