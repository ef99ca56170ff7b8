"""Tell which images of a data set belong together, so that intervals are not narrower than the data allow.

Neighbouring frames of a film are nearly one image, and so are pictures of one place or one patient. Where images are
drawn one by one they count as independent, and intervals come out too narrow; whole groups are drawn instead (Künsch
1989, "The jackknife and the bootstrap for general stationary observations").
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.data.samples import LabelledImages
from hf_lwmm.errors import DatasetError

FILMS = "films"
_FRAME = re.compile(r"(.*[^\d])(\d+)")  # the name of a film, and the number of a frame in it


@dataclass(frozen=True)
class Groups:
    """The groups of a data set's images: a number from 0 to `count` - 1 for each image, (N,).

    `name` says in the plural what they are, such as "runs of frames".
    """

    of_images: NDArray[np.intp] = field(repr=False)
    name: str

    @property
    def count(self) -> int:
        """The number of groups."""
        return int(self.of_images.max()) + 1

    def __str__(self) -> str:
        return f"{self.count} {self.name}"


def groups_of(images: LabelledImages, by: str | None) -> Groups | None:
    """Return the groups of images, None if each stands by itself.

    Args:
        images: the data set.
        by: a column whose equal values make a group; `films` for runs of neighbouring frames, which the files' names
            tell (0016E5_07959.png); or None.

    Raises:
        DatasetError: if there is no such column, an image has no value in it, the files are not named like frames, or
            all images are one group.
    """
    if by is None:
        return None
    if by == FILMS and FILMS not in images.columns:
        names = images.values(None)
        if unlike := [name for name in names if _frame(name) is None]:
            raise DatasetError(
                f"{images.name}: --groups {FILMS} takes files named by film and number, such as 0016E5_07959.png, not "
                f"{PurePath(unlike[0]).name!r}. Name a column of the data set that says which images belong together."
            )
        found = Groups(_runs(names), "runs of frames")
    else:
        values = images.values(by)
        if without := sum(not value.strip() for value in values):
            raise DatasetError(
                f"{images.name}: {without} of {len(values)} images have no {by}, so that nothing says which belong "
                "together. Fill the column, or name another one."
            )
        number = {value: place for place, value in enumerate(dict.fromkeys(values))}
        found = Groups(np.array([number[value] for value in values], np.intp), f"groups of one {by}")
    if found.count < 2:
        raise DatasetError(f"{images.name}: --groups {by} puts all images into one group; intervals need at least two.")
    return found


def group_notes(images: LabelledImages, by: str | None) -> list[str]:
    """Return a note if images that are drawn one by one are named like the frames of films."""
    if by is not None or images.streamed:
        return []
    try:
        frames = [_frame(name) for name in images.values(None)]
    except DatasetError:  # what cannot be read is told where it is needed
        return []
    films = Counter(film for film, _ in filter(None, frames))
    if None in frames or not films or max(films.values()) < 3:
        return []
    return [
        f"{images.name}: its files are named like frames of films; if neighbours look alike, intervals over single "
        f"images are too narrow (--groups {FILMS} draws runs of frames)"
    ]


def _frame(name: str) -> tuple[str, int] | None:
    """The film, with its folder, and the number of a frame by the name of its file; None if it is not named so."""
    path = PurePath(name)
    found = _FRAME.fullmatch(path.stem)
    return (str(path.parent / found[1]), int(found[2])) if found else None


def _runs(names: Sequence[str]) -> NDArray[np.intp]:
    """The runs of neighbouring frames, (N,): of a film of n frames about the square root of n, each about as long.

    Longer runs are more nearly independent of each other, and more of them tell more about chance: the root lets both
    grow with the film.
    """
    films: dict[str, list[tuple[int, int]]] = {}
    for place, name in enumerate(names):
        film, number = _frame(name) or (name, 0)
        films.setdefault(film, []).append((number, place))
    runs, count = np.empty(len(names), np.intp), 0
    for frames in films.values():
        places = [place for _, place in sorted(frames)]
        for run in np.array_split(places, max(round(math.sqrt(len(places))), 1)):
            runs[run] = count
            count += 1
    return runs
