"""Collect the scores of images in one process, keep them on disk, and join those of all processes."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.errors import MergeError
from hf_lwmm.evaluation.per_image import ImageScores, padded
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.damaged import set_aside


@dataclass
class Tally:
    """The scores that a process has so far, by the images' numbers; confusions are summed at once."""

    counts: dict[int, NDArray[Any]] = field(default_factory=dict)
    differs: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None

    def add(self, index: int, scores: ImageScores) -> None:
        """Add the scores of the image with a number."""
        self.counts[index], self.differs[index] = scores.counts, scores.differs
        if scores.confusion is not None:
            self.confusion = scores.confusion if self.confusion is None else self.confusion + scores.confusion

    @classmethod
    def read(cls, path: Path) -> Tally:
        """Return the tally that a killed run left in a file, an empty one if there is none that is whole."""
        if not path.is_file():
            return cls()
        try:
            return cls._read(path)
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error):
            with contextlib.suppress(OSError):
                set_aside(path, path.with_suffix(".damaged.npz"))
            return cls()

    @classmethod
    def _read(cls, path: Path) -> Tally:
        with np.load(path) as stored:
            index = stored["index"].tolist()
            counts = np.split(stored["counts"], np.cumsum(stored["rows"])[:-1], axis=1)
            confusion = stored["confusion"] if stored["confusion"].size else None
            return cls(
                dict(zip(index, counts, strict=True)), dict(zip(index, stored["differs"], strict=True)), confusion
            )

    def write(self, path: Path) -> None:
        """Keep the tally in an .npz file for another run, if it has any scores and the file can be written."""
        if not self.counts:
            return
        counts = list(self.counts.values())
        arrays: dict[str, Any] = {
            "index": np.array([*self.counts]),
            "counts": np.concatenate(counts, axis=1),
            "rows": np.array([each.shape[1] for each in counts]),
            "differs": np.stack([*self.differs.values()]),
            "confusion": np.empty(0) if self.confusion is None else self.confusion,
        }
        # Without a place to keep it, only the chance to resume after a kill is lost.
        with contextlib.suppress(MergeError), atomic(path) as place:
            np.savez_compressed(place, **arrays)


@dataclass(frozen=True)
class Totals:
    """The scores of all images in their order.

    `counts` (models, images, rows, K) are those of the metric, filled up with rows of -1 where images have fewer;
    `differs` (models, images) are as in `ImageScores`; `confusion` (models, classes, classes + 1) is the sum over
    images, None for tasks other than class maps.
    """

    counts: NDArray[Any]
    differs: NDArray[np.float64]
    confusion: NDArray[np.int64] | None


def join(tallies: Sequence[Tally], count: int) -> Totals:
    """Return the scores of `count` images from the tallies of all processes."""
    counts = {index: each for tally in tallies for index, each in tally.counts.items()}
    differs = {index: each for tally in tallies for index, each in tally.differs.items()}
    confusions = [tally.confusion for tally in tallies if tally.confusion is not None]
    return Totals(
        padded([counts[index] for index in range(count)], axis=1).swapaxes(0, 1),
        np.stack([differs[index] for index in range(count)], axis=1),
        np.sum(confusions, axis=0) if confusions else None,
    )
