"""Frames of CamVid by film, at the size of the network's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.uda.data import folder_of_images


@dataclass(frozen=True)
class Film:
    """Labelled frames in the order of their names: (n, h, w, 3) and (n, h, w) uint8, 255 for unlabelled pixels.

    A frame's name begins with that of its film, and `_` stands behind it.
    """

    names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def films(self) -> tuple[str, ...]:
        """The film of each frame."""
        return tuple(name.split("_")[0] for name in self.names)

    def of(self, film: str | None = None, start: float = 0.0, stop: float = 1.0) -> Film:
        """Return the frames of a film (of all, if None) from one share of its length to another."""
        rows = [row for row, own in enumerate(self.films) if film in (None, own)]
        return self.at(rows[round(start * len(rows)) : round(stop * len(rows))])

    def at(self, rows: Sequence[int]) -> Film:
        """Return some frames."""
        return Film(tuple(self.names[row] for row in rows), self.images[list(rows)], self.labels[list(rows)])


def read_split(folder: Path) -> Film:
    """Read the images and labels of a split; pictures keep their size."""
    frames = folder_of_images(folder, labelled=True)
    assert frames.labels is not None
    names = sorted(path.stem for path in (folder / "images").iterdir())
    return Film(tuple(names), frames.images, frames.labels)


def part(train: Film, settings: Mapping[str, Any]) -> Film:
    """Return the frames that an entry of real.yaml's `data` names."""
    return train.of(settings.get("film"), settings.get("from", 0.0), settings.get("to", 1.0))


def blocks(films: Sequence[str], length: int) -> np.ndarray:
    """Return the block of each frame: runs of up to `length` neighbouring frames of one film, which look alike."""
    found, block, inside = [], -1, 0
    for row, film in enumerate(films):
        if row == 0 or film != films[row - 1] or inside == length:
            block, inside = block + 1, 0
        found.append(block)
        inside += 1
    return np.asarray(found)


def pictures(film: Film) -> list[Image.Image]:
    """Return the frames as pictures."""
    return [Image.fromarray(image) for image in film.images]
