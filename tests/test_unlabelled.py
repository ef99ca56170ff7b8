"""Images without labels are found wherever labelled ones are, and alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from tiny import scene, tree

from hf_lwmm.data.unlabelled import open_unlabelled_images
from hf_lwmm.errors import DatasetError
from hf_lwmm.planning.images import ImageSource


def test_images_are_found_beside_labels_in_splits_and_alone(tmp_path: Path) -> None:
    data = tree(tmp_path / "data")
    bare = Path(shutil.copytree(data / "images", tmp_path / "pictures"))
    assert [open_unlabelled_images(data).read(i).name for i in range(5)] == [f"{i}.png" for i in range(5)]
    assert open_unlabelled_images(bare).count == 5 and open_unlabelled_images(bare).name == "pictures"
    for folder in ("leftImg8bit/val/ulm", "images/train", "train/images", "val/labels"):
        (tmp_path / folder).mkdir(parents=True)
        scene(1)[0].save(tmp_path / folder / f"{folder.replace('/', '-')}_leftImg8bit.png")
    assert open_unlabelled_images(ImageSource(tmp_path, "validation")).read(0).name.startswith("leftImg8bit-val-ulm")
    assert open_unlabelled_images(ImageSource(tmp_path, "train")).read(0).name.startswith("train-images")
    with pytest.raises(DatasetError, match="neither a folder here nor org/name"):
        open_unlabelled_images("nothing-here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty, split train: cannot be opened"):
        open_unlabelled_images(tmp_path / "empty")
    (tmp_path / "none").mkdir()
    Dataset.from_dict({"image": []}, Features({"image": ImageFeature()})).to_parquet(
        tmp_path / "none/train-00000-of-00001.parquet"
    )
    with pytest.raises(DatasetError, match="none, split train: cannot be opened"):
        open_unlabelled_images(tmp_path / "none")
