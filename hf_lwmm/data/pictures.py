"""Images without labels, from the Hub or from a folder; those of labelled data sets, too, whose labels are not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from hf_lwmm.data.decoding import decode
from hf_lwmm.data.folders import cityscapes_images, split_names
from hf_lwmm.data.loading import IMAGES, LABELS
from hf_lwmm.data.rows import file_of, open_rows, stored
from hf_lwmm.errors import DatasetError
from hf_lwmm.networks.image_processing import as_rgb

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Where trees keep the images of a split; the closest fit first, so that no label is taken for an image.
_FOLDERS = ("{split}/images", "images/{split}", "701_StillsRaw_full", "RGB", "{split}", "images", "")


class Seen(Protocol):
    """Something with an image."""

    @property
    def image(self) -> Image.Image: ...


class Images(Protocol):
    """Numbered images: `Pictures`, and `LabelledImages` of `hf_lwmm.data.loading`."""

    @property
    def name(self) -> str: ...

    @property
    def count(self) -> int: ...

    @property
    def commit(self) -> str | None: ...

    @property
    def read(self) -> Callable[[int], Seen]: ...


@dataclass(frozen=True)
class Picture:
    """One image and the name of its file."""

    name: str
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class Pictures:
    """A split of a data set, of which only the images are read. `commit` is the data set's on the Hub."""

    name: str
    count: int
    read: Callable[[int], Picture] = field(repr=False)
    commit: str | None = None


def open_unlabelled_images(
    data: str | Path, split: str = "train", *, config: str | None = None, image_column: str | None = None
) -> Pictures:
    """Open the images of a split.

    Args:
        data: `org/name[@revision]` on the Hub, or a folder: pictures, images/ with or without the split, or a tree
            that `open_images` knows.
        config: of data sets that have several.
        image_column: where it is not to be found by type and usual names.

    Raises:
        DatasetError: if there is no such data set or split, or it has no images.
    """
    path = Path(data)
    if path.is_dir() and (files := _files(path, split)):
        name = f"{path.resolve().name}, split {split}"
        return Pictures(name, len(files), lambda index: _opened(files[index]))
    return _of_rows(str(data), split, config, image_column)


def _files(root: Path, split: str) -> list[Path]:
    for name in split_names(split):
        if frames := cityscapes_images(root, name):
            return list(frames.values())
    for pattern in _FOLDERS:
        for name in split_names(split):
            folder = root / pattern.format(split=name)
            walk = folder.rglob("*") if pattern else folder.glob("*")
            if found := sorted(path for path in walk if path.suffix.lower() in _SUFFIXES):
                return found
    return []


def _opened(path: Path) -> Picture:
    return Picture(path.name, as_rgb(decode(path, str(path))))


def _of_rows(data: str, split: str, config: str | None, image_column: str | None) -> Pictures:
    rows = open_rows(data, split, config)
    column = image_column or _column(data, rows.features)
    if column not in rows.features:
        raise DatasetError(f"{data}: has no column {column!r}; it has {', '.join(rows.features)}.")
    read_row = rows.reader([column], [column])

    def read(index: int) -> Picture:
        where, value = f"{rows.shown}, image {index}", read_row(index)[column]
        return Picture(file_of(value) or str(index), as_rgb(decode(stored(value, where), where)))

    return Pictures(rows.shown, rows.count, read, rows.commit)


def _column(data: str, features: Mapping[str, Any]) -> str:
    import datasets

    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    likely = [name for name in IMAGES if name in pictures] or [name for name in pictures if name not in LABELS]
    if not likely:
        raise DatasetError(f"{data}: has no column of images; it has {', '.join(features) or 'none'}.")
    return likely[0]
