"""Ids in label files: how they are numbered, which are ignored, and ids that stand for nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import lwmm
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from tiny import NAMES, masks, mean, scene, segformer, tree

import hf_lwmm
from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import DatasetError
from hf_lwmm.evaluation.inference import segment
from hf_lwmm.labels import LabelIds
from hf_lwmm.localhub import LocalHub
from hf_lwmm.planning.images import ImageSource


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("models") / "one", 1)


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained on ids that are one more than its rows."""
    folder = segformer(tmp_path_factory.mktemp("models") / "reduced", 1)
    processor = {"image_processor_type": "SegformerImageProcessor", "do_resize": False, "do_reduce_labels": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


# Numberings


def test_ids_stand_for_classes_by_each_numbering() -> None:
    ids = np.array([[0, 1, 2, 255]], np.uint8)
    assert LabelIds(3).class_ids(ids, "l").tolist() == [[0, 1, 2, 255]]
    assert LabelIds(2, "from-1").class_ids(ids, "l").tolist() == [[255, 0, 1, 255]]
    for second in (1, 3):
        assert LabelIds(2, "binary").class_ids(ids[:, [0, second]], "l").tolist() == [[0, 1]]
    with pytest.raises(DatasetError, match=r"l has the ids 1 and 255, .* --ids from-0 ignores 255"):
        LabelIds(2, "binary").class_ids(ids[:, [0, 1, 3]], "l")
    assert LabelIds(150, "ade20k").class_ids(ids, "l").tolist() == [[255, 0, 1, 255]]
    assert LabelIds(19, "cityscapes").class_ids(np.array([7, -1, 65535, 0]), "l").tolist() == [0, 255, 255, 255]
    with pytest.raises(DatasetError, match="--ids binary is for two classes, but there are 3"):
        LabelIds(3, "binary")
    with pytest.raises(DatasetError, match=r"--ids kitti is not one of cityscapes, .*, from-0, from-1, binary"):
        LabelIds(3, "kitti")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        ("from-0", "but there are 3 classes and 255 for what is ignored"),
        ("from-1", "but there are 3 classes, the first with the id 1, and 0 and 255 for what is ignored"),
    ],
)
def test_an_id_that_no_class_has_is_refused_in_every_type(dtype: Any, scheme: str, text: str) -> None:
    strange = [4, 254] if dtype == np.uint8 else [4, 254, 256, np.iinfo(dtype).max]
    for number in [*strange, *([-1] if np.iinfo(dtype).min < 0 else [])]:
        ids = np.array([[1, number]], dtype)
        with pytest.raises(DatasetError, match=rf"^a\.png has the id {number}, {text}\. --protocol .*from-0, from-1"):
            LabelIds(3, scheme).class_ids(ids, "a.png")


def test_instance_ids_are_not_taken_for_raw_ids() -> None:
    with pytest.raises(DatasetError, match=r"has the id 26001, but raw ids of cityscapes end at 255"):
        LabelIds(19, "cityscapes").class_ids(np.array([[7, 26001]], np.uint16), "a.png")


@pytest.mark.parametrize(("number", "dtype"), [(-1, np.int32), (65535, np.uint16), (9, np.uint8)])
def test_a_label_with_an_id_of_no_class_is_named(number: int, dtype: Any, one: Path, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2)
    label = np.array(Image.open(data / "labels" / "1.png"), dtype)
    label[5, 6] = number
    Image.fromarray(label).save(data / "labels" / "1.png", format="TIFF")
    done = lwmm("evaluate", one, "--data", data)
    assert done.exit_code == 1 and isinstance(done.exception, DatasetError)
    assert f"{data / 'labels' / '1.png'}: the label has the id {number}, but there are 3 classes" in str(done.exception)
    with pytest.raises(DatasetError, match=f"1.png: the label has the id {number},"):
        hf_lwmm.measure(one, ImageSource(data, "validation"), tmp_path / "f.safetensors")


# Processors that take 1 off every id


def taught(root: Path, model: Path, names: dict[str, str] | None = None) -> Path:
    """Images whose labels are what a model predicts, plus 1; 0 is something else."""
    loaded = hf_lwmm.load(model)
    tree(root, 2)
    for seed in range(2):
        ids = segment([loaded], [scene(seed)[0]])[0] + np.uint8(1)
        ids[:8] = 0
        ids[8:12, :3] = (1, 2, 3)
        Image.fromarray(ids).save(root / "labels" / f"{seed}.png")
    if names:
        (root / "id2label.json").write_text(json.dumps(names))
    return root


NAMED = (None, dict(zip("012", NAMES, strict=True)), dict(zip("123", NAMES, strict=True)))


@pytest.mark.parametrize("names", NAMED)
def test_a_perfect_model_of_reduced_labels_is_perfect(names: Any, reduced: Path, tmp_path: Path) -> None:
    data = taught(tmp_path / "data", reduced, names)
    found = hf_lwmm.evaluate([reduced], data)
    assert found is not None and found.models[0].mean > 0.9  # but for twelve pixels of each class
    assert found.confusion is not None and found.confusion.sum() == 2 * 40 * 64
    said = [note for note in found.notes if "do_reduce_labels" in note]
    assert len(said) == (0 if names and "3" in names else 1) and all("--ids from-0" in note for note in said)


def test_the_numbering_can_be_named_for_any_model(one: Path, reduced: Path, tmp_path: Path) -> None:
    data = taught(tmp_path / "data", one)
    assert mean(one, ImageSource(data, ids="from-1")) > 0.9
    with pytest.raises(DatasetError, match=r"the id 3, but there are 3 .*Only if 0 stands for no class, --ids from-1"):
        mean(one, data)
    ordinary = tree(tmp_path / "ordinary", 3)
    assert mean(reduced, ImageSource(ordinary, ids="from-0")) == mean(one, ordinary)
    (data / "id2label.json").write_text(json.dumps(NAMED[1]))
    assert mean(one, ImageSource(data, ids="from-1")) > 0.9


def test_data_that_name_other_classes_are_read_as_named(reduced: Path, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2)
    (data / "id2label.json").write_text(json.dumps({"0": "road", "1": "sky", "2": "car", "3": "bus"}))
    found = hf_lwmm.evaluate([reduced], data)
    assert found is not None and "names other classes; its ids were read as named" in " ".join(found.notes)
    labels = np.stack([scene(seed)[1] for seed in range(2)])
    assert found.confusion is not None
    assert found.confusion[0].sum(axis=1).tolist() == [*((labels == row).sum() for row in range(3)), 0]


def test_rows_of_the_hub_are_numbered_as_folders_are(hub: LocalHub, one: Path, tmp_path: Path) -> None:
    data = taught(tmp_path / "data", one)
    rows = {name: [Image.open(data / f"{name}s" / f"{i}.png") for i in range(2)] for name in ("image", "label")}
    features = Features({"image": ImageFeature(), "label": ImageFeature()})
    Dataset.from_dict(rows, features=features).push_to_hub("local/counted", split="validation")
    assert mean(one, ImageSource("local/counted", ids="from-1")) == mean(one, ImageSource(data, ids="from-1"))


def test_a_name_of_255_is_no_class(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2)

    def named(**names: str) -> Any:
        (data / "id2label.json").write_text(json.dumps({key[1:]: name for key, name in names.items()}))
        return open_images(data).classes

    assert named(_0="road", _1="sky", _2="car", _255="Void") == ("road", "sky", "car")
    assert open_images(data).ids is None
    assert named(_0="background", _255="figure") == ("background", "figure")
    with pytest.raises(DatasetError, match=r"id2label\.json: names the id 255 'tree', but 255 stands for pixels of no"):
        named(_0="road", _1="sky", _2="car", _255="tree")


# Ids that stand for nothing


def test_an_ignored_id_counts_for_nothing(one: Path, tmp_path: Path) -> None:
    plain, other = masks(tmp_path / "plain", [0, 1, 2, 255]), masks(tmp_path / "other", [0, 1, 2, 11])
    assert mean(one, ImageSource(str(other), ignore_index=11)) == mean(one, plain)
    done = lwmm("evaluate", one, "--data", other, "--ignore-index", 11)
    assert done.exit_code == 0, done.exception


def test_an_ignored_id_is_none_of_the_named_ones(tmp_path: Path, one: Path) -> None:
    data = masks(tmp_path / "data", [7, 8, 11, 3])
    (data / "id2label.json").write_text(json.dumps({7: NAMES[0], 8: NAMES[1], 11: NAMES[2]}))
    with pytest.raises(DatasetError, match=r"has the id 3, which id2label\.json does not name.*--ignore-index 3"):
        mean(one, data)
    assert mean(one, ImageSource(str(data), ignore_index=3)) >= 0


def test_an_unknown_id_is_found_before_a_network_runs_with_what_would_fit(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*arguments: Any) -> None:
        raise AssertionError("a network ran")

    monkeypatch.setattr("hf_lwmm.evaluation.per_image.segment", no_network)
    data = masks(tmp_path / "data", [1, 2, 3], count=3)
    with pytest.raises(DatasetError, match=r"0\.png: the label has the id 3, but .* --ids from-1 would fit\. If it"):
        mean(one, data)
    late = tree(tmp_path / "late", 12)
    strange = Image.fromarray(np.full((48, 64), 9, np.uint8))
    strange.save(late / "labels" / "9.png")  # the last by name
    with pytest.raises(DatasetError, match=r"9\.png: the label has the id 9, .*--ignore-index 9 leaves it out"):
        mean(one, late)


def test_raw_ids_that_would_fit_are_listed() -> None:
    label = np.array([[7, 8, 11, 26, 33, 0]], np.uint8)
    with pytest.raises(DatasetError, match=r"the ids 26, 33, .* --ids cityscapes or --ids gta.* would fit\.(\n|$)"):
        LabelIds(19).class_ids(label, "a.png")


def test_a_merge_finds_unknown_ids_before_it_merges(one: Path, tmp_path: Path) -> None:
    other, data = segformer(tmp_path / "other", 2), masks(tmp_path / "data", [1, 2, 3])
    done = lwmm("merge", one, other, "--output", tmp_path / "out", "--eval-data", data)
    assert done.exit_code == 1 and "--eval-ids from-1 would fit" in str(done.exception)
    assert "--eval-ignore-index 3" in str(done.exception) and not (tmp_path / "out").exists()


def test_ids_of_class_maps_have_no_meaning_for_classes_of_images(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / name / "1.png")
    for options in ({"ids": "from-1"}, {"ignore_index": 0}):
        with pytest.raises(DatasetError, match=r"has labels for classification, where --(ids|ignore-index) has no"):
            open_images(ImageSource(str(tmp_path), split="train", **options))


def test_ids_with_a_zero_and_a_last_one_of_no_class_are_not_said_to_begin_at_one() -> None:
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with pytest.raises(DatasetError, match=r"the id 11, .*ignored\. --ids camvid would fit\. If .*Only if 0 "):
        LabelIds(11).class_ids(label, "a.png")


def test_ids_begin_at_one_only_if_no_label_that_was_looked_at_has_a_zero(one: Path, tmp_path: Path) -> None:
    data = masks(tmp_path / "data", [1, 2, 3], count=3)
    (last,) = (path for path in (data / "labels").iterdir() if path.stem == "2")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(last)
    with pytest.raises(DatasetError, match=r"has the id 3, .*--ignore-index 3 leaves it out") as raised:
        mean(one, data)
    assert "from-1 would fit" not in str(raised.value)
