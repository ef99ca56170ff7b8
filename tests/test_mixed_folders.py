"""Masks are not taken for pictures where the layout of a folder is not known."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import scene, tree

from hf_lwmm import DatasetError, ImageSource
from hf_lwmm.api.predict import _files
from hf_lwmm.data.unlabelled import open_unlabelled_images


def fill(folder: Path, suffix: str = ".png", mask: bool = False, count: int = 3, ending: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        scene(seed)[0].convert("L" if mask else "RGB").save(folder / f"{seed}{ending}{suffix}")


@pytest.mark.parametrize("pictures, masks", [
    ("train/img", "train/mask"), ("JPEGImages", "SegmentationClass"), ("image", "mask"), ("input", "target"),
    ("img", "ann"), ("imgs", "masks"), ("data/images", "data/labels"), ("train", "train"), (".", "."), ("a", "b"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_and_masks_of_one_name_are_refused(pictures: str, masks: str, suffix: str, tmp_path: Path) -> None:
    root = tmp_path / "ds"
    fill(root / pictures, suffix)
    fill(root / masks, ".png", mask=True, ending="_mask" if pictures == masks else "")
    for read in (open_unlabelled_images, lambda folder: _files([folder])):
        with pytest.raises(
            DatasetError, match=r"0\S*\.\w+ and .*0\S*\.\w+, which seem to be a picture and its mask\. Name"
        ):
            read(root)
    if pictures != masks:
        assert open_unlabelled_images(root / pictures).count == 3 and len(_files([root / pictures])) == 3


def test_folders_of_one_kind_are_read(tmp_path: Path) -> None:
    for name, count in (("bike", 3), ("mug", 4), ("pen", 3)):
        fill(tmp_path / "classes/train" / name, ".jpg", count=count)
        fill(tmp_path / "cities/images/train" / name, count=count)
    assert open_unlabelled_images(tmp_path / "classes").count == 10 == len(_files([tmp_path / "classes"]))
    assert open_unlabelled_images(tmp_path / "cities").count == 10
    for name in ("with_mask", "without_mask"):
        fill(tmp_path / "faces/train" / name, ".jpg")
    assert open_unlabelled_images(tmp_path / "faces").count == 6
    for name in ("train", "val"):
        fill(tmp_path / "splits" / name)
    assert len(_files([tmp_path / "splits"])) == 6
    assert open_unlabelled_images(ImageSource(tree(tmp_path / "known"))).count == 5
