"""Compute values between four neighbours, and the best class there, as torch's bilinear interpolation does to the bit.

torch rounds the product with the neighbour after, and then once more when the one with the neighbour before has been
added to it (a fused multiplication and addition). In double precision both steps can be followed: a product of two
single-precision numbers is exact there. So two classes that differ in the last digit are told apart as a loop that
enlarges all logits does, but for maps of 128 pixels or less in height and width together, and for logits of 3 classes
or of a single place, which torch rounds otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.data.compiled import Argument, compiled

_LOGITS, _PLACES, _PARTS = Argument("float32", 2), Argument("int32", 1), Argument("float32", 1)
_GRID = (_LOGITS, Argument(), _PLACES, _PLACES, _PARTS, _PLACES, _PLACES, _PARTS)


def _between(a: Any, b: Any, c: Any, d: Any, along: Any, back: Any, down: Any, up: Any) -> Any:
    """The value between a and b above and c and d below. The weights are of single precision, given in double."""
    above = np.float32(a * back + np.float64(np.float32(b * along)))
    below = np.float32(c * back + np.float64(np.float32(d * along)))
    return np.float32(above * up + np.float64(np.float32(below * down)))


@compiled(*_GRID, _PLACES, _PLACES, _LOGITS, using=(_between,))
def values_between(
    logits: Any,
    width: Any,
    tops: Any,
    bottoms: Any,
    downs: Any,
    lefts: Any,
    rights: Any,
    alongs: Any,
    y: Any,
    x: Any,
    out: Any,
) -> None:
    """Write the values of some pixels of a resized map, (N, classes) float32, to `out`.

    Args:
        logits, width, tops, bottoms, downs, lefts, rights, alongs: as for `best_between`.
        y, x: the rows and columns of the pixels, (N,) int32.
        out: the values.
    """
    for n in range(len(y)):
        top, bottom = tops[y[n]] * width, bottoms[y[n]] * width
        left, right = lefts[x[n]], rights[x[n]]
        down, up = np.float64(downs[y[n]]), np.float64(np.float32(1) - downs[y[n]])
        along, back = np.float64(alongs[x[n]]), np.float64(np.float32(1) - alongs[x[n]])
        a, b, c, d = logits[top + left], logits[top + right], logits[bottom + left], logits[bottom + right]
        for k in range(out.shape[1]):
            out[n, k] = _between(a[k], b[k], c[k], d[k], along, back, down, up)


def rounding_of(logits: NDArray[np.float32]) -> float:
    """Return by how much values between neighbours may lie beyond them, for the smallest numbers of all, too."""
    most = max(-float(logits.min()), float(logits.max()))
    return 1e-6 * most + 1e-43


@compiled(*_GRID, Argument("float32"), Argument("int16", 1), Argument("uint8", 2), using=(_between,))
def best_between(
    logits: Any,
    width: Any,
    tops: Any,
    bottoms: Any,
    downs: Any,
    lefts: Any,
    rights: Any,
    alongs: Any,
    rounding: Any,
    best: Any,
    out: Any,
) -> None:
    """Write the best class of every pixel of a resized map, (height, width) uint8, to `out`.

    Args:
        logits: (h * w, classes) float32, at most 256 classes.
        width: w.
        tops: the row of the neighbours above each row of the map, int32.
        bottoms: the row of those below.
        downs: the weight of those below, float32.
        lefts, rights, alongs: the same for columns.
        rounding: by how much a value between neighbours may lie beyond them, as `rounding_of` gives it.
        best: (h * w,) int16, which is overwritten.
        out: the map. Of classes with the same value the first is taken.
    """
    classes, least_of_all = logits.shape[1], np.float32(-np.inf)
    for place in range(len(best)):
        which, earlier = 0, least_of_all
        for k in range(1, classes):
            if logits[place, k] > logits[place, which]:
                which, earlier = k, logits[place, which]
        # An earlier class that is hardly less may be rounded to the same value between places, and is then the best.
        best[place] = which if logits[place, which] - earlier > rounding else -1
    ends = np.empty(out.shape[1], np.int32)  # where the columns end that have the same neighbours as one
    ends[-1] = len(ends)
    for x in range(len(ends) - 2, -1, -1):
        ends[x] = ends[x + 1] if lefts[x] == lefts[x + 1] and rights[x] == rights[x + 1] else x + 1
    near = np.empty(classes, np.int32)
    for y in range(out.shape[0]):
        top, bottom = tops[y] * width, bottoms[y] * width
        down, up = np.float64(downs[y]), np.float64(np.float32(1) - downs[y])
        end = 0
        while end < len(ends):
            start, end = end, ends[end]
            left, right = lefts[start], rights[start]
            agreed = best[top + left]
            same = agreed == best[top + right] and agreed == best[bottom + left] and agreed == best[bottom + right]
            if same and agreed >= 0:
                out[y, start:end] = agreed
                continue
            a, b, c, d = logits[top + left], logits[top + right], logits[bottom + left], logits[bottom + right]
            least, count = least_of_all, 0
            for k in range(classes):
                least = max(least, min(min(a[k], b[k]), min(c[k], d[k])))
            for k in range(classes):  # a class that is above the least value of no other is the best nowhere
                if max(max(a[k], b[k]), max(c[k], d[k])) >= least - rounding:
                    near[count] = k
                    count += 1
            for x in range(start, end):
                along, back = np.float64(alongs[x]), np.float64(np.float32(1) - alongs[x])
                which, value = 0, least_of_all
                for n in range(count):
                    k = near[n]
                    other = _between(a[k], b[k], c[k], d[k], along, back, down, up)
                    if other > value:
                        which, value = k, other
                out[y, x] = which
