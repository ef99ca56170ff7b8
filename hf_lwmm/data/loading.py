"""Open labelled images of the Hub or of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hf_lwmm import hub
from hf_lwmm.data.columns import SEGMENTS, category_field, labelled_columns, object_classes, object_fields
from hf_lwmm.data.decoding import decode_rgb, label_ids, panoptic_map
from hf_lwmm.data.folders import FOLDERS, Tree, find_tree
from hf_lwmm.data.listed import Listed, boxes_of, find_listed
from hf_lwmm.data.rows import Rows, file_of, open_rows
from hf_lwmm.data.runs import Ids
from hf_lwmm.data.samples import LabelledImages, Sample
from hf_lwmm.errors import DatasetError, DocumentError, first_line
from hf_lwmm.files.documents import read_json
from hf_lwmm.labels import FROM_ZERO, IGNORE, LEFT_OUT, colours_of_ids, named_ids, raw_label_set, without_ignored
from hf_lwmm.planning.images import ImageSource, as_images

_NAMES = "id2label.json"
_OF_ROWS = ("config", "streaming", "image_column", "label_column")  # options without a meaning for trees of files
_OF_MAPS = ("ids", "ignore_index")  # for labels that are class maps; the first also for segments of the Hub


def open_images(images: ImageSource | str | Path, *, task: str = "semantic") -> LabelledImages:
    """Open a split of a data set with its labels.

    Args:
        images: the data set, which may be given by its name alone: `org/name[@revision]` on the Hub, or a folder. A
            folder may hold images/ and labels/ (or masks/, annotations/), with or without the split between; the tree
            of Cityscapes, its foggy copy, GTA, SYNTHIA, Mapillary Vistas or CamVid; or anything that `datasets` reads,
            such as a folder of images for each class. The split is validation if it names none.
        task: the kind of labels to read where a tree has several.

    Returns:
        The first `limit` images of the source, or all without a limit.

    Raises:
        DatasetError: if there is no such data set or split, it is gated, empty, or has no labels.
    """
    asked = as_images(images)
    source = replace(asked, split=asked.split or "validation")
    raw_label_set(source.ids)
    path = Path(source.data)
    opened = (_open_folder(path, source, task) if path.is_dir() else None) or _of_rows(source)
    if not opened.count:
        raise DatasetError(f"{opened.name}: the split has no images.")
    count = opened.count if source.limit is None else min(source.limit, opened.count)
    identity = hub.stamp(path) if path.is_dir() else opened.commit or ""
    notes = opened.notes
    if asked.split and not opened.has_splits:
        notes = (*notes, f"{opened.name}: has no splits, so --split {asked.split} stands for all its images")
    return replace(opened, count=count, identity=identity, source=source, notes=notes)


# Folders


def _open_folder(root: Path, source: ImageSource, task: str) -> LabelledImages | None:
    """The images of a folder in a known form, None for other folders."""
    split = str(source.split)
    # The classes of segments make class maps, too.
    found = find_listed(root, split, task) or find_tree(root, split) or find_listed(root, split, "panoptic")
    if found is None:
        return None
    _check_options(source, _OF_ROWS, str(root), "is a folder of images and labels")
    if not isinstance(found, Tree):
        _check_options(source, _OF_MAPS, str(root), f"has labels for {found.task}")
    has_splits = isinstance(found, Listed) or found.has_splits
    name = f"{root.resolve().name}, split {split}" if has_splits else root.resolve().name
    return _of_tree(found, root, name, source) if isinstance(found, Tree) else _of_list(found, name)


def _check_options(source: ImageSource, options: Sequence[str], name: str, what: str) -> None:
    """Refuse options that have no meaning for a data set, of which a message says `what` it is."""
    for option in options:
        value = getattr(source, option)
        if value is not None and value is not False:
            raise DatasetError(f"{name}: {what}, where --{option.replace('_', '-')} has no meaning.")


def _of_tree(tree: Tree, root: Path, name: str, source: ImageSource) -> LabelledImages:
    names = root / _NAMES
    scheme = source.ids or tree.ids
    has_names = names.is_file() and raw_label_set(scheme) is None  # raw ids have names of their own
    numbers = without_ignored(_names_in(names, str(names)), str(names)) if has_names else {}
    named, colours = {} if scheme else numbers, colours_of_ids(scheme)

    def read(index: int) -> Sample:
        picture, label = tree.pairs[index]
        values = _numbered(_without(source.ignore_index, label_ids(label, str(label), colours)), named, str(label))
        return Sample(index, picture.name, partial(decode_rgb, picture, str(picture)), values, files=(picture, label))

    classes = tree.classes or tuple(numbers.values()) or None
    ids = scheme or _settled(numbers)
    return LabelledImages(
        name,
        len(tree.pairs),
        read,
        classes=classes,
        ids=ids,
        notes=tree.notes,
        has_splits=tree.has_splits,
        **_files([picture for picture, _ in tree.pairs]),
    )


def _of_list(listed: Listed, name: str) -> LabelledImages:
    def read(index: int) -> Sample:
        picture = listed.images[index]
        image = partial(decode_rgb, picture, str(picture))
        if listed.task == "detection":
            return Sample(index, picture.name, image, 0, boxes=listed.boxes[index](), files=(picture,))
        label, entries = listed.segments[index]
        segments = panoptic_map(label, entries, str(label))
        return Sample(index, picture.name, image, segments.class_map(), segments, files=(picture, label))

    return LabelledImages(name, len(listed.images), read, listed.task, listed.classes, **_files(listed.images))


def _files(pictures: Sequence[Path]) -> dict[str, Any]:
    """The fields of images that say which files they are."""
    return {
        "listed": lambda column, count: [path.as_posix() for path in pictures[:count]],
        "origins": lambda: [path.resolve() for path in pictures],
    }


# The Hub, and folders that `datasets` reads


def _of_rows(source: ImageSource) -> LabelledImages:
    rows = _labelled_rows(source)
    image, label = labelled_columns(source, rows.features)
    task, numbers = _annotation(source, rows, label)
    if task != "semantic":
        _check_options(source, _OF_MAPS[task == "panoptic" :], rows.shown, f"has labels for {task}")
    extras = [SEGMENTS] if task == "panoptic" else []
    maps = [label] if task in ("semantic", "panoptic") else []
    read_row, colours = rows.reader([image, label, *extras], [image, *maps]), colours_of_ids(source.ids)
    named = {} if source.ids else numbers

    def read(index: int) -> Sample:
        where, row = f"{rows.shown}, image {index}", read_row(index)
        file = file_of(row[image])
        source_of = [rows.stored(row[image], where)]
        picture = partial(decode_rgb, source_of[0], f"{where} ({file})")
        where = f"{where}, its label"
        segments, boxes, found = None, None, row[label]
        if maps:
            source_of.append(rows.stored(found, where))
        if task == "detection":
            found, boxes = 0, boxes_of(_objects(found, numbers, where), where)
        elif task == "panoptic":
            segments = panoptic_map(source_of[1], _listed(row[SEGMENTS], numbers, where), where)
            found = segments.class_map()
        elif task == "semantic":
            found = _numbered(_without(source.ignore_index, label_ids(source_of[1], where, colours)), named, where)
        files = tuple(each for each in source_of if isinstance(each, Path))
        return Sample(index, file or str(index), picture, found, segments, boxes, files)

    classes, scheme = tuple(numbers.values()) or None, source.ids or (_settled(numbers) if task == "semantic" else None)
    columns = tuple(name for name in rows.features if name not in (image, *maps))

    def listed(column: str | None, count: int) -> Sequence[Any]:
        return rows.values(column or image, count)

    return LabelledImages(
        rows.shown,
        rows.count,
        read,
        task,
        classes,
        scheme,
        rows.commit,
        columns=columns,
        listed=listed,
        origins=lambda: rows.origins,
    )


def _labelled_rows(source: ImageSource) -> Rows:
    data, split = source.data, str(source.split)
    folder = Path(data).is_dir()
    unopened = (lambda reason: _no_tree(data, split, reason)) if folder else None
    rows = open_rows(data, split, source.config, source.streaming, unopened)
    if folder and list(rows.features) == ["image"]:
        raise DatasetError(_no_tree(data, split, "which finds images without labels"))
    return rows


def _annotation(source: ImageSource, rows: Rows, label: str) -> tuple[str, dict[int, str]]:
    """The task that the column of labels is for, and the names of the ids in it."""
    import datasets

    feature = rows.features[label]
    if object_fields(feature):
        return "detection", object_classes(feature) or _names_beside(rows)
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
        if Path(source.data).is_dir() and FOLDERS & set(names):
            raise DatasetError(_no_tree(source.data, str(source.split)))
        return "classification", dict(enumerate(names))
    numbers = {} if raw_label_set(source.ids) else _names_beside(rows)  # raw ids have names of their own
    if SEGMENTS in rows.features:
        return "panoptic", numbers
    return "semantic", without_ignored(numbers, f"{rows.name}, {_NAMES}")


def _no_tree(data: str, split: str, reason: str = "") -> str:
    return (
        f"{data}: no images with labels of the split {split} in it. Known are images/ beside labels/, masks/ or "
        "annotations/, the trees of Cityscapes, GTA, SYNTHIA, Mapillary Vistas and CamVid, and what datasets reads"
        + (f" ({reason.rstrip('.')})." if reason else ".")
    )


def _objects(found: Any, numbers: Mapping[int, str], where: str) -> list[dict[str, Any]]:
    """The objects in a row, one by one, with categories as indices of the names."""
    entries = _one_by_one(found)
    given = [entry.get(category_field(entry) or "") for entry in entries]
    categories = _places(given, numbers, f"{where}: an object") if numbers else given
    return [
        {"bbox": entry["bbox"], "category": category, "crowd": entry.get("iscrowd", 0)}
        for entry, category in zip(entries, categories, strict=True)
    ]


def _listed(infos: Any, numbers: Mapping[int, str], where: str) -> list[dict[str, Any]]:
    """The entries of `segments_info`, with categories as indices of the names."""
    entries = _one_by_one(infos)
    if not numbers:
        return entries
    categories = _places([info.get("category_id") for info in entries], numbers, f"{where}: {SEGMENTS}")
    return [{**info, "category_id": category} for info, category in zip(entries, categories, strict=True)]


def _places(categories: Sequence[Any], numbers: Mapping[int, str], where: str) -> Sequence[Any]:
    """Categories as indices of the names. Raises DatasetError for one without a name."""
    index: dict[Any, int] = {number: place for place, number in enumerate(numbers)}
    if unnamed := [category for category in categories if category not in index]:
        raise DatasetError(f"{where} has the category {unnamed[0]}, which the data set does not name.")
    return [index[category] for category in categories]


def _one_by_one(records: Any) -> list[dict[str, Any]]:
    """Records as a list of mappings, which older versions of datasets store as a mapping of lists."""
    if isinstance(records, Mapping):
        return [dict(zip(records, values, strict=True)) for values in zip(*records.values(), strict=True)]
    return list(records)


# Names and numbers


def _names_beside(rows: Rows) -> dict[int, str]:
    """The class names in an id2label.json beside the data, as several data sets on the Hub have one.

    Raises:
        DatasetError: if it cannot be read, or the Hub fails to say whether there is one.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, revision = rows.name, rows.revision
    try:
        beside = Path(name, _NAMES)
        path = beside if Path(name).is_dir() else hf_hub_download(name, _NAMES, repo_type="dataset", revision=revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if isinstance(error.__cause__, HfHubHTTPError):  # it answered that it is busy or down: there may be names
            reason = first_line(error.__cause__)
            raise DatasetError(f"{name}, {_NAMES}: cannot be read: {reason} Run it again.") from None
        return {}
    return _names_in(Path(path), f"{name}, {_NAMES}") if Path(path).is_file() else {}


def _names_in(path: Path, where: str) -> dict[int, str]:
    """The names of ids in an id2label.json, in the order of the ids."""
    try:
        return named_ids(read_json(path, where), where)
    except DocumentError as error:
        raise DatasetError(f"{error} It should be an {_NAMES}, an object of ids and class names.") from None


def _settled(numbers: Mapping[int, str]) -> str | None:
    """The numbering of labels that were numbered by named ids; None if the names count from 0, as they do for any."""
    return None if list(numbers) == list(range(len(numbers))) else FROM_ZERO


def _without(ignored: int | None, label: Ids) -> Ids:
    """A label whose pixels of an ignored id are `LEFT_OUT`."""
    return label if ignored is None else np.where(label == ignored, LEFT_OUT, label.astype(np.int64))


def _numbered(label: Ids, numbers: Mapping[int, str], where: str) -> Ids:
    """Ids as indices of the names, where the named ids do not count from 0; an unnamed 0 is ignored, as 255 is.

    Raises:
        DatasetError: if another id has no name.
    """
    if _settled(numbers) is None:
        return label
    known = np.array([*numbers])
    index = np.searchsorted(known, label).clip(max=len(known) - 1)
    named = known[index] == label
    if (outside := ~named & (label != 0) & (label != IGNORE) & (label != LEFT_OUT)).any():
        raise DatasetError(
            f"{where}: its label has the id {int(label[outside][0])}, which {_NAMES} does not name. Name it there, "
            f"or leave it out with --ignore-index {int(label[outside][0])}, if it stands for no class."
        )
    return np.where(named, index, IGNORE)
