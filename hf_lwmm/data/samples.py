"""Describe labelled images: numbered samples, of which any process can take its part."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hf_lwmm import hub
from hf_lwmm.data.annotations import Boxes, PanopticMap
from hf_lwmm.data.runs import Ids
from hf_lwmm.errors import DatasetError
from hf_lwmm.planning.images import ImageSource


@dataclass(frozen=True)
class Sample:
    """One image with its annotations.

    `decode` gives the image, which is decoded when it is first asked for. `label` is a (height, width) array of class
    ids, or the class id of the whole image. `segments` are there in panoptic data sets, `boxes` in data sets of
    objects. `files` are those that were read of a folder of this machine.
    """

    index: int
    name: str
    decode: Callable[[], Image.Image] = field(repr=False)
    label: Ids | int = field(repr=False)
    segments: PanopticMap | None = field(default=None, repr=False)
    boxes: Boxes | None = field(default=None, repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)

    @cached_property
    def image(self) -> Image.Image:
        """The image, 8-bit RGB. Raises DatasetError if it cannot be read."""
        return self.decode()

    def label_place(self, data: str) -> str:
        """Return what messages call the label: its file, or the image's name in the data set `data`."""
        return f"{self.files[1]}: the label" if len(self.files) > 1 else f"{data}, {self.name}: its label"

    def check_size(self, data: str) -> None:
        """Refuse a map that is neither as large as its image nor larger or smaller by a whole factor.

        Raises:
            DatasetError: naming the data set as `data`, and both sizes.
        """
        mine = np.shape(self.label) if self.segments is None else self.segments.runs.shape
        image = (self.image.height, self.image.width)
        larger, smaller = max(mine, image), min(mine, image)
        if larger[0] * smaller[1] != larger[1] * smaller[0] or larger[0] % smaller[0]:
            sizes = f"the label is {mine[1]}x{mine[0]}, but the image {image[1]}x{image[0]}"
            hint = " Images are turned as their EXIF says, labels never." if mine == image[::-1] else ""
            raise DatasetError(f"{data}, {self.name}: {sizes}.{hint}")


@dataclass(frozen=True)
class LabelledImages:
    """A split of a data set.

    `read` gives the sample with a number from 0 to `count` - 1. `task` is what the labels are for: "semantic",
    "panoptic", "classification" or "detection". `classes` are the names of the ids, where the data set has them, and
    `ids` is the scheme of raw ids that its label files follow, or a way in which they are numbered. `commit` is that of
    the data set on the Hub, and `identity` a text that changes when the data do. `source` is what was opened, with the
    split that was chosen; None for images that were not opened by `open_images`. `columns` are the names of further
    values that each image has; trees of files have none. `origins` gives for each sample, also beyond `count`, what
    tells its image from all others of the data set, whatever the split; nothing if that is unknown. `notes` say what
    was passed over.
    """

    name: str
    count: int
    read: Callable[[int], Sample] = field(repr=False)
    task: str = "semantic"
    classes: tuple[str, ...] | None = field(default=None, repr=False)
    ids: str | None = None
    commit: str | None = None
    identity: str = ""
    source: ImageSource | None = field(default=None, repr=False)
    columns: tuple[str, ...] = field(default=(), repr=False)
    listed: Callable[[str | None, int], Sequence[Any]] | None = field(default=None, repr=False)
    origins: Callable[[], Sequence[Hashable]] = field(default=tuple, repr=False)
    notes: tuple[str, ...] = ()
    has_splits: bool = True

    @property
    def streamed(self) -> bool:
        """True if rows are read as they are needed, so that a list of them is not at hand."""
        return self.source is not None and self.source.streaming

    def values(self, column: str | None = None) -> tuple[str, ...]:
        """Return the images' values in a column as texts, or the names of their files, with the folders, if None.

        An image whose value is missing, NaN or an empty list has an empty text.

        Raises:
            DatasetError: if there is no such column, or it cannot be read.
        """
        if column is not None and column not in self.columns:
            known = f"it has {', '.join(self.columns)}" if self.columns else "a folder of files has none"
            raise DatasetError(f"{self.name}: has no column {column!r}; {known}.")
        found = self.listed(column, self.count) if self.listed else [self.read(i).name for i in range(self.count)]
        return tuple(map(_text, found[: self.count]))

    def part(self, rank: int, world: int, batch: int = 1) -> list[range]:
        """Return a process's batches of sample numbers; the batches are the same for any number of processes.

        Args:
            rank: the number of the process, from 0.
            world: the number of processes.
            batch: the number of samples in a batch; the last batch may be smaller.
        """
        starts = range(0, self.count, batch)[rank::world]
        return [range(start, min(start + batch, self.count)) for start in starts]

    def __iter__(self) -> Iterator[Sample]:
        return (self.read(index) for index in range(self.count))

    def leads_out(self, sample: Sample) -> bool:
        """Return True if a file of a sample is in another place than the folder that was opened, by way of a link."""
        root = Path(self.source.data) if self.source is not None else None
        return root is not None and root.is_dir() and not all(hub.is_inside(root, file) for file in sample.files)


def _text(value: Any) -> str:
    """A value of a column as a text, empty if it is missing, NaN or itself empty."""
    if value is None or (isinstance(value, Sized) and not value):
        return ""
    return "" if isinstance(value, float) and math.isnan(value) else str(value)
