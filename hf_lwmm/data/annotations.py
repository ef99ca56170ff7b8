"""Annotations of one image: segments with classes, or boxes around objects; data sets and networks both give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hf_lwmm.data.runs import Runs
from hf_lwmm.labels import IGNORE


@dataclass(frozen=True)
class PanopticMap:
    """An image cut into segments: the segment id of each pixel, and the class of each id, in the annotation's order.

    Pixels with the id `void` are unlabelled. `crowds` are the ids of segments that hold many objects.
    """

    runs: Runs = field(repr=False)
    classes: Mapping[int, int]
    crowds: frozenset[int] = frozenset()
    void: int = 0

    @classmethod
    def of_codes(cls, codes: Runs, divisor: int, void: int) -> PanopticMap:
        """Return the map of ids that are `class * divisor + number`, and `void` where there is no segment."""
        found = np.unique(codes.ids).tolist()
        return cls(codes, {code: code // divisor for code in found if code != void}, void=void)

    def class_map(self) -> npt.NDArray[np.int32]:
        """Return the class of each pixel, (height, width) int32, `IGNORE` where there is no listed segment."""
        ids, inverse = np.unique(self.runs.ids, return_inverse=True)
        table = np.array([self.classes.get(number, IGNORE) for number in ids.tolist()], np.int32)
        return self.runs.paint(table[inverse])


@dataclass(frozen=True)
class Boxes:
    """The objects in one image: (K, 4) boxes x1, y1, x2, y2 in pixels and their (K,) class indices.

    Predicted boxes have (K,) `scores`. Annotated ones may be `crowds`, (K,) bool: boxes around many objects.
    """

    boxes: npt.NDArray[np.floating]
    labels: npt.NDArray[np.integer]
    scores: npt.NDArray[np.floating] | None = None
    crowds: npt.NDArray[np.bool_] | None = None
