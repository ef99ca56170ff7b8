"""What is there, but is not what was asked for, is named: not passed over, and not waited for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from calls import lwmm
from conftest import Run
from PIL import Image
from tiny import scene, segformer, tree

from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import DatasetError, DocumentError, HfLwmmError, PlanError
from hf_lwmm.hub import parse_ref
from hf_lwmm.planning.images import ImageSource


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return segformer(tmp_path / "model", 1)


def test_pipes_are_not_waited_for(model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    result = lwmm("predict", model, tmp_path / "pipe.png", "--output", tmp_path / "out")
    assert result.exit_code == 1 and "pipe.png: skipped: is no file, but a folder, a pipe" in result.stderr
    result = lwmm("merge", "--recipe", tmp_path / "pipe.png", "--output", tmp_path / "merged")
    assert isinstance(result.exception, HfLwmmError) and "it is a pipe, not a file" in str(result.exception)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_a_configuration_that_is_no_file_is_not_taken_for_none(make: Callable[[Path], None], model: Path) -> None:
    (model / "config.json").unlink()
    make(model / "config.json")
    result = lwmm("inspect", model)
    assert isinstance(result.exception, DocumentError)
    assert "model: its config.json is no file. Take it away" in str(result.exception)


def test_labels_of_several_pictures_are_refused(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2)
    labels = [Image.fromarray(scene(seed)[1]) for seed in (1, 0)]
    (data / "labels/1.png").unlink()
    labels[0].save(data / "labels/1.tif", save_all=True, append_images=labels[1:])
    images = open_images(data)
    assert images.read(0).label.shape == (48, 64)
    with pytest.raises(DatasetError, match=r"labels/1\.tif: holds 2 pictures"):
        images.read(1)
    labels[0].save(data / "labels/1.tif")
    assert np.array_equal(open_images(data).read(1).label, labels[0])


def test_convert_refuses_unknown_suffixes(model: Path, tmp_path: Path) -> None:
    for name in ("model.txt", "model.PTH"):
        result = lwmm("convert", model, tmp_path / name, "--to", "nvidia")
        assert isinstance(result.exception, PlanError) and not (tmp_path / name).exists()
        assert "files of weights end in .safetensors, .bin, .pth, .pt, .ckpt" in str(result.exception)
    assert lwmm("convert", model, tmp_path / "segformer.b0", "--to", "nvidia").exit_code == 0


def test_an_id_0_that_is_named_for_no_class_is_ignored(run: Run, model: Path, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 3)
    for path in (data / "labels").iterdir():
        ids = np.asarray(Image.open(path))
        Image.fromarray(np.where(ids == 255, 0, ids + 1).astype(np.uint8)).save(path)
    report = tmp_path / "report.json"
    found = []
    for names in ({1: "road", 2: "sky", 3: "car"}, {0: "void", 1: "road", 2: "sky", 3: "car"}):
        (data / "id2label.json").write_text(json.dumps(names))
        assert run("evaluate", model, "--data", data, "--output", report, "--overwrite")[0] == 0
        found.append(json.loads(report.read_text())["models"])
    assert found[0] == found[1]


def test_a_split_that_a_folder_without_splits_cannot_have_is_refused(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2)
    assert open_images(ImageSource(data, "test")).count == open_images(ImageSource(data, "all")).count == 2
    with pytest.raises(DatasetError, match=r"data: has no split nosplit: it has no splits at all\. Leave --split out"):
        open_images(ImageSource(data, "nosplit"))


def test_spaces_around_a_local_path_are_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "model ").mkdir()
    assert parse_ref(f"{tmp_path}/model ").path == tmp_path / "model "
    assert parse_ref(" org/model\n") == parse_ref("org/model")


def test_paths_that_no_file_can_have_are_named(model: Path, tmp_path: Path) -> None:
    long = f"{'x' * 300}.png"
    result = lwmm("predict", model, long, "--output", tmp_path / "out")
    assert result.exit_code == 1 and f"{long}: skipped: cannot be decoded" in result.stderr
    result = lwmm("merge", "--recipe", long, "--output", tmp_path / "merged")
    assert isinstance(result.exception, HfLwmmError)
