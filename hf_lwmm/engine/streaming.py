"""Carry a plan out in bounded memory, with positioned reads and writes.

Each output element is anchor + sum_i H_i * (theta_i - anchor), Equation 1 rearranged since a row of H sums to 1.
In this form equal inputs give back themselves exactly, and the difference of two close weights is exact. It is
computed in float32 (float64 if any input is), in the order of the models, so every machine gives the same bytes.
Methods that are no weighted sum, and weight-normalised layers, take a slot whole, in float64.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import ITEM_SIZES, Array, Bytes, accumulator, byte_count, fits, is_float, narrow, widen
from hf_lwmm.checkpoints.safetensors_file import MAX_SHARD_SIZE, encode_header
from hf_lwmm.engine.write_options import WriteOptions
from hf_lwmm.errors import MergeError
from hf_lwmm.files.byte_file import write_all
from hf_lwmm.layouts import is_variance
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.tensor_recipes import Segment, TensorRecipe, Term, WeightNorm, tensor_recipes
from hf_lwmm.progress import Progress, silent

CHUNK = 1 << 18  # elements: 1 MiB of float32, small enough for the caches, large enough for the disk
BATCH = 8  # small runs are handed to a thread together
THREADS = 2
_MOST_SHARDS = 500  # all are open at once, and systems allow a process about 1,000 open files

Float64s = NDArray[np.float64]
Sources = Sequence[Checkpoint]


@dataclass(frozen=True)
class _Run:
    """At most CHUNK elements of one output tensor, and where they go."""

    tensor: TensorRecipe
    segment: Segment
    first: int  # element of the segment
    count: int
    descriptor: int
    position: int  # byte in the output file


def write_tensors(
    sources: Sources,
    tensors: Sequence[TensorRecipe],
    folder: Path,
    *,
    allow_nonfinite: bool = False,
    max_shard_size: int = MAX_SHARD_SIZE,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Carry out tensor recipes, whose terms refer to `sources` by index, and write the tensors into a folder.

    There is one `model.safetensors`, or shards with an index when it would exceed `max_shard_size` bytes. `progress`
    counts bytes.

    Returns:
        The names of the files.

    Raises:
        MergeError: if a value is not finite or a variance is below 0 (unless allowed), or a value does not fit the
            output's type, or the disk is full.
    """
    shards = _shards(tensors, max_shard_size)
    if len(shards) > _MOST_SHARDS:
        raise MergeError(
            f"--max-shard-size {max_shard_size:,} would make {len(shards):,} files, more than {_MOST_SHARDS}. "
            "Choose a larger one."
        )
    descriptors: list[int] = []
    try:
        places: dict[str, tuple[int, int]] = {}
        for name, group in shards.items():
            head, starts = encode_header({tensor.name: tensor.info for tensor in group})
            descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            descriptors.append(descriptor)
            _reserve(descriptor, len(head) + sum(tensor.info.nbytes for tensor in group))
            write_all(descriptor, head, 0)
            places |= {tensor: (descriptor, start) for tensor, start in starts.items()}
        _carry_out(sources, tensors, places, allow_nonfinite, progress)
    except OSError as error:
        raise MergeError(f"Could not write the weights: {error.strerror or error}. Nothing was kept.") from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if len(shards) == 1:
        return tuple(shards)
    index = {
        "metadata": {"total_size": sum(tensor.info.nbytes for tensor in tensors)},
        "weight_map": {tensor.name: name for name, group in shards.items() for tensor in group},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return (*shards, "model.safetensors.index.json")


def write_merged(
    plan: MergePlan,
    folder: Path,
    *,
    names: Mapping[str, str] | None = None,
    writing: WriteOptions = WriteOptions(),
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write the merged tensors of a plan into an existing folder and return the names of the files.

    `names` are those that tensors of the anchor get in the file, where they are to have others there.

    Raises:
        CheckpointError: if the plan's checkpoints cannot be read.
        MergeError: as `write_tensors`.
    """
    named = names or {}
    return write_tensors(
        plan.sources,
        [replace(tensor, name=named.get(tensor.name, tensor.name)) for tensor in tensor_recipes(plan)],
        folder,
        allow_nonfinite=writing.allow_nonfinite,
        max_shard_size=writing.shard_bytes,
        progress=progress,
    )


def _shards(tensors: Sequence[TensorRecipe], limit: int) -> Mapping[str, list[TensorRecipe]]:
    groups: list[list[TensorRecipe]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.info.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.info.nbytes
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, 1)}


def _reserve(descriptor: int, size: int) -> None:
    """Reserve the disk space, so that a full disk is found before the work and not after it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _carry_out(
    sources: Sources,
    tensors: Sequence[TensorRecipe],
    places: Mapping[str, tuple[int, int]],
    allow_nonfinite: bool,
    progress: Progress,
) -> None:
    stop = threading.Event()
    local, lock = threading.local(), threading.Lock()
    done, total = 0, sum(tensor.info.nbytes for tensor in tensors)

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress("Merging", done, total)

    def work(batch: list[_Run]) -> None:
        if not hasattr(local, "buffers"):
            local.buffers = _Buffers()
        for run in batch:
            if stop.is_set():
                return
            written = _in_file_order(run.tensor, _merge_run(sources, run, local.buffers, allow_nonfinite))
            write_all(run.descriptor, written, run.position)
            advance(len(written))

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            futures = [pool.submit(work, batch) for batch in _batches(tensors, places)]
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _batches(tensors: Sequence[TensorRecipe], places: Mapping[str, tuple[int, int]]) -> Iterator[list[_Run]]:
    batch: list[_Run] = []
    size = 0
    for tensor in tensors:
        descriptor, base = places[tensor.name]
        for segment in tensor.segments:
            step = segment.count if segment.whole or tensor.order else CHUNK
            for first in range(0, segment.count, step or 1):
                count = min(step, segment.count - first)
                position = base + byte_count(tensor.info.dtype, segment.start + first)
                batch.append(_Run(tensor, segment, first, count, descriptor, position))
                size += count
                if size >= BATCH * CHUNK:
                    yield batch
                    batch, size = [], 0
    yield batch


class _Buffers:
    """The memory that one thread works in, reused for every run."""

    def __init__(self) -> None:
        self._raw = np.empty(8 * CHUNK, np.uint8)
        self._floats: dict[np.dtype[np.generic], tuple[Array, Array, Array]] = {}

    def raw(self, size: int) -> Bytes:
        if size > len(self._raw):
            self._raw = np.empty(size, np.uint8)
        return self._raw[:size]

    def floats(self, dtype: np.dtype[np.generic], count: int) -> tuple[Array, Array, Array]:
        if dtype not in self._floats or count > len(self._floats[dtype][0]):
            size = max(count, CHUNK)
            self._floats[dtype] = (np.empty(size, dtype), np.empty(size, dtype), np.empty(size, dtype))
        first, second, third = self._floats[dtype]
        return first[:count], second[:count], third[:count]


def _merge_run(sources: Sources, run: _Run, buffers: _Buffers, allow_nonfinite: bool) -> memoryview:
    """The output bytes of a run."""
    terms = run.segment.terms
    dtypes = [sources[term.source].tensors[term.tensor].dtype for term in terms]
    target = run.tensor.info.dtype
    if not is_float(target):
        raw = buffers.raw(byte_count(target, run.count))
        _read(sources, run, 0, dtypes[0], raw)
        return raw.data
    combine = _by_rule if run.segment.whole else _weighted_sum
    with np.errstate(all="ignore"):
        merged = combine(sources, run, dtypes, buffers)
        if not allow_nonfinite and not np.isfinite(merged.sum()) and not np.isfinite(merged).all():
            _raise_nonfinite(sources, run, dtypes, buffers)
        if run.tensor.variance and not allow_nonfinite:
            _check_variances(sources, run, dtypes, buffers)
        if not fits(merged, target) and not allow_nonfinite:
            raise MergeError(
                f"{run.tensor.name}: a value does not fit {target}. Choose another --dtype. Nothing was kept."
            )
        if len(terms) == 1 and dtypes[0] == target:
            raw = buffers.raw(run.count * ITEM_SIZES[target])
            _read(sources, run, 0, target, raw)
            return raw.data
        return narrow(merged, target).data


def _in_file_order(tensor: TensorRecipe, merged: memoryview) -> memoryview:
    """The bytes of a run in the order of the file; they are a whole tensor where that is not the slot's order."""
    if tensor.order is None:
        return merged
    elements = np.frombuffer(merged, np.uint8).reshape(-1, ITEM_SIZES[tensor.info.dtype])
    return memoryview(tensor.order.to_stored(elements).reshape(-1))


def _weighted_sum(sources: Sources, run: _Run, dtypes: list[str], buffers: _Buffers) -> Array:
    merged, other, total = buffers.floats(accumulator(set(dtypes)), run.count)
    _read_floats(sources, run, 0, dtypes[0], merged, buffers)
    for index, term in enumerate(run.segment.terms[1:], 1):
        _read_floats(sources, run, index, dtypes[index], other, buffers)
        np.subtract(other, merged, out=other)
        np.multiply(other, merged.dtype.type(term.weight), out=other)
        if index == 1:
            total, other = other, total
        else:
            np.add(total, other, out=total)
    if len(run.segment.terms) > 1:
        np.add(merged, total, out=merged)
    return merged


def _by_rule(sources: Sources, run: _Run, dtypes: list[str], buffers: _Buffers) -> Float64s:
    """A whole segment in float64: what its rule makes of it, and of weight-normalised rows one factor."""
    segment = run.segment
    if segment.weight_norm is not None:
        return _weight_norm_factor(sources, segment, segment.weight_norm)
    assert segment.rule is not None
    arrays = [_float64s(sources, term, run.count) for term in segment.terms]
    arrays += [_float64s(sources, term, sources[term.source].tensors[term.tensor].count) for term in segment.extras]
    return segment.rule(arrays)


def _weight_norm_factor(sources: Sources, segment: Segment, norm: WeightNorm) -> Float64s:
    """Lengths or directions of the merged effective weights; rows in which no model differs stay the anchor's bits."""
    factors = [_factors(sources, term, *other, norm) for term, other in zip(segment.terms, norm.others, strict=True)]
    length, direction = factors[0]
    values = [_row_scaled(g, v) for g, v in factors]
    if segment.rule is not None:
        merged = segment.rule([value.reshape(-1) for value in values]).reshape(values[0].shape)
    else:
        terms = zip(segment.terms[1:], values[1:], strict=True)
        merged = values[0] + sum(term.weight * (value - values[0]) for term, value in terms)
    lengths = np.linalg.norm(merged, axis=1)
    changed = (merged != values[0]).any(axis=1)
    if norm.factor == "g":
        return np.where(changed, lengths, length)
    # The direction keeps the length that the anchor's had, which the layer divides out again.
    rescaled = _row_scaled(np.linalg.norm(direction, axis=1), merged)
    return np.where((changed & (lengths > 0))[:, None], rescaled, direction).reshape(-1)


def _row_scaled(lengths: Float64s, directions: Float64s) -> Float64s:
    norms: Float64s = np.linalg.norm(directions, axis=1)
    scale: Float64s = np.divide(lengths, norms, out=np.zeros_like(norms), where=norms != 0)
    return directions * scale[:, None]


def _factors(sources: Sources, term: Term, other: str, start: int, norm: WeightNorm) -> tuple[Float64s, Float64s]:
    """A term's rows as lengths (rows,) and directions (rows, width)."""
    partner = Term(term.source, other, start, 1.0)
    length, direction = (term, partner) if norm.factor == "g" else (partner, term)
    directions = _float64s(sources, direction, norm.rows * norm.width)
    return _float64s(sources, length, norm.rows), directions.reshape(norm.rows, norm.width)


def _float64s(sources: Sources, term: Term, count: int) -> Float64s:
    source = sources[term.source]
    dtype = source.tensors[term.tensor].dtype
    raw = np.empty(count * ITEM_SIZES[dtype], np.uint8)
    source.read_elements(term.tensor, term.start, raw)
    values = np.empty(count, np.float64)
    widen(raw, dtype, values)
    return values


def _read_floats(sources: Sources, run: _Run, index: int, dtype: str, out: Array, buffers: _Buffers) -> None:
    if ITEM_SIZES[dtype] == out.dtype.itemsize:
        _read(sources, run, index, dtype, out.view(np.uint8))
        return
    raw = buffers.raw(run.count * ITEM_SIZES[dtype])
    _read(sources, run, index, dtype, raw)
    widen(raw, dtype, out)


def _read(sources: Sources, run: _Run, index: int, dtype: str, out: Array) -> None:
    term = run.segment.terms[index]
    sources[term.source].read_elements(term.tensor, term.start + run.first, out.view(np.uint8))


def _raise_nonfinite(sources: Sources, run: _Run, dtypes: list[str], buffers: _Buffers) -> None:
    values = buffers.floats(accumulator(set(dtypes)), run.count)[0]
    for index, term in enumerate(run.segment.terms):
        _read_floats(sources, run, index, dtypes[index], values, buffers)
        if not np.isfinite(values).all():
            raise MergeError(
                f"{sources[term.source].label}: tensor {term.tensor!r} has a value that is not finite. "
                "Nothing was kept. Repair the checkpoint, or merge anyway with --allow-nonfinite."
            )
    raise MergeError(f"{run.tensor.name}: the merged values overflow. Nothing was kept.")


def _check_variances(sources: Sources, run: _Run, dtypes: list[str], buffers: _Buffers) -> None:
    """Refuse variances below 0, with which a network computes NaN; a weighted mean may hide them."""
    values = np.empty(run.count, accumulator(set(dtypes)))
    for index, term in enumerate(run.segment.terms):
        source = sources[term.source]
        if all(is_variance(atom.slot) for atom in source.slot_map.atoms[term.tensor]):  # others are means
            _read_floats(sources, run, index, dtypes[index], values, buffers)
            if values.min() < 0:
                raise MergeError(
                    f"{source.label}: tensor {term.tensor!r} is a variance, and has a value below 0. Nothing was kept. "
                    "Repair the checkpoint, or merge anyway with --allow-nonfinite."
                )
