"""Refuse folders in which pictures and their label files cannot be told apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from hf_lwmm.data.decoding import JPEG_SUFFIXES
from hf_lwmm.data.folders import SPLIT_FOLDERS
from hf_lwmm.errors import DatasetError

# What label files add to the names of their pictures, and words in the names of folders of label files.
_ENDING = re.compile(
    r"(_leftImg8bit|_gtFine_\w+|[-_. ](L|masks?|labels?|seg|segmentation|gt|ann|annotation)(Ids|TrainIds)?)$", re.I
)
_OF_LABELS = re.compile(
    r"mask|label|annot|segm|target|ground|(^|[^a-z])(gt|anns?|seg|lbls?|outputs?)([^a-z]|$)|gtfine", re.I
)


def check_unmixed(root: Path, pictures: Sequence[Path], *, one_kind: bool = False) -> None:
    """Refuse pictures among which there seem to be masks, which would count as pictures.

    Two files of one name in one folder are a picture and its mask, if only their suffixes differ or one ends in a word
    such as `_mask`. In two folders they are so if something shows it: one folder is called like one of labels, the two
    have other suffixes, one file has colours and the other has not, or these are all the folders there are.
    Numbered pictures of classes, a folder each, have one name without being masks of each other.

    Args:
        root: the folder that was named, for messages.
        pictures: the files that were found under it.
        one_kind: whether their folders are known to hold pictures alone, so that names are compared within each.

    Raises:
        DatasetError: naming two such files.
    """
    named: dict[str, list[Path]] = {}
    inside: dict[Path, dict[str, Path]] = {}
    for path in pictures:
        name = _ENDING.sub("", path.stem)
        named.setdefault(name, []).append(path)
        if (first := inside.setdefault(path.parent, {}).setdefault(name, path)) != path:
            raise _mixed(root, first, path)
    compared = set[tuple[Path, Path]]()
    for first, *others in () if one_kind else named.values():
        for other in others:
            folders = (first.parent, other.parent)
            if folders not in compared and _is_mask_of(first, other, root, inside):
                raise _mixed(root, first, other)
            compared.add(folders)


def _is_mask_of(first: Path, other: Path, root: Path, inside: Mapping[Path, Mapping[str, Path]]) -> bool:
    parts = [{*path.parent.relative_to(root).parts} for path in (first, other)]
    apart = [parts[0] - parts[1], parts[1] - parts[0]]
    if any(map(_OF_LABELS.search, apart[0])) != any(map(_OF_LABELS.search, apart[1])):
        return True
    files = [inside[path.parent] for path in (first, other)]
    suffixes = [{file.suffix.lower() for file in each.values()} for each in files]
    if not suffixes[0] & suffixes[1]:
        return True
    if any(each <= {*JPEG_SUFFIXES} for each in suffixes):  # masks keep their ids
        return False
    are_all = len(inside) == 2 and files[0].keys() == files[1].keys() and not (apart[0] | apart[1]) & {*SPLIT_FOLDERS}
    kinds = [_has_colours(path) for path in (first, other)]
    return are_all or (None not in kinds and kinds[0] != kinds[1])


def _has_colours(path: Path) -> bool | None:
    """True for three channels, False for grey and palette pictures, None if the file cannot be read."""
    try:
        with Image.open(path) as picture:
            return picture.mode in ("RGB", "RGBA", "YCbCr", "CMYK")
    except Exception:  # a damaged file is named where it is read
        return None


def _mixed(root: Path, first: Path, other: Path) -> DatasetError:
    return DatasetError(
        f"{root}: has {first.relative_to(root)} and {other.relative_to(root)}, which seem to be a picture and its "
        "mask. Name the folder of the pictures alone, without the masks; give two pictures of one name other names."
    )
