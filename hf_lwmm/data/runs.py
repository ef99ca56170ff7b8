"""Hold maps of ids as runs of equal pixels, of which smooth maps have far fewer than pixels to compare and count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_lwmm.data.compiled import BYTES, INTEGERS, WORDS, Argument, compiled
from hf_lwmm.errors import MetricError

Ids = npt.NDArray[np.integer]
Places = npt.NDArray[np.int64]

CHUNK = 1 << 18  # pixels searched in one call of the compiled loop, which needs a place for the end of each


@dataclass(frozen=True)
class Runs:
    """A (height, width) map of ids as k runs of pixels with one id, in reading order across the rows.

    `ends` (k,) int64 are the places of the runs' last pixels, ascending up to height * width - 1; `ids` (k,) are their
    ids. Neighbouring runs may have the same id.
    """

    shape: tuple[int, int]
    ends: Places = field(repr=False)
    ids: Ids = field(repr=False)

    @classmethod
    def of(cls, ids: Ids) -> Runs:
        """Return the runs of (height, width) integer ids."""
        ends = run_ends(ids)
        height, width = ids.shape
        return cls((height, width), ends, ids.reshape(-1)[ends])

    def paint(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the (height, width) map in which the pixels of each run have its value of the (k,) `values`."""
        painted: npt.NDArray[Any] = np.repeat(values, np.diff(self.ends, prepend=-1)).reshape(self.shape)
        return painted


def run_ends(pixels: npt.NDArray[Any]) -> Places:
    """Return the places, in reading order, at which runs of equal pixels end: (k,) int64.

    `pixels` are (height, width) or (height, width, channels) of any type.
    """
    count = pixels.shape[0] * pixels.shape[1]
    if not count:
        return np.empty(0, np.int64)
    values = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    step = values.size // count
    places, ends = np.empty(CHUNK, np.int64), []
    for start in range(0, count - 1, CHUNK):
        part = values[step * start : step * (start + CHUNK + 1)]
        words = (part.size - step) // 8
        here, after = (np.ndarray((words,), np.uint64, part, offset=offset) for offset in (0, step))
        ends.append(places[: _find_changes(part, step, here, after, places)] + start)
    return np.concatenate([*ends, [count - 1]])


@compiled(BYTES, Argument(), WORDS, WORDS, Argument(ndim=1))
def _find_changes(values: Any, step: int, here: Any, after: Any, places: Any) -> int:
    """Write the pixels that differ from the next one into `places`, and return their number.

    A pixel is `step` bytes of `values`. `here` are the values as 64-bit words, and `after` the words that begin a pixel
    later: where two are equal, eight bytes equal those of the next pixels and are passed over.
    """
    found, last = 0, -1
    for word in range(here.size):
        if here[word] != after[word]:
            for place in range(8 * word, 8 * word + 8):
                if values[place] != values[place + step] and place // step != last:
                    last = place // step
                    places[found] = last
                    found += 1
    for place in range(8 * here.size, values.size - step):
        if values[place] != values[place + step] and place // step != last:
            last = place // step
            places[found] = last
            found += 1
    return found


def shared_areas(first: Runs, second: Runs) -> tuple[Ids, Ids, npt.NDArray[np.int64]]:
    """Return the sorted ids of two maps, (a,) and (b,), and the number of pixels that each pair shares, (a, b) int64.

    Raises:
        MetricError: if the maps differ in shape.
    """
    if first.shape != second.shape:
        sizes = ("x".join(map(str, runs.shape)) for runs in (first, second))
        raise MetricError("One map is {} but the other {}; they must have one size.".format(*sizes))
    rows, row = _ranked(first.ids)
    columns, column = _ranked(second.ids)
    areas = np.zeros((rows.size, columns.size), np.int64)
    _add_areas(first.ends, row, second.ends, column, areas)
    return rows, columns, areas


def _ranked(ids: Ids) -> tuple[Ids, Places]:
    """The ids that occur, sorted, and the place of each among them; small ids are ranked without sorting."""
    if ids.size == 0 or ids.dtype == bool or ids.min() < 0 or ids.max() > ids.size:
        return np.unique(ids, return_inverse=True)
    occurs = np.zeros(int(ids.max()) + 1, dtype=bool)
    occurs[ids] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[ids]


@compiled(INTEGERS, INTEGERS, INTEGERS, INTEGERS, Argument(ndim=2))
def _add_areas(ends: Any, row: Any, other_ends: Any, column: Any, areas: Any) -> None:
    """Add the pixels that runs of two maps share to `areas`, at the row and the column of their ids."""
    other, begin = 0, -1
    for run in range(ends.size):
        while begin < ends[run]:
            end = min(ends[run], other_ends[other])
            areas[row[run], column[other]] += end - begin
            begin = end
            if end == other_ends[other]:
                other += 1
