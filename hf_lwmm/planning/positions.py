"""Positions of another grid of patches, or of another window, than the anchor's, and registers."""

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
from hf_lwmm.text import first_few

_REGISTERS = ".embed.registers"
_OF_CLASS_TOKEN = 3  # relative positions of BEiT's class token: to patches, from them, and to itself
_CUBIC = -0.75  # the parameter of the kernel, as torch and so transformers have it


def position_notes(checkpoints: Sequence[Checkpoint], anchor: int) -> Iterator[str]:
    """Yield a note for each model that has position embeddings of another grid, or other registers, than the anchor."""
    ours = checkpoints[anchor]
    for theirs in checkpoints:
        yield from _register_notes(ours, theirs)
        for (old, new), slots in _other_grids(ours, theirs).items():
            yield (
                f"{theirs.label} has {old}, {ours.label} of {new.size}: the anchor's are kept ({first_few(slots, 1)}). "
                "--resize-position interpolates those of the other models instead."
            )


def resize_positions(
    checkpoints: Sequence[Checkpoint], anchor: int, base: Checkpoint | None
) -> tuple[tuple[Checkpoint, ...], Checkpoint | None, tuple[str, ...]]:
    """Return the checkpoints, and the base, with positions of the anchor's grid or window, and notes on what changed.

    Values are interpolated when they are read. Those of the class token and of registers stay as they are.

    Raises:
        PlanError: if the anchor has no positions of a square grid or window.
    """
    ours = checkpoints[anchor]
    if not any(_grid_of(slot, atom) for slot, atom in ours.slot_map.slots.items()):
        raise PlanError(
            f"{ours.label}: has no position embeddings of a square grid of patches, nor relative ones of a square "
            "window, that a layout knows, so --resize-position has nothing to do; leave it out."
        )
    notes = []

    def resized(theirs: Checkpoint) -> Checkpoint:
        found = _other_grids(ours, theirs)
        for (old, new), slots in found.items():
            some = first_few(slots, 1)
            notes.append(f"{theirs.label}: its {old} are interpolated (bicubic) to the anchor's {new.size} ({some}).")
        sides = {slot: new.side for (_, new), slots in found.items() for slot in slots}
        return _resized(theirs, sides) if found else theirs

    return tuple(map(resized, checkpoints)), resized(base) if base else None, tuple(notes)


def interpolated(grid: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return values on a grid of `side` x `side`, (side ** 2, C), made from those on another square grid, (N, C).

    Bicubic, with pixel centres aligned and borders repeated: torch's `interpolate(mode="bicubic")`, which Microsoft's
    Swin uses for relative positions, too.
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


@dataclass(frozen=True)
class _Grid:
    """The square grid in the rows of a slot: positions of patches, or relative ones within a window.

    `behind` rows after it belong to none of its places: those of BEiT's class token.
    """

    side: int
    relative: bool
    behind: int

    @property
    def size(self) -> str:
        """The patches of the picture, or of the window."""
        side = (self.side + 1) // 2 if self.relative else self.side
        return f"{side} x {side}"

    def __str__(self) -> str:
        if self.relative:
            return f"relative positions in windows of {self.size}"
        return f"position embeddings of {self.size} patches"


def _grid_of(slot: str, atom: Atom) -> _Grid | None:
    """The grid in a slot, None if it has none, or one that is not square."""
    place = place_of(slot)
    if place is None or len(atom.shape) < 2:
        return None
    rows = atom.shape[-2]
    if "grid" in place[1].flags and math.isqrt(rows) ** 2 == rows:
        return _Grid(math.isqrt(rows), False, 0)
    for behind in (0, _OF_CLASS_TOKEN) if "relative" in place[1].flags else ():
        side = math.isqrt(max(rows - behind, 0))
        if side % 2 and side**2 == rows - behind:
            return _Grid(side, True, behind)
    return None


def _other_grids(ours: Checkpoint, theirs: Checkpoint) -> dict[tuple[_Grid, _Grid], list[str]]:
    """Slots that differ only in the size of a grid, by theirs and ours."""
    mine, other = ours.slot_map.slots, theirs.slot_map.slots
    found: dict[tuple[_Grid, _Grid], list[str]] = {}
    for slot in mine:
        if slot not in other or mine[slot].shape[-1:] != other[slot].shape[-1:]:
            continue
        old, new = _grid_of(slot, other[slot]), _grid_of(slot, mine[slot])
        alike = old and new and old.side != new.side and old.behind == new.behind
        if old and new and alike and is_float(theirs.tensors[other[slot].tensor].dtype):
            found.setdefault((old, new), []).append(slot)
    return found


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


def _resized(checkpoint: Checkpoint, sides: Mapping[str, int]) -> Checkpoint:
    """The checkpoint with other sides of the grids of some slots."""
    tensors, readers = dict(checkpoint.tensors), dict[str, _ResizedTensor]()
    for slot, side in sides.items():
        name = checkpoint.slot_map.slots[slot].tensor
        info, atoms = checkpoint.tensors[name], checkpoint.slot_map.atoms[name]
        grid = _grid_of(slot, checkpoint.slot_map.slots[slot])
        assert grid is not None
        rows = info.shape[-2] - grid.side**2 + side**2
        tensors[name] = TensorInfo(info.dtype, (*info.shape[:-2], rows, info.shape[-1]))
        readers[name] = _ResizedTensor(info, atoms, slot, grid, side)
    return replace(checkpoint, tensors=tensors, reader=_ResizedReader(checkpoint.reader, readers))


@dataclass(frozen=True)
class _ResizedTensor:
    """A stored tensor, its atoms, and the grid of one of them with its new side."""

    info: TensorInfo
    atoms: tuple[Atom, ...]
    slot: str
    grid: _Grid
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
            if atom.slot == self.slot:
                count = self.grid.side**2
                pieces.append(interpolated(rows[:count], self.side))
                rows = rows[count:]
            pieces.append(rows)
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
