"""Turn logits of any size into class maps, computing them only where neighbours disagree about the class.

A value between four neighbours, resized bilinearly, is a convex combination of theirs: a class that is the best of all
four is the best of everything between them. The same holds for means over windows, and for means of softmax outputs if
a class is the best of each. Only the other pixels are computed, at their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hf_lwmm.evaluation.neighbours import best_between, rounding_of, values_between
from hf_lwmm.networks.windows import Box

ClassMap = NDArray[np.uint8]
Size = tuple[int, int]  # height, width
_UNKNOWN = -1
_VALUES = 1 << 22  # of pixels and classes, that are computed at a time
_PIXELS = 1 << 18  # that are worth a thread


@dataclass(frozen=True)
class Logits:
    """The logits of a network for one picture: those of the whole, or of each window; each (C, h, w) of any size.

    `boxes` are y1, y2, x1, x2 of the windows in a picture of `size` (height, width), beyond which they may reach; a
    whole picture has none. `align_corners` is how the code base of the network resizes logits.
    """

    logits: tuple[Tensor, ...]
    align_corners: bool = False
    boxes: tuple[Box, ...] = ()
    size: Size = (0, 0)


@torch.inference_mode()
def best_classes(logits: Sequence[Logits], size: Size, gather: Sequence[Tensor | None] = ()) -> ClassMap:
    """Return the most probable class of every pixel, (height, width) uint8.

    The softmax outputs of several networks or views are averaged.

    Args:
        logits: those of each network and view.
        size: height and width of the map.
        gather: for each of the logits, the rows in which the first network's classes are found, as `rows_of_classes`
            gives them. A class that a network does not know is averaged over the others.
    """
    grids = [_grid(each, size) for each in logits]
    grid = grids[0] if len(grids) == 1 else _SoftmaxMean(grids, gather or [None] * len(grids))
    if isinstance(grid, _Resized) and (found := grid.best()) is not None:
        return found
    result = grid.certain().flatten()
    unknown = (result == _UNKNOWN).nonzero()[:, 0].int()
    for places in _parts(unknown, grid):
        y = places.div(size[1], rounding_mode="floor")
        result[places] = grid.at(y, places - y * size[1]).argmax(1).to(result.dtype)
    return result.view(size).to(torch.uint8).cpu().numpy()


@torch.inference_mode()
def resized_logits(found: Logits, size: Size) -> Tensor:
    """Return logits, or the mean of those of windows, resized bilinearly to a height and width: (C, height, width)."""
    grid, device = _grid(found, size), found.logits[0].device
    places = torch.arange(size[0] * size[1], dtype=torch.int32, device=device)
    values = [grid.at(part // size[1], part % size[1]) for part in _parts(places, grid)]
    return torch.cat(values).T.reshape(grid.classes, *size)


def average(outputs: Sequence[Tensor], gather: Sequence[Tensor | None]) -> Tensor:
    """Return the mean of the softmax of several networks' logits, each (N, C), in the classes of the first.

    `gather` is as in `best_classes`.
    """
    total, known = torch.zeros_like(outputs[0]), outputs[0].new_zeros(outputs[0].shape[1])
    for output, rows in zip(outputs, gather, strict=True):
        probabilities = output.softmax(1)
        if rows is None:
            total += probabilities
            known += 1
        else:
            there = rows >= 0
            total[:, there] += probabilities[:, rows[there]]
            known[there] += 1
    return total / known.clamp(min=1)


class _Grid(Protocol):
    """Values of every class at every pixel of a size, which are computed where they are asked for."""

    @property
    def size(self) -> Size: ...

    @property
    def classes(self) -> int: ...

    def certain(self) -> Tensor:
        """Return the best class of each pixel, (height, width) int16, `_UNKNOWN` where it takes values to know it."""
        ...

    def at(self, y: Tensor, x: Tensor) -> Tensor:
        """Return the values at some pixels, (N, C); `y` and `x` are (N,) int32."""
        ...


def _parts(places: Tensor, grid: _Grid) -> Iterator[Tensor]:
    """The places in parts whose values fit into memory, and into the processor's caches."""
    step = max(1, _VALUES // grid.classes)
    return (places[start : start + step] for start in range(0, len(places), step))


def _grid(found: Logits, size: Size) -> _Grid:
    corners = found.align_corners
    if not found.boxes:
        return _resized(_Stored(found.logits[0]), size, corners)
    pairs = zip(found.logits, found.boxes, strict=True)
    parts = [
        (_resized(_Stored(each), (y2 - y1, x2 - x1), corners), (y1, y2, x1, x2)) for each, (y1, y2, x1, x2) in pairs
    ]
    return _resized(_WindowMean(parts, found.size), size, corners)


class _Stored:
    """Logits (C, h, w) at their own size."""

    def __init__(self, logits: Tensor) -> None:
        self.classes, self.size = len(logits), (logits.shape[1], logits.shape[2])
        self.rows = logits.permute(1, 2, 0).reshape(-1, self.classes).contiguous()  # (h * w, C): fast to look up

    def certain(self) -> Tensor:
        return self.rows.argmax(1).to(torch.int16).view(self.size)

    def at(self, y: Tensor, x: Tensor) -> Tensor:
        return self.rows[y * self.size[1] + x]


def _resized(source: _Grid, size: Size, align_corners: bool) -> _Grid:
    return source if source.size == size else _Resized(source, size, align_corners)


@dataclass(frozen=True)
class _Resized:
    """A grid resized bilinearly."""

    source: _Grid
    size: Size
    align_corners: bool

    @property
    def classes(self) -> int:
        return self.source.classes

    def best(self) -> ClassMap | None:
        """Return the best class of each pixel, to the last digit; None if it takes another way to find it."""
        if self._neighbours is None or self.classes > 256:
            return None
        logits, width, tops, bottoms, downs, *across = self._neighbours
        out, rounding = np.empty(self.size, np.uint8), rounding_of(logits)

        def fill(rows: slice) -> None:
            best = np.empty(len(logits), np.int16)
            best_between(logits, width, tops[rows], bottoms[rows], downs[rows], *across, rounding, best, out[rows])

        parts = min(torch.get_num_threads(), -(-out.size // _PIXELS))
        if parts == 1:
            fill(slice(None))
            return out
        ends = [len(out) * part // parts for part in range(parts + 1)]
        with ThreadPoolExecutor(parts) as pool:
            list(pool.map(fill, map(slice, ends, ends[1:])))
        return out

    @cached_property
    def _neighbours(self) -> tuple[Any, ...] | None:
        """The arguments of compiled loops for the values and their neighbours; None if these are not theirs."""
        rows = self.source.rows if isinstance(self.source, _Stored) else None
        if rows is None or rows.device.type != "cpu" or rows.dtype != torch.float32:
            return None
        axes = (part.numpy() for axis in self._axes(rows.device) for part in (axis.before, axis.after, axis.part))
        return (rows.numpy(), self.source.size[1], *axes)

    def certain(self) -> Tensor:
        source = self.source.certain()
        y, x = self._axes(source.device)
        across = _agreed(source[:, x.before], source[:, x.after])
        return _agreed(across[y.before], across[y.after])

    def at(self, y: Tensor, x: Tensor) -> Tensor:
        if self._neighbours is not None:
            out = torch.empty(len(y), self.classes)
            values_between(*self._neighbours, y.numpy(), x.numpy(), out.numpy())
            return out
        rows, columns = self._axes(y.device)
        top, bottom, down = rows.before[y], rows.after[y], rows.part[y]
        left, right, along = columns.before[x], columns.after[x], columns.part[x]
        corners = [(top, left), (top, right), (bottom, left), (bottom, right)]
        weights = [(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along]
        if isinstance(self.source, _Stored):
            width = self.source.size[1]
            places = torch.stack([y * width + x for y, x in corners], 1)
            table = self.source.rows
            return nn.functional.embedding_bag(places, table, per_sample_weights=torch.stack(weights, 1), mode="sum")
        values = (self.source.at(*corner) * weight[:, None] for corner, weight in zip(corners, weights, strict=True))
        return sum(values, start=torch.zeros((), device=y.device))

    def _axes(self, device: torch.device) -> tuple[_Axis, _Axis]:
        pairs = zip(self.source.size, self.size, strict=True)
        y, x = (_Axis.of(length, wanted, self.align_corners, device) for length, wanted in pairs)
        return y, x


@dataclass(frozen=True)
class _Axis:
    """The neighbours before and after each place of a resized axis, int32, and the weight of the one after it."""

    before: Tensor
    after: Tensor
    part: Tensor

    @classmethod
    def of(cls, length: int, wanted: int, align_corners: bool, device: torch.device) -> _Axis:
        place = torch.arange(wanted, dtype=torch.float64, device=device)
        if align_corners:
            scale = torch.tensor((length - 1) / (wanted - 1) if wanted > 1 else 0.0, dtype=torch.float32)
            place = (place * scale.double().to(device)).float()
        else:  # the scale, and the place at the end, are rounded to single precision, as torch rounds them
            scale = torch.tensor(length / wanted, dtype=torch.float32)
            place = ((place + 0.5) * scale.double().to(device) - 0.5).float().clamp(min=0)
        before = place.floor().int().clamp(max=length - 1)
        return cls(before, (before + 1).clamp(max=length - 1), place - before)


@dataclass(frozen=True)
class _WindowMean:
    """The mean, at each pixel of a picture, over the windows that have it."""

    parts: Sequence[tuple[_Grid, Box]]
    size: Size

    @property
    def classes(self) -> int:
        return self.parts[0][0].classes

    def certain(self) -> Tensor:
        result: Tensor | None = None
        seen: Tensor | None = None
        height, width = self.size
        for grid, (y1, y2, x1, x2) in self.parts:
            part = grid.certain()
            if result is None or seen is None:
                result = part.new_full(self.size, _UNKNOWN)
                seen = torch.zeros(self.size, dtype=torch.bool, device=part.device)
            inside = slice(max(y1, 0), min(y2, height)), slice(max(x1, 0), min(x2, width))
            part = part[max(-y1, 0) : max(height - y1, 0), max(-x1, 0) : max(width - x1, 0)]
            result[inside] = torch.where(seen[inside], _agreed(result[inside], part), part)
            seen[inside] = True
        assert result is not None
        return result

    def at(self, y: Tensor, x: Tensor) -> Tensor:
        total = torch.zeros(len(y), self.classes, device=y.device)
        count = torch.zeros(len(y), 1, device=y.device)
        for grid, (y1, y2, x1, x2) in self.parts:
            inside = ((y >= y1) & (y < y2) & (x >= x1) & (x < x2)).nonzero()[:, 0]
            total[inside] += grid.at(y[inside] - y1, x[inside] - x1)
            count[inside] += 1
        return total / count


@dataclass(frozen=True)
class _SoftmaxMean:
    """The mean of the softmax of several grids of one size, in the classes of the first."""

    grids: Sequence[_Grid]
    gather: Sequence[Tensor | None]

    @property
    def size(self) -> Size:
        return self.grids[0].size

    @property
    def classes(self) -> int:
        return self.grids[0].classes

    def certain(self) -> Tensor:
        result = self._certain(0)
        for index in range(1, len(self.grids)):
            result = _agreed(result, self._certain(index))
        return result

    def _certain(self, index: int) -> Tensor:
        """The best classes of a grid; none if it lacks a class, whose mean is then over other networks."""
        grid, rows = self.grids[index], self.gather[index]
        certain = grid.certain()
        if rows is None:
            return certain
        if bool((rows < 0).any()):
            return torch.full_like(certain, _UNKNOWN)
        names = certain.new_full((grid.classes + 1,), _UNKNOWN)  # the last for _UNKNOWN itself
        backwards = torch.arange(len(rows) - 1, -1, -1, device=certain.device)  # of equal rows the first class stays
        names[rows.to(certain.device)[backwards].long()] = backwards.to(names.dtype)
        return names[certain.int()]

    def at(self, y: Tensor, x: Tensor) -> Tensor:
        gather = [rows if rows is None else rows.to(y.device) for rows in self.gather]
        return average([grid.at(y, x) for grid in self.grids], gather)


def _agreed(some: Tensor, others: Tensor) -> Tensor:
    """The classes on which two maps agree."""
    return torch.where(some == others, some, _UNKNOWN)
