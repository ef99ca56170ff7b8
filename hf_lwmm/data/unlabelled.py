"""Open images without labels, from the Hub or a folder; the labels of labelled data sets are not read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from PIL import Image

from hf_lwmm.data.columns import image_column
from hf_lwmm.data.decoding import decode_rgb
from hf_lwmm.data.folders import check_kinds, cityscapes_images, pictures_in, split_names
from hf_lwmm.data.mixed import check_unmixed
from hf_lwmm.data.rows import LISTS, file_of, open_rows
from hf_lwmm.files.walking import files_below
from hf_lwmm.planning.images import ImageSource, as_images

# Folders in which trees keep the images of a split; the closest fit first, so that no label is taken for an image.
_FOLDERS = ("{split}/images", "images/{split}", "701_StillsRaw_full", "RGB", "{split}", "images", "")
_OF_PICTURES = ("{split}/images", "images/{split}", "701_StillsRaw_full", "RGB", "images")  # and of nothing else


class HasImage(Protocol):
    """Anything with an 8-bit RGB image and its name."""

    @property
    def name(self) -> str: ...

    @property
    def image(self) -> Image.Image: ...


class ImageSequence(Protocol):
    """Numbered images, labelled or not: `UnlabelledImages`, and `LabelledImages` of `hf_lwmm.data.samples`."""

    @property
    def name(self) -> str: ...

    @property
    def count(self) -> int: ...

    @property
    def commit(self) -> str | None: ...

    @property
    def source(self) -> ImageSource | None: ...

    @property
    def read(self) -> Callable[[int], HasImage]: ...


@dataclass(frozen=True)
class UnlabelledImage:
    """One image, 8-bit RGB, and the name of its file."""

    name: str
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class UnlabelledImages:
    """A split of a data set without its labels.

    `read` gives the image with a number from 0 to `count` - 1. `commit` is that of the data set on the Hub, and
    `source` what was opened, with the split that was chosen.
    """

    name: str
    count: int
    read: Callable[[int], UnlabelledImage] = field(repr=False)
    commit: str | None = None
    source: ImageSource | None = field(default=None, repr=False)


def open_unlabelled_images(images: ImageSource | str | Path) -> UnlabelledImages:
    """Open the images of a split.

    Args:
        images: the data set, which may be given by its name alone: `org/name[@revision]` on the Hub, or a folder of
            pictures, of images/ with or without the split, or of a tree that `open_images` knows. The split is train
            if it names none.

    Returns:
        The first `limit` images of the source, or all without a limit.

    Raises:
        DatasetError: if there is no such data set or split, it has no images, or seems to have masks among them.
    """
    source = as_images(images)
    source = replace(source, split=source.split or "train")
    path, split = Path(source.data), str(source.split)
    files, has_splits = _files(path, split) if path.is_dir() else ([], False)
    name = f"{path.resolve().name}, split {split}" if has_splits else path.resolve().name
    opened = _of_files(files, name) if files else _of_rows(source, split)
    count = opened.count if source.limit is None else min(source.limit, opened.count)
    return replace(opened, count=count, source=source)


def _files(root: Path, split: str) -> tuple[list[Path], bool]:
    """The pictures of a split in a folder of a known form, and whether it has splits at all."""
    for name in split_names(split):
        if frames := cityscapes_images(root, name):
            return list(frames.values()), True
    for pattern in _FOLDERS:
        for name in split_names(split):
            folder = root / pattern.format(split=name)
            if found := pictures_in(folder, deep=bool(pattern)):
                check_kinds(folder, deep=bool(pattern))
                check_unmixed(root, found, one_kind=pattern in _OF_PICTURES)
                return found, "{split}" in pattern
    if not any(path.name in LISTS for path in files_below(root)):
        check_unmixed(root, pictures_in(root))  # datasets would read them all
    return [], False


def _of_files(files: list[Path], name: str) -> UnlabelledImages:
    def read(index: int) -> UnlabelledImage:
        return UnlabelledImage(files[index].name, decode_rgb(files[index], str(files[index])))

    return UnlabelledImages(name, len(files), read)


def _of_rows(source: ImageSource, split: str) -> UnlabelledImages:
    rows = open_rows(source.data, split, source.config, source.streaming)
    column = image_column(source, rows.features)
    read_row = rows.reader([column], [column])

    def read(index: int) -> UnlabelledImage:
        where, value = f"{rows.shown}, image {index}", read_row(index)[column]
        return UnlabelledImage(file_of(value) or str(index), decode_rgb(rows.stored(value, where), where))

    return UnlabelledImages(rows.shown, rows.count, read, rows.commit)
