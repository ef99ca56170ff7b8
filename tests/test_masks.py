"""Masks of 0 and 255: two classes, and what is refused or ignored beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from calls import lwmm
from PIL import Image
from tiny import masks, mean, segformer

import hf_lwmm
from hf_lwmm.data import loading
from hf_lwmm.errors import DatasetError
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.planning.images import ImageSource


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("models") / "one", 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("models") / "two", 1, ("background", "foreground"))


@pytest.mark.parametrize("form", ["L", "RGB", "LA", "1"])
def test_masks_of_0_and_255_are_two_classes(form: str, two: Path, tmp_path: Path) -> None:
    plain, data = masks(tmp_path / "plain", [0, 1]), masks(tmp_path / "data", [0, 255])
    for path in (data / "labels").iterdir():
        Image.open(path).convert(form).save(path)
    found, expected = hf_lwmm.evaluate([two], data), hf_lwmm.evaluate([two], plain)
    assert found is not None and expected is not None and np.array_equal(found.counts, expected.counts)
    said = "hold only 0 and 255, which was read as foreground (--ids from-0 ignores it)"
    assert any(said in note for note in found.notes) == (form != "1")  # one bit is 0 and 1
    assert np.array_equal(mean(two, ImageSource(data, ids="binary")), expected.models[0].mean)


def test_pictures_are_decoded_once_however_many_labels_tell_what_ids_mean(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, decode = list[str](), loading.decode_rgb
    monkeypatch.setattr(loading, "decode_rgb", lambda source, where: decoded.append(where) or decode(source, where))
    data = masks(tmp_path / "data", [0, 255], 3)
    hf_lwmm.evaluate([two], data)
    assert sorted(decoded) == sorted(map(str, (data / "images").iterdir()))


def test_a_model_that_finds_nothing_has_no_perfect_score(two: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    never = segformer(tmp_path / "never", 1, ("background", "foreground"))
    tensors = load_file(never / "model.safetensors")
    tensors["decode_head.classifier.bias"] = torch.tensor([1e4, 0.0])
    save_file(tensors, never / "model.safetensors", {"format": "pt"})
    data = masks(tmp_path / "data", [0, 255])
    assert mean(never, data) < 0.5
    assert mean(never, ImageSource(data, ids="from-0")) == 1.0  # which must be asked for


def test_masks_of_two_values_are_refused_where_there_are_more_classes(one: Path, two: Path, tmp_path: Path) -> None:
    data = masks(tmp_path / "data", [0, 255])
    with pytest.raises(DatasetError, match="hold only 0 and 255, and 255 stands for no class, so that only road would"):
        mean(one, data)
    with pytest.raises(DatasetError, match="the label has the id 128, but there are 2 classes and 255"):
        mean(two, masks(tmp_path / "three", [0, 128, 255]))
    with pytest.raises(DatasetError, match="has the id 128, but masks of two classes hold 0, and 1 or 255"):
        mean(two, ImageSource(tmp_path / "three", ids="binary"))
    named = EvaluationSpec(protocol="background,foreground")
    assert mean(two, data, named) == mean(two, ImageSource(data, ids="binary"))


def test_255_is_ignored_where_other_labels_tell_the_classes(two: Path, tmp_path: Path) -> None:
    data = masks(tmp_path / "data", [0, 255], 3)
    Image.fromarray(np.ones((48, 64), np.uint8)).save(data / "labels" / "2.png")
    found = hf_lwmm.evaluate([two], data)
    assert found is not None and found.confusion is not None
    zeros = sum(int((np.asarray(Image.open(path)) == 0).sum()) for path in (data / "labels").iterdir())
    assert found.confusion[0].sum(axis=1).tolist() == [zeros, 48 * 64]
    [note] = (each for each in found.notes if "255" in each)
    assert "0.png: the label holds only 0 and 255, and" in note and "--ids binary scores both" in note
    border = np.asarray([[0, 1, 255] * 16] * 48, np.uint8)
    Image.fromarray(np.resize(border, (48, 64))).save(data / "labels" / "2.png")
    bordered = hf_lwmm.evaluate([two], data)
    assert bordered is not None and not any("255" in each for each in bordered.notes)


def test_a_late_mask_of_another_kind_is_named(two: Path, tmp_path: Path) -> None:
    data = masks(tmp_path / "data", [0, 1], 3)
    Image.fromarray(np.resize(np.array([0, 255], np.uint8), (48, 64))).save(data / "labels" / "2.png")
    found = hf_lwmm.evaluate([two], data)
    assert found is not None and any("2.png: the label holds only 0 and 255, and" in each for each in found.notes)


def test_labels_that_are_all_ignored_are_refused(two: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no labelled pixel: all ids are 255"):
        mean(two, masks(tmp_path / "data", [255]))
    with pytest.raises(DatasetError, match="has no labelled pixel"):
        mean(two, ImageSource(masks(tmp_path / "zeros", [0]), ids="from-1"))


def test_an_ignored_id_beside_masks_of_0_and_255_leaves_255_a_class(two: Path, tmp_path: Path) -> None:
    plain, trimaps = masks(tmp_path / "plain", [0, 255], 4), masks(tmp_path / "trimaps", [0, 255], 4)
    for path in (trimaps / "labels").iterdir():
        ids = np.array(Image.open(path))
        ids[:8] = 128
        Image.fromarray(ids).save(path)
        ids[:8] = 7
        Image.fromarray(ids).save(plain / "labels" / path.name)
    expected = mean(two, ImageSource(str(plain), ids="binary", ignore_index=7))
    for source in (
        ImageSource(str(trimaps), ignore_index=128),
        ImageSource(str(trimaps), "validation", ids="binary", ignore_index=128),
    ):
        assert mean(two, source) == expected
    done = lwmm("evaluate", two, "--data", trimaps, "--ignore-index", 128)
    assert "hold only 0 and 255, which was read as foreground" in done.stderr + done.stdout
    (trimaps / "id2label.json").write_text(json.dumps({0: "background", 255: "foreground"}))
    assert mean(two, ImageSource(str(trimaps), ignore_index=128)) == expected
    with pytest.raises(DatasetError, match="hold only 0 and 255"):  # of three classes
        mean(
            segformer(tmp_path / "three", 1),
            ImageSource(str(masks(tmp_path / "more", [0, 128, 255])), ignore_index=128),
        )
