"""Labelled images from the Hub or from a folder: numbered samples, of which any process can take its part."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_lwmm.datasets.labels import normalise
from hf_lwmm.errors import DatasetError
from hf_lwmm.metrics.panoptic import PanopticMap
from hf_lwmm.models.image_processing import as_rgb

IMAGES = ("image", "pixel_values", "img")
LABELS = ("label", "annotation", "mask", "semantic_segmentation", "labels", "segmentation", "label_bitmap")
SEGMENTS = "segments_info"
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Folders of images and, beside them, of labels, in trees as they are downloaded.
_PAIRS = (("images", "labels"), ("images", "masks"), ("images", "annotations"), ("images", "v1.2/labels"))


@dataclass(frozen=True)
class Sample:
    """One image with what is known of it. `label` is (height, width) of ids, or a class id of the whole image.

    `segments` are, in panoptic data sets, the same ids with the class of each.
    """

    index: int
    name: str
    image: Image.Image = field(repr=False)
    label: NDArray[np.integer[Any]] | int = field(repr=False)
    segments: PanopticMap | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LabelledImages:
    """A split of a data set.

    `classes` are the names of its ids where it tells them, `ids` the scheme of raw ids that its label files follow.
    `read` gives a sample by its number.
    """

    name: str
    count: int
    read: Callable[[int], Sample] = field(repr=False)
    task: str = "semantic"
    classes: tuple[str, ...] | None = field(default=None, repr=False)
    ids: str | None = None

    def part(self, rank: int, world: int) -> range:
        """The numbers of a process's samples; parts differ by at most one in length."""
        return range(rank, self.count, world)

    def __iter__(self) -> Iterator[Sample]:
        return (self.read(index) for index in range(self.count))


def open_images(
    data: str | Path,
    split: str = "validation",
    *,
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> LabelledImages:
    """Open a split of a data set.

    Args:
        data: `org/name[@revision]` on the Hub, or a folder: images/ and labels/ (or masks/, annotations/), with or
            without the split between, or the tree of Cityscapes, SYNTHIA or Mapillary Vistas.
        split: the split's name; of a folder the name of a sub-folder, if it has one.
        config: of data sets on the Hub that have several.
        image_column, label_column: where they are not to be found by type and usual names.

    Raises:
        DatasetError: if there is no such data set or split, it is gated, empty, or has no labels.
    """
    path = Path(data)
    images = (
        _open_folder(path, split) if path.is_dir() else _open_hub(str(data), split, config, image_column, label_column)
    )
    if not images.count:
        raise DatasetError(f"{images.name}: the split has no images.")
    return images


# The Hub


def _open_hub(
    data: str, split: str, config: str | None, image_column: str | None, label_column: str | None
) -> LabelledImages:
    import datasets
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    repo, _, revision = data.partition("@")
    if repo.count("/") != 1:
        raise DatasetError(f"{data}: neither a folder here nor org/name[@revision].")
    try:
        rows = datasets.load_dataset(repo, config, split=split, revision=revision or None)
    except GatedRepoError:
        raise DatasetError(f"{data}: is gated; ask for access on its page, then log in with `hf auth login`.") from None
    except RepositoryNotFoundError:
        raise DatasetError(f"{data}: no such data set, or it is private and you are not logged in.") from None
    except HfHubHTTPError as error:
        raise DatasetError(f"{data}: the Hub did not give it: {error}") from None
    except Exception as error:  # datasets raises errors of many kinds, each with a text of its own
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "gated" in str(error).lower():
            text = "it is gated; ask for access on its page, then log in with `hf auth login`"
        raise DatasetError(f"{data}, split {split}: cannot be opened: {text}") from None
    features = rows.features
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    image = image_column or _column(data, "image", IMAGES, [n for n in pictures if n not in LABELS], features)
    classes_of = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    candidates = [name for name in (*pictures, *classes_of) if name != image]
    label = label_column or _column(data, "label", LABELS, candidates, features)
    for name in (image, label):
        if name not in features:
            raise DatasetError(f"{data}: has no column {name!r}; it has {', '.join(features)}.")
    is_panoptic = SEGMENTS in features
    rows = rows.select_columns([image, label, *([SEGMENTS] if is_panoptic else [])])
    for name in (image, label):
        if isinstance(features[name], datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    shown = f"{data}, split {split}"

    def read(index: int) -> Sample:
        row = rows[index]
        where = f"{shown}, image {index}"
        picture = _decode(row[image], f"{where} ({_path_of(row[image])})")
        if label in classes_of:
            return Sample(index, _path_of(row[image]) or str(index), as_rgb(picture), int(row[label]))
        name = _path_of(row[image]) or str(index)
        if is_panoptic:
            segments = _segments(row[label], row[SEGMENTS], f"{where}, its label")
            return Sample(index, name, as_rgb(picture), segments.ids, segments)
        return Sample(index, name, as_rgb(picture), _mask(row[label], f"{where}, its label"))

    if label in classes_of:
        return LabelledImages(shown, len(rows), read, "classification", tuple(features[label].names))
    task = "panoptic" if is_panoptic else "semantic"
    return LabelledImages(shown, len(rows), read, task, _names_beside(repo, revision or None))


def _column(data: str, what: str, usual: Sequence[str], candidates: Sequence[str], features: Any) -> str:
    for name in usual:
        if name in candidates:
            return name
    if len(candidates) == 1:
        return candidates[0]
    found = f"several columns could be it ({', '.join(candidates)})" if candidates else f"it has {', '.join(features)}"
    raise DatasetError(f"{data}: no column is plainly the {what}: {found}. Say which with --{what}-column.")


def _segments(value: Any, infos: Any, where: str) -> PanopticMap:
    """A panoptic label: ids as R + 256 G + 65536 B, or in one channel, and a list of {id, category_id, iscrowd}."""
    stored = np.asarray(_decode(value, where)).astype(np.int64)
    ids = stored if stored.ndim == 2 else stored[..., 0] + 256 * stored[..., 1] + 65536 * stored[..., 2]
    if isinstance(infos, dict):  # a sequence of records, as datasets stores it, column by column
        infos = [dict(zip(infos, row, strict=True)) for row in zip(*infos.values(), strict=True)]
    try:
        classes = {int(info["id"]): int(info["category_id"]) for info in infos}
        crowds = frozenset(int(info["id"]) for info in infos if info.get("iscrowd"))
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: its segments_info needs id and category_id in every record ({error}).") from None
    return PanopticMap(ids, classes, crowds)


def _path_of(value: Any) -> str:
    path = value.get("path") if isinstance(value, dict) else None
    return Path(path).name if path else ""


def _names_beside(repo: str, revision: str | None) -> tuple[str, ...] | None:
    """Class names from an id2label.json beside the data, as several data sets on the Hub have it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(repo, "id2label.json", repo_type="dataset", revision=revision)
        labels = json.loads(Path(path).read_text(encoding="utf-8"))
        return tuple(str(labels[key]) for key in sorted(labels, key=int))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError, AttributeError):
        return None


def _decode(value: Any, where: str) -> Image.Image:
    try:
        source = io.BytesIO(value["bytes"]) if value.get("bytes") else value["path"]
        picture = Image.open(source)
        picture.load()
        return picture
    except (OSError, ValueError, SyntaxError, TypeError, AttributeError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{where}: cannot be decoded: {error}") from None


def _mask(value: Any, where: str) -> NDArray[np.integer[Any]]:
    """Ids as they are stored; of a palette picture its indices, of a colour picture the first channel."""
    values = np.asarray(_decode(value, where))
    return values[..., 0] if values.ndim == 3 else values


# Folders


def _open_folder(root: Path, split: str) -> LabelledImages:
    pairs, ids = _pairs_in(root, split)
    shown = f"{root.name}, split {split}"

    def read(index: int) -> Sample:
        picture, label = pairs[index]
        image = as_rgb(_decode({"path": picture}, str(picture)))
        return Sample(index, picture.name, image, _mask({"path": label}, str(label)))

    return LabelledImages(shown, len(pairs), read, classes=_names_in(root), ids=ids)


def _pairs_in(root: Path, split: str) -> tuple[list[tuple[Path, Path]], str | None]:
    """(image, label) files of a folder, and the scheme of the label files' ids."""
    splits = {"validation": ("validation", "val"), "train": ("train", "training")}.get(split, (split,))
    for name in splits:
        if (root / "leftImg8bit" / name).is_dir():
            return _cityscapes(root, name)
        if (root / "RGB").is_dir() and (root / "GT" / "LABELS").is_dir():
            return _matched(root / "RGB", root / "GT" / "LABELS"), "synthia"
        for images, labels in _PAIRS:
            for base in (root / name, root):
                if (base / images).is_dir() and (base / labels).is_dir():
                    return _matched(base / images, base / labels), None
            if (root / images / name).is_dir() and (root / labels / name).is_dir():
                return _matched(root / images / name, root / labels / name), None
    raise DatasetError(
        f"{root}: no images with labels of the split {split} in it. Known are images/ beside labels/, masks/ or "
        "annotations/, and the trees of Cityscapes, SYNTHIA and Mapillary Vistas."
    )


def _cityscapes(root: Path, split: str) -> tuple[list[tuple[Path, Path]], str | None]:
    pictures = sorted((root / "leftImg8bit" / split).rglob("*_leftImg8bit.png"))
    for ending, ids in (("labelTrainIds", None), ("labelIds", "cityscapes")):
        labels = [
            root / "gtFine" / split / p.parent.name / p.name.replace("_leftImg8bit", f"_gtFine_{ending}")
            for p in pictures
        ]
        if labels and all(label.is_file() for label in labels):
            return list(zip(pictures, labels, strict=True)), ids
    raise DatasetError(
        f"{root}: gtFine has no labels for all images of {split} (*_labelTrainIds.png or *_labelIds.png)."
    )


def _matched(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Images and labels of one name up to the ending."""
    known = {path.stem: path for path in labels.rglob("*") if path.suffix.lower() in _PICTURES}
    pictures = sorted(path for path in images.rglob("*") if path.suffix.lower() in _PICTURES)
    if lacking := [path.name for path in pictures if path.stem not in known]:
        raise DatasetError(
            f"{labels}: has no label for {lacking[0]} ({len(lacking)} of {len(pictures)} images lack one)."
        )
    return [(path, known[path.stem]) for path in pictures]


def _names_in(root: Path) -> tuple[str, ...] | None:
    path = root / "id2label.json"
    if not path.is_file():
        return None
    labels = json.loads(path.read_text(encoding="utf-8"))
    return tuple(str(labels[key]) for key in sorted(labels, key=int))


def match_classes(model: Sequence[str], data: Sequence[str], model_name: str, data_name: str) -> NDArray[np.uint8]:
    """For each of a model's classes the data set's class of the same name, 255 where it has none: (256,).

    Raises:
        DatasetError: if not a single name is the same.
    """
    rows = {normalise(name): index for index, name in enumerate(data)}
    table = np.full(256, 255, np.uint8)
    for index, name in enumerate(model):
        table[index] = rows.get(normalise(name), 255)
    if (table == 255).all():
        raise DatasetError(
            f"{model_name} ({', '.join(model[:4])}, ...) and {data_name} ({', '.join(data[:4])}, ...) share no class "
            "name. --labels names a model's classes, --protocol the data set's."
        )
    return table
