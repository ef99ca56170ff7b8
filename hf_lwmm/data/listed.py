"""Read folders whose segments or boxes are listed in a file of COCO's format, and objects of Cityscapes' labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.data.annotations import Boxes
from hf_lwmm.data.decoding import decode_exact
from hf_lwmm.data.folders import cityscapes_images, split_names
from hf_lwmm.errors import DatasetError, DocumentError
from hf_lwmm.files.documents import read_json, shortened
from hf_lwmm.labels import label_sets

_LISTS = {
    "panoptic": ("annotations/panoptic_{split}*.json", "gtFine/cityscapes_panoptic_{split}.json"),
    "detection": ("annotations/instances_{split}*.json", "annotations/{split}.json"),
}
_MAX_SIZE = 2 * 2**30  # bytes; that of LVIS has about 1.1 GB
_FOLDERS = ("{stem}", "images/{stem}", "{split}", "images/{split}", "images")


@dataclass(frozen=True)
class Listed:
    """The images of a split with what is in them, as a file lists it.

    `segments` holds for each image its label file and the entries of `segments_info`, whose categories are indices of
    the classes. `boxes` holds for each image a function that reads its objects.
    """

    task: str
    classes: tuple[str, ...]
    images: tuple[Path, ...] = field(repr=False)
    segments: tuple[tuple[Path, list[dict[str, Any]]], ...] = field(default=(), repr=False)
    boxes: tuple[Callable[[], Boxes], ...] = field(default=(), repr=False)


def find_listed(root: Path, split: str, task: str) -> Listed | None:
    """Return the panoptic or detection labels of a split under a folder, None if there are none in a known form.

    Args:
        root: the folder of the data set.
        split: the name of the split, such as validation, which folders may also call val.
        task: "panoptic" or "detection"; no other task has such lists.

    Raises:
        DatasetError: if the list cannot be read, or names images that are not there.
    """
    for name in split_names(split):
        for pattern in _LISTS.get(task, ()):
            for path in sorted(root.glob(pattern.format(split=name))):
                return _of_coco(root, path, name, task)
    return _cityscapes_objects(root, split) if task == "detection" else None


def _of_coco(root: Path, path: Path, split: str, task: str) -> Listed:
    try:
        content = read_json(path, str(path), max_size=_MAX_SIZE)
        categories = {
            category["id"]: (row, str(category["name"])) for row, category in enumerate(content["categories"])
        }
        images = {image["id"]: _inside(image["file_name"]) for image in content["images"]}
        for name, found in (("categories", categories), ("images", images)):
            if len(found) < len(content[name]):
                raise ValueError(f"two of the {name} have one id")
        annotations: list[dict[str, Any]] = content["annotations"]
        index = {number: row for number, (row, _) in categories.items()}
        classes = tuple(name for _, name in categories.values())
        if task == "panoptic":
            segments = {
                a["image_id"]: (
                    path.with_suffix("") / _inside(a["file_name"]),
                    [{**s, "category_id": index[s["category_id"]]} for s in a["segments_info"]],
                )
                for a in annotations
            }
            shown = [number for number in images if number in segments]
            files = _files(root, path, split, {number: images[number] for number in shown})
            return Listed(task, classes, files, tuple(segments[number] for number in shown))
        objects: dict[Any, list[dict[str, Any]]] = {number: [] for number in images}
        for annotation in annotations:
            objects[annotation["image_id"]].append(
                {**annotation, "category": index[annotation["category_id"]], "crowd": annotation.get("iscrowd", 0)}
            )
        readers = tuple(_reader(entries, f"{path}, image {number}") for number, entries in objects.items())
        return Listed(task, classes, _files(root, path, split, images), boxes=readers)
    except DocumentError as error:
        raise DatasetError(f"{error} It should be a list of COCO's format.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:  # the first of names that no file can have
        raise DatasetError(
            f"{path}: is not in COCO's format: {type(error).__name__} {shortened(str(error))}."
        ) from None


def _inside(name: Any) -> str:
    """A file name that a list states, which may not lead out of the folder. Raises ValueError."""
    if not isinstance(name, str) or not name or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ValueError(f"the file name {shortened(name)} does not stay inside the folder")
    return name


def _reader(entries: Sequence[Mapping[str, Any]], where: str) -> Callable[[], Boxes]:
    return lambda: boxes_of(entries, where)


def boxes_of(entries: Sequence[Mapping[str, Any]], where: str) -> Boxes:
    """Return the boxes of an image's objects.

    Args:
        entries: an object each, with `bbox` (x, y, width, height), `category`, an index of the classes, and perhaps
            `crowd`.
        where: what error messages call the image.

    Raises:
        DatasetError: if a box has no extent, or not four numbers.
    """
    try:
        corners = np.array([entry["bbox"] for entry in entries], np.float64).reshape(len(entries), 4)
        labels = np.array([int(entry["category"]) for entry in entries], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{where}: every object needs a bbox of four numbers and a category ({error}).") from None
    if (wrong := ~(np.isfinite(corners).all(axis=1) & (corners[:, 2:] > 0).all(axis=1))).any():
        raise DatasetError(f"{where}: the box {corners[wrong][0].tolist()} (x, y, width, height) has no extent.")
    corners[:, 2:] += corners[:, :2]
    crowds = np.array([bool(entry.get("crowd", 0)) for entry in entries], bool)
    return Boxes(corners, labels, crowds=crowds)


def _files(root: Path, path: Path, split: str, images: Mapping[Any, str]) -> tuple[Path, ...]:
    """Find the images that a list names."""
    if path.name.startswith("cityscapes_panoptic"):
        known = {key.rpartition("/")[2]: file for key, file in cityscapes_images(root, split).items()}
        files = [known.get(str(number), root / name) for number, name in images.items()]
    else:
        stem = path.stem.partition("_")[2] or path.stem
        folders = [root / folder.format(stem=stem, split=split) for folder in _FOLDERS]
        first = next(iter(images.values()), "")
        folder = next((each for each in folders if (each / first).is_file()), folders[0])
        files = [folder / name for name in images.values()]
    if lacking := [file for file in files if not file.is_file()]:
        raise DatasetError(f"{path}: lists {lacking[0]}, which is not there ({len(lacking)} of {len(files)} images).")
    return tuple(files)


def _cityscapes_objects(root: Path, split: str) -> Listed | None:
    """Return the countable classes of Cityscapes with a box around each object in the instanceIds files.

    Groups of objects that were outlined as one have no number and are left out. So are objects that have a piece of one
    or two pixels, as the conversion to COCO's format leaves them out by which the literature scores its detectors.
    """
    for name in split_names(split):
        images = cityscapes_images(root, name)
        labels = [root / "gtFine" / name / f"{frame}_gtFine_instanceIds.png" for frame in images]
        if images and all(label.is_file() for label in labels):
            city = label_sets()["cityscapes19"]
            rows = {ids[0]: row for row, ids in enumerate(city.ids["cityscapes"])}
            things = {
                raw: city.things.index(city.classes[row])
                for raw, row in rows.items()
                if city.classes[row] in city.things
            }
            readers = tuple(_instances(label, things) for label in labels)
            return Listed("detection", city.things, tuple(images.values()), boxes=readers)
    return None


def _instances(label: Path, things: Mapping[int, int]) -> Callable[[], Boxes]:
    """Make a reader of the objects in an instanceIds file, whose pixels are 1000 * raw class + number."""

    def read() -> Boxes:
        _, ids = decode_exact(label, str(label))
        entries = []
        for number in np.unique(ids[ids >= 1000]).tolist():
            if number // 1000 in things:
                y, x = np.nonzero(ids == number)
                left, top = int(x.min()), int(y.min())
                box = [left, top, int(x.max()) + 1 - left, int(y.max()) + 1 - top]
                mask = ids[top : top + box[3], left : left + box[2]] == number
                if not _has_speck(mask):
                    entries.append({"bbox": box, "category": things[number // 1000]})
        return boxes_of(entries, str(label))

    return read


def _has_speck(mask: NDArray[np.bool_]) -> bool:
    """True if one of the connected pieces (8 neighbours) of a mask has one or two pixels, so that it has no outline."""
    beside = _neighbours(mask)
    ends = mask & (beside == 1)
    return bool((mask & (beside == 0)).any() or (ends & (_neighbours(ends) == 1)).any())


def _neighbours(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The number of pixels in a mask around each pixel, of 8."""
    height, width = mask.shape
    padded = np.pad(mask.astype(np.uint8), 1)
    square = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return np.asarray(square - mask, np.uint8)
