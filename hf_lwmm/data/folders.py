"""Find images and their label files in folders, in the trees in which data sets are downloaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from hf_lwmm.data.decoding import SUFFIXES, UNREAD_SUFFIXES
from hf_lwmm.errors import DatasetError
from hf_lwmm.files.documents import read_text
from hf_lwmm.files.walking import files_below
from hf_lwmm.labels import FROM_ZERO, label_sets

_SPLITS = {"validation": ("validation", "val", "valid"), "train": ("train", "training")}
# Folder of images, folder of labels, and scheme of raw ids if it is known; `{split}` stands for the split's folder.
_PAIRS = (
    ("701_StillsRaw_full", "LabeledApproved_full", "camvid32"),
    ("{split}", "{split}_labels", "camvid32"),
    ("{split}", "{split}annot", "camvid"),
    ("RGB", "GT/LABELS", "synthia"),
    ("{split}/images", "{split}/v1.2/labels", "mapillary"),
    *(
        (images.format(), labels.format(kind), None)
        for images, labels in (
            ("{{split}}/images", "{{split}}/{}"),
            ("images/{{split}}", "{}/{{split}}"),
            ("images", "{}"),
        )
        for kind in ("labels", "masks", "annotations")
    ),
)
SPLIT_FOLDERS = (
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "testing",
)  # folders that splits are kept in
FOLDERS = frozenset(part for images, labels, _ in _PAIRS for path in (images, labels) for part in path.split("/"))


@dataclass(frozen=True)
class Tree:
    """The (image, label) files of a split, the scheme of the labels' raw ids, and their classes; None if not known.

    `notes` say which labels were passed over. `has_splits` is False if these are all images of the data set.
    """

    pairs: tuple[tuple[Path, Path], ...] = field(repr=False)
    ids: str | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    has_splits: bool = True


def find_tree(root: Path, split: str) -> Tree | None:
    """Return the tree under a folder, None if it is not one of the known ones.

    Raises:
        DatasetError: if images of the split lack their labels, or there are no splits and this is no usual one.
    """
    for name in split_names(split):
        if frames := cityscapes_images(root, name):
            return _cityscapes(root, name, frames)
        for images, labels, ids in _PAIRS:
            pictures, masks = root / images.format(split=name), root / labels.format(split=name)
            parts = "{split}" not in images and [part for part in SPLIT_FOLDERS if (pictures / part).is_dir()]
            if pictures.is_dir() and masks.is_dir() and not parts:
                if "{split}" not in images and split not in (*SPLIT_FOLDERS, "all"):
                    raise DatasetError(f"{root}: has no split {split}: it has no splits at all. Leave --split out.")
                pairs, notes = _matched(pictures, masks)
                return Tree(pairs, ids or _ids_of(pairs, root), notes=notes, has_splits="{split}" in images)
    return None


def split_names(split: str) -> tuple[str, ...]:
    """Return the names that folders have for a split."""
    return _SPLITS.get(split, (split,))


def cityscapes_images(root: Path, split: str) -> dict[str, Path]:
    """Return the image files of Cityscapes by city/frame, or those of its foggy copy in the densest fog, beta 0.02."""
    for kind in ("leftImg8bit", "leftImg8bit_foggy"):
        if (root / kind / split).is_dir():
            return {
                f"{path.parent.name}/{path.name.partition('_leftImg8bit')[0]}": path
                for path in pictures_in(root / kind / split)
                if path.suffix.lower() == ".png"
                and ("_foggy_beta_" not in path.name or path.name.endswith("_foggy_beta_0.02.png"))
            }
    return {}


def _cityscapes(root: Path, split: str, images: Mapping[str, Path]) -> Tree:
    folder = root / "gtFine" / split
    for ending, ids in (("labelIds", "cityscapes"), ("labelTrainIds", FROM_ZERO)):
        labels = [folder / f"{frame}_gtFine_{ending}.png" for frame in images]
        if all(label.is_file() for label in labels):
            classes = label_sets()["cityscapes19"].classes if ids == FROM_ZERO else None
            return Tree(tuple(zip(images.values(), labels, strict=True)), ids, classes)
    raise DatasetError(
        f"{root}: gtFine has no labels for all images of {split} (*_labelIds.png or *_labelTrainIds.png)."
    )


def _matched(images: Path, labels: Path) -> tuple[tuple[tuple[Path, Path], ...], tuple[str, ...]]:
    """Pair images with labels of the same name up to the suffix, and note labels that are left.

    CamVid adds `_L` to the names of labels.
    """
    pictures, known = _by_name(images, "pictures"), _by_name(labels, "labels")
    found = {name: known.get(name) or known.get(name + "_L") for name in pictures}
    if lacking := [pictures[name].name for name, label in found.items() if label is None]:
        raise DatasetError(
            f"{labels}: has no label for {lacking[0]} ({len(lacking)} of {len(pictures)} images lack one)."
        )
    pairs = tuple((pictures[name], label) for name, label in found.items() if label is not None)
    left = {name: label for name, label in known.items() if label not in found.values()}
    others = [path for path in files_below(images) if path.suffix.lower() not in SUFFIXES] if left else []
    if unread := [path for path in others if {(name := _name(path, images)), f"{name}_L"} & left.keys()]:
        raise DatasetError(
            f"{unread[0]}: has a label, but is no kind of picture that is read ({', '.join(SUFFIXES)}). Convert it."
        )
    some = f"{labels}: {len(left)} of {len(known)} labels have no picture, such as {min(left.values(), default='')}"
    return pairs, (some,) if left else ()


def _name(path: Path, folder: Path) -> str:
    """The name of a file in a folder, up to the suffix."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _by_name(folder: Path, what: str) -> dict[str, Path]:
    """The files of pictures in a folder by their names up to the suffix, of which no two may be one."""
    found: dict[str, Path] = {}
    for path in pictures_in(folder):
        name = _name(path, folder)
        if (first := found.setdefault(name, path)) != path:
            raise DatasetError(
                f"{folder}: has two {what} of one name, {first.relative_to(folder)} and {path.relative_to(folder)}. "
                "Take one of them away."
            )
    return found


def pictures_in(folder: Path, *, deep: bool = True) -> list[Path]:
    """Return the files of pictures in a folder, in order, without hidden ones such as macOS leaves (._name.png).

    Those of the folders below, linked ones included, are among them if `deep`.
    """
    return [
        path for path in _files_in(folder, deep) if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]


def _files_in(folder: Path, deep: bool) -> list[Path]:
    return files_below(folder) if deep else [path for path in sorted(folder.glob("*")) if path.is_file()]


def check_kinds(folder: Path, unread: Collection[str] = UNREAD_SUFFIXES, *, deep: bool = True) -> None:
    """Refuse a folder of pictures in which there are some of a kind that is not read, which would be passed over.

    Args:
        folder: the folder.
        unread: the endings of their names.
        deep: whether the folders below count.

    Raises:
        DatasetError: naming one of them.
    """
    files = _files_in(folder, deep)
    others = [path for path in files if path.suffix.lower() in unread and not path.name.startswith(".")]
    if others:
        raise DatasetError(
            f"{others[0]}: is no kind of picture that is read ({len(others)} of {len(files)} files in {folder} are of "
            "such kinds). Convert them to PNG or JPEG, or take them away."
        )


def _ids_of(pairs: Iterable[tuple[Path, Path]], root: Path) -> str | None:
    """The scheme of the raw ids in an images/ and labels/ tree, as its files show it; None if they do not."""
    config = root / "config.json"
    if config.is_file() and '"animal--bird"' in read_text(config, str(config)):
        return "mapillary"
    label = next((label for _, label in pairs), None)
    return "gta" if label is not None and _is_coloured_by_raw_id(label) else None


def _is_coloured_by_raw_id(label: Path) -> bool:
    """True for a palette picture that shows Cityscapes' raw ids in the colours of the classes, as labels of GTA do."""
    city = label_sets()["cityscapes19"]
    try:
        with Image.open(label) as picture:
            palette = (picture.getpalette() or []) if picture.mode == "P" else []
    except OSError:
        return False
    raw = [ids[0] for ids in city.ids["gta"]]
    return all(palette[3 * i : 3 * i + 3] == list(colour) for i, colour in zip(raw, city.colours, strict=True))
