"""What was taken from images, as recipes and files of statistics record it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_lwmm.checkpoints.safetensors_file import read_header
from hf_lwmm.errors import PlanError
from hf_lwmm.methods.schedule import Weights


@dataclass(frozen=True)
class ImageFacts:
    """Which images were looked at, and how they were read; of a folder only its last part, never a path.

    `commit` is that of a data set on the Hub, None for a folder, and where it could not be asked for. `options` are
    further ones that a network or the images were opened with.
    """

    name: str
    split: str
    images: int
    commit: str | None = None
    local: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """What `--tune-data` and `--bn-data` take."""
        return f"{self.name}@{self.commit}" if self.commit else self.name

    @property
    def reading(self) -> dict[str, Any]:
        """The options under which the same images are read in the same way."""
        return {"split": self.split or None, "limit": self.images or None, **self.options}

    def __str__(self) -> str:
        return f"{self.name}, split {self.split} ({self.images} images)"

    def to_dict(self) -> dict[str, Any]:
        """The recipe's entry."""
        return {
            "local" if self.local else "dataset": self.name,
            **({"commit": self.commit} if self.commit else {}),
            "split": self.split,
            "images": self.images,
            **({"options": dict(self.options)} if self.options else {}),
        }


def image_facts(
    data: str | Path, split: str, images: int, commit: str | None, options: Mapping[str, Any]
) -> ImageFacts:
    """The facts of images that were opened from `data`."""
    local = Path(data).is_dir()
    name = Path(data).resolve().name if local else str(data).partition("@")[0]
    further = {name: value for name, value in options.items() if name not in ("split", "limit", "device")}
    return ImageFacts(name, split, images, commit, local, further)


def read_image_facts(entry: Any, where: str) -> ImageFacts:
    """The facts in a recipe's entry.

    Raises:
        PlanError: if it is none.
    """
    name = entry.get("dataset", entry.get("local")) if isinstance(entry, Mapping) else None
    if not name:
        raise PlanError(f"{where}: needs at least `dataset`, such as org/name, or `local`.")
    commit, options, images = entry.get("commit"), entry.get("options") or {}, entry.get("images") or 0
    if not isinstance(images, int):
        raise PlanError(f"{where}: `images` must be a whole number, not {images!r}.")
    return ImageFacts(
        str(name),
        str(entry.get("split", "")),
        images,
        str(commit) if commit else None,
        "local" in entry,
        dict(options) if isinstance(options, Mapping) else {},
    )


@dataclass(frozen=True)
class Tuning:
    """Weights that a method decided on images: (positions, models), every row summing to 1. `notes` say how."""

    weights: Weights = field(repr=False)
    images: ImageFacts | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The recipe's entry; equal rows that follow each other are one, `to` is the last position of it."""
        rows: list[dict[str, Any]] = []
        for position, row in enumerate(self.weights.tolist(), 1):
            if rows and rows[-1]["weights"] == row:
                rows[-1]["to"] = position
            else:
                rows.append({"to": position, "weights": row})
        images = self.images.to_dict() if self.images else {}
        return {**images, **({"notes": list(self.notes)} if self.notes else {}), "rows": rows}


def read_tuning(entry: Any, where: str) -> Tuning:
    """The tuning in a recipe's entry.

    Raises:
        PlanError: if it is none.
    """
    rows: list[Sequence[float]] = []
    try:
        for row in entry["rows"]:
            rows += [list(map(float, row["weights"]))] * (int(row["to"]) - len(rows))
        weights = np.array(rows, np.float64)
        if weights.ndim != 2 or not np.allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-6) or weights.min() < 0:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise PlanError(f"{where}: needs `rows`, each with `to`, a position, and `weights` that sum to 1.") from None
    named = "dataset" in entry or "local" in entry
    images = read_image_facts(entry, where) if named else None
    return Tuning(weights, images, tuple(map(str, entry.get("notes") or ())))


@dataclass(frozen=True)
class Measured:
    """Which model a file of statistics was measured of: what messages call it, and the hashes of its weight files."""

    model: str
    sha256: Mapping[str, str]

    def to_metadata(self) -> dict[str, str]:
        """Entries of the file's metadata."""
        return {"model": self.model, "sha256": json.dumps(dict(sorted(self.sha256.items())))}


def measured_of(path: Path) -> Measured | None:
    """The record in a file of statistics, None if it has none.

    Raises:
        CheckpointError: if it is no safetensors file.
    """
    if path.suffix != ".safetensors":
        return None
    metadata = read_header(path).metadata
    try:
        return Measured(metadata["model"], dict(json.loads(metadata["sha256"])))
    except (KeyError, ValueError, TypeError):
        return None
