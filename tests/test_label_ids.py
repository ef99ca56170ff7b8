"""Ids in label files: numberings, masks of two values, colours, and files that do not keep ids."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import lwmm
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from numpy.typing import NDArray
from PIL import Image
from tiny import NAMES, scene, segformer, tree

import hf_lwmm
from hf_lwmm.data.decoding import label_ids, segment_runs
from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import DatasetError
from hf_lwmm.evaluation.inference import segment
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.labels import LabelIds, colours_of_ids, label_sets
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


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("models") / "two", 1, ("background", "foreground"))


def masks(root: Path, values: Any, count: int = 2, dtype: Any = np.uint8) -> Path:
    """Images, and labels whose pixels have the values."""
    tree(root, count)
    for seed, path in enumerate(sorted((root / "labels").iterdir())):
        ids = np.random.default_rng(seed).choice(np.array(values, dtype), (6, 8))
        Image.fromarray(np.kron(ids, np.ones((8, 8), dtype))).save(path)
    return root


def mean(model: Path, data: Any, spec: EvaluationSpec = EvaluationSpec()) -> float:
    found = hf_lwmm.evaluate([model], data, evaluation=spec)
    assert found is not None
    return found.models[0].mean


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


# Masks of two values


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


# Colours


def test_colours_are_those_of_the_data_sets_own_tools() -> None:
    city = colours_of_ids("cityscapes")
    raw = label_sets()["cityscapes19"].table("cityscapes")
    for label in cityscapes_labels:
        if label.name not in ("license plate", "polegroup"):  # which have the colours of cars and poles
            assert raw[city[label.color]] == (label.trainId if label.trainId >= 0 else 255)

    def of_bits(number: int) -> tuple[int, ...]:  # VOC's own formula
        return tuple(sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))

    assert colours_of_ids("voc") == {of_bits(number): number for number in [*range(21), 255]}
    assert colours_of_ids("synthia") == colours_of_ids("from-1") == {} and colours_of_ids(None) is None


@pytest.mark.parametrize("scheme", ["cityscapes", "gta", "voc", "camvid32"])
def test_pictures_in_the_colours_of_a_named_set_are_ids(scheme: str, tmp_path: Path) -> None:
    colours = colours_of_ids(scheme)
    data = tree(tmp_path / "data", 1)
    shown = np.random.default_rng(0).permutation(np.resize(np.array([*colours], np.uint8), (48 * 64, 3)))
    Image.fromarray(shown.reshape(48, 64, 3)).save(data / "labels" / "0.png")
    found = open_images(ImageSource(data, ids=scheme)).read(0).label
    expected = np.array([colours[tuple(pixel)] for pixel in shown.tolist()]).reshape(48, 64)
    assert np.array_equal(found, expected)
    with pytest.raises(DatasetError, match=r"0\.png: is a picture of colours.*\(cityscapes, gta, voc, camvid32\)"):
        open_images(data).read(0)
    shown[64 * 2 + 3] = (1, 2, 3)
    Image.fromarray(shown.reshape(48, 64, 3)).save(data / "labels" / "0.png")
    with pytest.raises(DatasetError, match=r"0\.png: has the colour \[1, 2, 3\] at \(3, 2\), which is no class's"):
        open_images(ImageSource(data, ids=scheme)).read(0)


def test_grey_colours_of_classes_are_not_taken_for_ids(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 1)
    car, background = (128, 128, 128), (0, 0, 0)
    Image.fromarray(np.full((48, 64, 3), car, np.uint8)).save(data / "labels" / "0.png")
    assert (open_images(ImageSource(data, ids="voc")).read(0).label == 7).all()
    Image.fromarray(np.full((48, 64, 3), (7, 7, 7), np.uint8)).save(data / "labels" / "0.png")
    assert (open_images(ImageSource(data, ids="voc")).read(0).label == 7).all()
    Image.fromarray(np.full((48, 64, 3), background, np.uint8)).save(data / "labels" / "0.png")
    void = label_sets()["camvid32"].classes.index("Void")
    assert (open_images(ImageSource(data, ids="camvid32")).read(0).label == void).all()


# Formats


def file_of(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("JPEG", {"quality": 100}, "JPEG"),
        ("WEBP", {"quality": 100}, "lossy WEBP"),
        ("WEBP", {"quality": 100, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, "lossy WEBP"),
        ("JPEG2000", {}, "JPEG2000"),
        ("AVIF", {}, "AVIF"),
        ("GIF", {}, "GIF"),
        ("TIFF", {"compression": "jpeg"}, "TIFF compressed as jpeg"),
    ],
)
@pytest.mark.parametrize("read", [label_ids, segment_runs])
def test_formats_that_lose_pixels_hold_no_ids(
    kind: str, options: dict[str, Any], said: str, read: Callable[[bytes, str], Any]
) -> None:
    content = file_of(Image.fromarray(scene(0)[1]).convert("RGB"), kind, **options)
    with pytest.raises(DatasetError, match=rf"^that\.png: is a {said}, which does not keep ids exactly"):
        read(content, "that.png")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("PPM", {}),
    ],
)
def test_formats_that_keep_pixels_hold_ids(kind: str, options: dict[str, Any]) -> None:
    label: NDArray[np.uint8] = scene(0)[1]
    assert np.array_equal(label_ids(file_of(Image.fromarray(label), kind, **options), "a label"), label)


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_pictures_of_other_colours_hold_no_ids(mode: str) -> None:
    content = file_of(Image.fromarray(scene(0)[1]).convert("RGB").convert(mode), "TIFF")
    with pytest.raises(DatasetError, match=f"a label: is a picture of the mode {mode}, which holds no ids"):
        label_ids(content, "a label")


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
