"""Tokens beside the picture's own: position embeddings of another grid than the anchor's, and registers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import Bytes, is_float, narrow, widen
from hf_lwmm.checkpoints.readers import TensorReader
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.errors import PlanError
from hf_lwmm.layouts import Atom, place_of

_REGISTERS = ".embed.registers"
_CUBIC = -0.75  # the parameter of the kernel, as torch and so transformers have it


def position_notes(checkpoints: Sequence[Checkpoint], anchor: int) -> Iterator[str]:
    """Yield a note for each model that has position embeddings of another grid, or other registers, than the anchor."""
    ours = checkpoints[anchor]
    for theirs in checkpoints:
        yield from _register_notes(ours, theirs)
        for slot, old, new in _other_grids(ours, theirs):
            yield (
                f"{theirs.label} has position embeddings of {_grid(old)} patches, {ours.label} of {_grid(new)}: the "
                f"anchor's are kept ({slot}). --resize-position interpolates those of the other models instead."
            )


def resize_positions(
    checkpoints: Sequence[Checkpoint], anchor: int, base: Checkpoint | None
) -> tuple[tuple[Checkpoint, ...], Checkpoint | None, tuple[str, ...]]:
    """Return the checkpoints, and the base, with position embeddings of the anchor's grid, and notes on what changed.

    Values are interpolated when they are read. Those of the class token and of registers stay as they are.

    Raises:
        PlanError: if the anchor has no position embeddings of a square grid.
    """
    ours = checkpoints[anchor]
    if not any(_side(atom) for slot, atom in ours.slot_map.slots.items() if _is_grid(slot)):
        raise PlanError(
            f"{ours.label}: has no position embeddings of a square grid of patches that a layout knows, so "
            "--resize-position has nothing to do; leave it out."
        )
    notes = []

    def resized(theirs: Checkpoint) -> Checkpoint:
        found = [*_other_grids(ours, theirs)]
        for slot, old, new in found:
            notes.append(
                f"{theirs.label}: its position embeddings of {_grid(old)} patches are interpolated (bicubic) to the "
                f"anchor's {_grid(new)} ({slot})."
            )
        return _resized(theirs, {slot: new for slot, _, new in found}) if found else theirs

    return tuple(map(resized, checkpoints)), resized(base) if base else None, tuple(notes)


def interpolated(grid: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return an embedding of `side` x `side` patches, (side ** 2, C), made from that of another square grid, (N, C).

    Bicubic, with pixel centres aligned and borders repeated: torch's `interpolate(mode="bicubic")`.
    """
    old = math.isqrt(len(grid))
    matrix = _cubic_matrix(old, side)
    square = grid.reshape(old, old, -1)
    return np.asarray(np.einsum("ih,jw,hwc->ijc", matrix, matrix, square).reshape(side * side, -1))


def _cubic_matrix(old: int, new: int) -> NDArray[np.float64]:
    """The weight of each of `old` samples in each of `new`, (new, old)."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        place = np.floor(centres).astype(int) + tap
        np.add.at(matrix, (np.arange(new), place.clip(0, old - 1)), _cubic(np.abs(centres - place)))
    return matrix


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel, for distances below 2."""
    x, a = distance, _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    return np.where(x <= 1, near, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a)


def _other_grids(ours: Checkpoint, theirs: Checkpoint) -> Iterator[tuple[str, int, int]]:
    """Slots of position embeddings that differ only in the grid, with the side of theirs and of ours."""
    mine, other = ours.slot_map.slots, theirs.slot_map.slots
    for slot in mine:
        if _is_grid(slot) and slot in other and mine[slot].shape[-1] == other[slot].shape[-1]:
            old, new = _side(other[slot]), _side(mine[slot])
            if old and new and old != new and is_float(theirs.tensors[other[slot].tensor].dtype):
                yield slot, old, new


def _register_notes(ours: Checkpoint, theirs: Checkpoint) -> Iterator[str]:
    mine, other = (
        {slot: atom.shape[-2] for slot, atom in each.slot_map.slots.items() if slot.endswith(_REGISTERS)}
        for each in (ours, theirs)
    )
    backbone = theirs.slot_map.backbone
    if backbone is None or backbone is not ours.slot_map.backbone:
        return
    for slot, count in mine.items():
        if other.get(slot) != count:
            have = f"{other[slot]} registers" if slot in other else "no registers"
            yield f"{theirs.label} has {have}, {ours.label} has {count}: the anchor's are kept ({slot})."
    for slot, count in other.items():
        if slot not in mine:
            yield f"{theirs.label} has {count} registers, {ours.label} has none: they are left out ({slot})."


def _is_grid(slot: str) -> bool:
    place = place_of(slot)
    return place is not None and "grid" in place[1].flags


def _side(atom: Atom) -> int:
    """The patches in a row of a square grid, 0 if the grid is no square."""
    patches = atom.shape[-2] if len(atom.shape) > 1 else 0
    return math.isqrt(patches) if math.isqrt(patches) ** 2 == patches else 0


def _grid(side: int) -> str:
    return f"{side} x {side}"


def _resized(checkpoint: Checkpoint, sides: Mapping[str, int]) -> Checkpoint:
    """The checkpoint with other sides of the grids of some slots."""
    tensors, readers = dict(checkpoint.tensors), dict[str, _ResizedTensor]()
    for slot, side in sides.items():
        name = checkpoint.slot_map.slots[slot].tensor
        info, atoms = checkpoint.tensors[name], checkpoint.slot_map.atoms[name]
        rows = sum(side * side if atom.slot == slot else atom.shape[-2] for atom in atoms)
        tensors[name] = TensorInfo(info.dtype, (*info.shape[:-2], rows, info.shape[-1]))
        readers[name] = _ResizedTensor(info, atoms, slot, side)
    return replace(checkpoint, tensors=tensors, reader=_ResizedReader(checkpoint.reader, readers))


@dataclass(frozen=True)
class _ResizedTensor:
    """A stored tensor, its atoms, and the new side of the grid of one of them."""

    info: TensorInfo
    atoms: tuple[Atom, ...]
    slot: str
    side: int

    def read(self, name: str, reader: TensorReader) -> Bytes:
        """The bytes of the resized tensor."""
        raw = np.empty(self.info.nbytes, np.uint8)
        reader.read(name, 0, memoryview(raw))  # type: ignore[arg-type]
        values = np.empty(self.info.count, np.float64)
        widen(raw, self.info.dtype, values)
        pieces = []
        for atom in self.atoms:
            rows = values[atom.start : atom.start + math.prod(atom.shape)].reshape(-1, atom.shape[-1])
            pieces.append(interpolated(rows, self.side) if atom.slot == self.slot else rows)
        return narrow(np.concatenate(pieces).reshape(-1), self.info.dtype).view(np.uint8)


@dataclass
class _ResizedReader:
    """Reads tensors, some of which are interpolated when they are first read."""

    inner: TensorReader
    resized: Mapping[str, _ResizedTensor]
    done: dict[str, Bytes] = field(default_factory=dict)

    def read(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from its byte `start` on."""
        if name not in self.resized:
            self.inner.read(name, start, buffer)
            return
        if name not in self.done:
            self.done[name] = self.resized[name].read(name, self.inner)
        buffer[:] = self.done[name][start : start + len(buffer)].data

    def close(self) -> None:
        """Let go of the tensors, which cannot be read again."""
        self.done = {}
        self.inner.close()
