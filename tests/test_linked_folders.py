"""Folders of data are searched through links, and files of one name are told apart or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import scene, tree

from hf_lwmm import DatasetError, ImageSource
from hf_lwmm.api.predict import _files
from hf_lwmm.data.loading import open_images
from hf_lwmm.data.unlabelled import open_unlabelled_images
from hf_lwmm.files.walking import files_below


def cities(root: Path, *names: str) -> None:
    for kind, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelTrainIds")):
        for name in names:
            (root / kind / "val" / name).mkdir(parents=True)
            for seed in range(3):
                picture = scene(seed)[0] if kind == "leftImg8bit" else scene(seed)[0].convert("L")
                picture.save(root / kind / "val" / name / f"{name}_{seed}_{ending}.png")


def test_linked_cities_are_cities(tmp_path: Path) -> None:
    cities(tmp_path / "cs", "frankfurt")
    cities(tmp_path / "elsewhere", "lindau")
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / "cs" / kind / "val/lindau").symlink_to(tmp_path / "elsewhere" / kind / "val/lindau")
    source = ImageSource(tmp_path / "cs", split="val")
    assert open_images(source).count == 6 and open_unlabelled_images(source).count == 6
    before = open_images(source).identity
    (tmp_path / "elsewhere/gtFine/val/lindau/more.txt").write_text("new")
    assert open_images(source).identity != before


def test_linked_folders_of_pictures_are_entered_and_circles_are_not(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2, "images/val/a", "labels/val/a")
    tree(tmp_path / "far", 3)
    (data / "images/val/b").symlink_to(tmp_path / "far/images")
    (data / "labels/val/b").symlink_to(tmp_path / "far/labels")
    (data / "images/val/circle").symlink_to(data / "images")
    source = ImageSource(data, split="val")
    assert open_images(source).count == 5 and open_unlabelled_images(source).count == 5
    found = files_below(data / "images")
    assert len(found) == 5 and found == sorted(found)
    assert len(_files([data / "images"])) == 5
    assert files_below(tmp_path / "nowhere") == []


@pytest.mark.parametrize("twice, other", [("labels/0.png", "labels/0.tif"), ("images/0.png", "images/0.bmp")])
def test_two_files_of_one_name_are_refused(twice: str, other: str, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2)
    scene(7)[0].convert("L").save(data / other)
    with pytest.raises(DatasetError, match=r"has two (labels|pictures) of one name, 0\.\w+ and 0\.\w+\. Take one"):
        open_images(data)
