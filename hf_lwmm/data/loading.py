"""Labelled images from the Hub or from a folder: numbered samples, of which any process can take its part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hf_lwmm import hub
from hf_lwmm.data.decoding import VOID, Colour, classes_of, decode, label_ids, segments_of
from hf_lwmm.data.folders import FOLDERS, Tree, find_tree
from hf_lwmm.data.listed import Listed, boxes_of, find_listed
from hf_lwmm.data.rows import Rows, file_of, open_rows, stored
from hf_lwmm.data.runs import Ids
from hf_lwmm.errors import DatasetError
from hf_lwmm.labels import label_set_of_ids, label_sets, match_classes
from hf_lwmm.metrics.detection import Boxes
from hf_lwmm.metrics.panoptic import PanopticMap
from hf_lwmm.networks.image_processing import as_rgb

__all__ = ["LabelledImages", "Sample", "match_classes", "open_images"]

IMAGES = ("image", "pixel_values", "img")
OBJECTS = ("objects",)
LABELS = ("label", "annotation", "mask", "semantic_segmentation", "labels", "segmentation", "label_bitmap")
SEGMENTS = "segments_info"
_NAMES = "id2label.json"


@dataclass(frozen=True)
class Sample:
    """One image with what is known of it.

    `label` is (height, width) of class ids, or the class id of the whole image. `segments` are, in panoptic data
    sets, what each pixel belongs to, `boxes` the objects, where a data set has boxes.
    """

    index: int
    name: str
    image: Image.Image = field(repr=False)
    label: Ids | int = field(repr=False)
    segments: PanopticMap | None = field(default=None, repr=False)
    boxes: Boxes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LabelledImages:
    """A split of a data set.

    `task` is what the labels are for: "semantic", "panoptic", "classification" or "detection". `classes` are the names
    of its ids where it tells them, `ids` the scheme of raw ids that its label files follow. `read` gives a sample by
    its number. `commit` is the data set's on the Hub; `identity` changes where the data do.
    """

    name: str
    count: int
    read: Callable[[int], Sample] = field(repr=False)
    task: str = "semantic"
    classes: tuple[str, ...] | None = field(default=None, repr=False)
    ids: str | None = None
    commit: str | None = None
    identity: str = ""

    def part(self, rank: int, world: int, batch: int = 1) -> list[range]:
        """A process's batches of sample numbers; the batches are the same for any number of processes."""
        starts = range(0, self.count, batch)[rank::world]
        return [range(start, min(start + batch, self.count)) for start in starts]

    def __iter__(self) -> Iterator[Sample]:
        return (self.read(index) for index in range(self.count))


def open_images(
    data: str | Path,
    split: str = "validation",
    *,
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    ids: str | None = None,
    task: str = "semantic",
    streaming: bool = False,
) -> LabelledImages:
    """Open a split of a data set.

    Args:
        data: `org/name[@revision]` on the Hub, or a folder: images/ and labels/ (or masks/, annotations/), with or
            without the split between; the tree of Cityscapes, its foggy copy, GTA, SYNTHIA, Mapillary Vistas or
            CamVid; or any that `datasets` reads (a folder of images for each class, parquet files, ...).
        split: the split's name; of a folder the name of a sub-folder, if it has one.
        config: of data sets that have several.
        image_column, label_column: where they are not to be found by type and usual names.
        ids: the raw ids that label files follow, where the tree does not tell them.
        task: the kind of labels to read where a tree has several.
        streaming: read rows of the Hub as they are needed, in place of keeping the whole split in the cache.

    Raises:
        DatasetError: if there is no such data set or split, it is gated, empty, or has no labels.
    """
    if ids is not None:
        label_set_of_ids(ids)
    path = Path(data)
    listed = find_listed(path, split, task) if path.is_dir() else None
    tree = find_tree(path, split) if path.is_dir() and listed is None else None
    if listed is None and tree is None and path.is_dir():
        listed = find_listed(path, split, "panoptic")  # whose classes do for class maps, too
    if listed is not None or tree is not None:
        columns = {"image_column": image_column, "label_column": label_column}
        _check_of_rows(path, config=config, streaming=streaming, **columns)
    if listed is not None:
        images = _of_list(listed, path, split)
    elif tree is not None:
        images = _of_tree(tree, path, split, ids)
    else:
        images = _of_rows(str(data), split, config, image_column, label_column, ids, streaming)
    if not images.count:
        raise DatasetError(f"{images.name}: the split has no images.")
    return replace(images, identity=hub.stamp(path) if path.is_dir() else images.commit or "")


def _check_of_rows(where: Path, **given: Any) -> None:
    """Options that only mean something to data sets that `datasets` reads."""
    if useless := [name.replace("_", "-") for name, value in given.items() if value]:
        raise DatasetError(f"{where}: is a folder of images and labels, where --{useless[0]} has no meaning.")


# Folders


def _of_tree(tree: Tree, root: Path, split: str, ids: str | None) -> LabelledImages:
    names = root / _NAMES
    scheme = ids or tree.ids  # says what label files hold, whatever names stand beside them
    has_names = names.is_file() and not scheme
    numbers = named_ids(names.read_text(encoding="utf-8"), str(names)) if has_names else {}
    colours = _colours(scheme)

    def read(index: int) -> Sample:
        picture, label = tree.pairs[index]
        values = _numbered(label_ids(label, str(label), colours), numbers, str(label))
        return Sample(index, picture.name, as_rgb(decode(picture, str(picture))), values)

    classes = tree.classes or tuple(numbers.values()) or None
    return LabelledImages(f"{root.resolve().name}, split {split}", len(tree.pairs), read, classes=classes, ids=scheme)


def _of_list(listed: Listed, root: Path, split: str) -> LabelledImages:
    def read(index: int) -> Sample:
        picture = listed.images[index]
        image = as_rgb(decode(picture, str(picture)))
        if listed.task == "detection":
            return Sample(index, picture.name, image, 0, boxes=listed.boxes[index]())
        label, entries = listed.segments[index]
        segments = segments_of(label, entries, str(label))
        return Sample(index, picture.name, image, classes_of(segments), segments)

    name = f"{root.resolve().name}, split {split}"
    return LabelledImages(name, len(listed.images), read, listed.task, listed.classes)


# The Hub, and folders that `datasets` reads


def _of_rows(
    data: str,
    split: str,
    config: str | None,
    image_column: str | None,
    label_column: str | None,
    ids: str | None,
    streaming: bool,
) -> LabelledImages:
    import datasets

    folder = Path(data).is_dir()
    unopened = (lambda reason: _no_tree(data, split, reason)) if folder else None
    rows = open_rows(data, split, config, streaming, unopened)
    if folder and list(rows.features) == ["image"]:
        raise DatasetError(_no_tree(data, split, "which finds images without labels"))
    image, label = _columns(data, rows.features, image_column, label_column)
    extras: list[str] = []
    if _object_fields(rows.features[label]):
        task, numbers = "detection", _object_classes(rows.features[label])
        numbers = numbers or _names_beside(rows)
    elif isinstance(rows.features[label], datasets.ClassLabel):
        names = tuple(rows.features[label].names)
        if folder and FOLDERS & set(names):
            raise DatasetError(_no_tree(data, split))
        task, numbers = "classification", dict(enumerate(names))
    else:
        extras = [SEGMENTS] if SEGMENTS in rows.features else []
        task = "panoptic" if extras else "semantic"
        numbers = {} if ids else _names_beside(rows)  # with ids these say what labels hold
    maps = [label] if task in ("semantic", "panoptic") else []
    read_row, colours = rows.reader([image, label, *extras], [image, *maps]), _colours(ids)

    def read(index: int) -> Sample:
        where, row = f"{rows.shown}, image {index}", read_row(index)
        file = file_of(row[image])
        picture = as_rgb(decode(stored(row[image], where), f"{where} ({file})"))
        where = f"{where}, its label"
        segments, found = None, row[label]
        if task == "detection":
            return Sample(index, file or str(index), picture, 0, boxes=boxes_of(_objects(found, numbers), where))
        if task == "panoptic":
            segments = segments_of(stored(found, where), _listed(row[SEGMENTS], numbers, where), where)
            found = classes_of(segments)
        elif task == "semantic":
            found = _numbered(label_ids(stored(found, where), where, colours), numbers, where)
        return Sample(index, file or str(index), picture, found, segments)

    classes = tuple(numbers.values()) or None
    return LabelledImages(rows.shown, rows.count, read, task, classes, ids, rows.commit)


def _object_fields(feature: Any) -> Mapping[str, Any] | None:
    """The fields of a column of objects with boxes, None for any other column."""
    inner = getattr(feature, "feature", feature)
    return inner if isinstance(inner, Mapping) and "bbox" in inner else None


def _category_field(fields: Mapping[str, Any]) -> str | None:
    return next((name for name in ("category", "category_id", "label", "categories", "labels") if name in fields), None)


def _object_classes(feature: Any) -> dict[int, str]:
    fields = _object_fields(feature) or {}
    kind = fields.get(_category_field(fields) or "")
    names = getattr(getattr(kind, "feature", kind), "names", None)
    return dict(enumerate(names or ()))


def _objects(found: Any, numbers: Mapping[int, str]) -> list[dict[str, Any]]:
    """A row's objects, one by one, their categories as indices of the names."""
    if isinstance(found, Mapping):
        found = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    index = {number: position for position, number in enumerate(numbers)}
    entries = []
    for entry in found:
        category = entry.get(_category_field(entry) or "")
        crowd = entry.get("iscrowd", 0)
        entries.append({"bbox": entry["bbox"], "category": index.get(category, category), "crowd": crowd})
    return entries


def _columns(data: str, features: Mapping[str, Any], image: str | None, label: str | None) -> tuple[str, str]:
    """The columns of images and of labels, pictures or class ids: as they are given, else by type and usual names."""
    import datasets

    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    counted = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    boxed = [name for name, feature in features.items() if _object_fields(feature)]
    image = image or _column(data, "image", IMAGES, [n for n in pictures if n not in LABELS], features)
    masks = [name for name in pictures if name != image]
    label = label or _column(data, "label", (*LABELS, *OBJECTS), masks or boxed or counted, features)
    for name, known in ((image, pictures), (label, pictures + boxed + counted)):
        if name not in features:
            raise DatasetError(f"{data}: has no column {name!r}; it has {', '.join(features)}.")
        if name not in known:
            raise DatasetError(f"{data}: the column {name!r} holds neither pictures nor boxes nor classes.")
    return image, label


def _no_tree(data: str, split: str, reason: str = "") -> str:
    return (
        f"{data}: no images with labels of the split {split} in it. Known are images/ beside labels/, masks/ or "
        "annotations/, the trees of Cityscapes, GTA, SYNTHIA, Mapillary Vistas and CamVid, and what datasets reads"
        + (f" ({reason.rstrip('.')})." if reason else ".")
    )


def _column(data: str, what: str, usual: Sequence[str], candidates: Sequence[str], features: Any) -> str:
    for name in usual:
        if name in candidates:
            return name
    if len(candidates) == 1:
        return candidates[0]
    found = f"several columns could be it ({', '.join(candidates)})" if candidates else f"it has {', '.join(features)}"
    raise DatasetError(f"{data}: no column is plainly the {what}: {found}. Say which with --{what}-column.")


# Names and numbers


def _names_beside(rows: Rows) -> dict[int, str]:
    """Class names from an id2label.json beside the data, as several data sets on the Hub have it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, revision = rows.name, rows.revision
    try:
        beside = Path(name, _NAMES)
        path = beside if Path(name).is_dir() else hf_hub_download(name, _NAMES, repo_type="dataset", revision=revision)
        return named_ids(Path(path).read_text(encoding="utf-8"), f"{name}, {_NAMES}")
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return {}


def named_ids(text: str, where: str) -> dict[int, str]:
    """The names of ids in an id2label.json, in the ids' order.

    Raises:
        DatasetError: if it is not one.
    """
    try:
        labels = {int(key): str(name) for key, name in json.loads(text).items()}
    except (ValueError, AttributeError):
        raise DatasetError(f"{where}: is no id2label.json, which is an object of ids and class names.") from None
    return dict(sorted(labels.items()))


def _numbered(label: Ids, numbers: Mapping[int, str], where: str) -> Ids:
    """Ids as indices of the names, where the named ids do not count from 0; unnamed 0 is ignored as 255 is.

    Raises:
        DatasetError: if another id has no name.
    """
    if list(numbers) == list(range(len(numbers))):
        return label
    known = np.array([*numbers])
    index = np.searchsorted(known, label).clip(max=len(known) - 1)
    named = known[index] == label
    if (outside := ~named & (label != 0) & (label != VOID)).any():
        raise DatasetError(f"{where}: its label has the id {int(label[outside][0])}, which {_NAMES} does not name.")
    return np.where(named, index, VOID)


def _listed(infos: Any, numbers: Mapping[int, str], where: str) -> list[dict[str, Any]]:
    """The entries of `segments_info`, their categories as indices of the names."""
    if isinstance(infos, Mapping):  # a column of lists, as older versions of datasets store it
        infos = [dict(zip(infos, values, strict=True)) for values in zip(*infos.values(), strict=True)]
    if not numbers:
        return list(infos)
    index = {number: position for position, number in enumerate(numbers)}
    if unnamed := [info.get("category_id") for info in infos if info.get("category_id") not in index]:
        raise DatasetError(f"{where}: {SEGMENTS} has the category {unnamed[0]}, which {_NAMES} does not name.")
    return [{**info, "category_id": index[info["category_id"]]} for info in infos]


def _colours(scheme: str | None) -> tuple[Colour, ...]:
    """The colours that label files of a scheme have in place of ids, where it is a label set of colours."""
    return label_sets()[scheme].colours if scheme and scheme in label_sets() else ()
