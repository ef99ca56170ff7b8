"""Every picture of a folder is used, or said not to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from calls import lwmm
from conftest import Run
from PIL import Image
from tiny import segformer, tree

from hf_lwmm.data.loading import open_images
from hf_lwmm.data.unlabelled import open_unlabelled_images
from hf_lwmm.errors import DatasetError
from hf_lwmm.planning.images import ImageSource


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("models") / "model", 1)


def stored_again(picture: Path, suffix: str, kind: str) -> None:
    """Store a picture in another format, in its place."""
    Image.open(picture).convert("RGB").save(picture.with_suffix(suffix), kind)
    picture.unlink()


def test_pictures_of_every_kind_are_used(run: Run, model: Path, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 6)
    kinds = ((".ppm", "PPM"), (".jfif", "JPEG"), (".JPE", "JPEG"), (".avif", "AVIF"), (".jp2", "JPEG2000"))
    for number, (suffix, kind) in enumerate(kinds):
        stored_again(data / f"images/{number}.png", suffix, kind)
    code, out, _ = run("evaluate", model, "--data", data)
    assert code == 0 and out.startswith("6 images of data")
    code, out, err = run("predict", model, data / "images", "--output", tmp_path / "out")
    assert code == 0 and out.count("_overlay.png") == 6 and "no name of a picture" not in err


def test_a_labelled_picture_that_is_not_read_is_refused(model: Path, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 3)
    (data / "images/1.png").rename(data / "images/1.heic")
    result = lwmm("evaluate", model, "--data", data)
    assert isinstance(result.exception, DatasetError)
    assert "images/1.heic: has a label, but is no kind of picture that is read (.png, .jpg" in str(result.exception)


def test_labels_without_a_picture_are_noted(run: Run, model: Path, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 3)
    (data / "images/1.png").unlink()
    (data / "images/notes.txt").write_text("none of the labels'")
    for words in (("evaluate",), ("measure", "--output", tmp_path / "f.safetensors")):
        code, _, err = run(words[0], model, "--data", data, *words[1:])
        assert code == 0 and "1 of 3 labels have no picture, such as " in err and "labels/1.png" in err


def test_predict_says_which_files_of_a_folder_it_passed_over(run: Run, model: Path, tmp_path: Path) -> None:
    pictures = tree(tmp_path / "data", 2) / "images"
    (pictures / "1.png").rename(pictures / "1.heic")
    (pictures / ".DS_Store").write_text("")
    code, out, err = run("predict", model, pictures, "--output", tmp_path / "out")
    assert code == 0 and out.count("_overlay.png") == 1
    assert "images: 1 of its files have no name of a picture, such as 1.heic" in err


def test_links_to_folders_around_the_one_that_is_searched_are_not_entered(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 3)
    (data / "images/loop").symlink_to("..")
    (data / "labels/loop").symlink_to(tmp_path)
    assert open_images(data).count == 3


def test_an_unlabelled_picture_that_is_not_read_is_refused(model: Path, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 3)
    (data / "images/1.png").rename(data / "images/1.HEIC")
    for folder in (data, data / "images"):
        with pytest.raises(DatasetError, match=r"images/1\.HEIC: is no kind of picture that is read \(1 of 3 files"):
            open_unlabelled_images(folder)
    code = lwmm("merge", model, model, "--output", tmp_path / "merged", "--bn-data", data).exit_code
    assert code == 1 and not (tmp_path / "merged").exists()


@pytest.mark.parametrize("suffix", [".heic", ".avif"])  # `datasets` passes over both
def test_a_picture_of_a_class_that_is_not_read_is_refused(tmp_path: Path, suffix: str) -> None:
    for name in ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert open_images(ImageSource(str(tmp_path), split="train")).count == 3
    (tmp_path / "train/cat/2.png").rename(tmp_path / f"train/cat/2{suffix}")
    with pytest.raises(DatasetError, match=r"cat/2\.\w+: is no kind of picture that is read"):
        open_images(ImageSource(str(tmp_path), split="train"))
