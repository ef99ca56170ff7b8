"""What stands beside the weights, config.json and image processor: read from their folder, and the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beside import OWN, PLAIN, PROCESSOR, PROCESSORS, edited, with_file
from conftest import Run
from PIL import Image
from safetensors.numpy import load_file
from tiny import scene, tensors
from transformers import (
    AutoImageProcessor,
    SegformerImageProcessor,
)

import hf_lwmm
from hf_lwmm import DocumentError

# Image processors


@pytest.mark.parametrize("kind", PROCESSORS)
def test_processors_of_every_age_are_read_as_transformers_reads_them(
    kind: str, models: list[Path], tmp_path: Path
) -> None:
    name, content = PROCESSORS[kind]
    loaded = hf_lwmm.load(with_file(tmp_path / "model", models[0], name, content))
    assert type(loaded.image_processor) is SegformerImageProcessor and loaded.notes == ()
    picture = scene(1)[0]
    expected = SegformerImageProcessor(size={"height": 32, "width": 32})(picture, return_tensors="pt")
    assert torch.equal(loaded.image_processor(picture, return_tensors="pt")["pixel_values"], expected["pixel_values"])


def test_settings_in_both_files_are_those_of_the_processor(models: list[Path], tmp_path: Path) -> None:
    folder = with_file(tmp_path / "model", models[0], PROCESSOR, {**PLAIN, "size": 48})
    nested = {"image_processor": {**PLAIN, "size": 32}, "processor_class": "Own"}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    read = (hf_lwmm.load(folder).image_processor, AutoImageProcessor.from_pretrained(folder))
    assert [each.size["height"] for each in read] == [32, 32]
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Own"}))
    assert hf_lwmm.load(folder).image_processor.size["height"] == 48


@pytest.mark.parametrize("named", ["Own", "AutoModel", "BaseImageProcessor", "SegformerForSemanticSegmentation"])
def test_a_class_that_is_no_image_processor_is_noted_and_never_loaded(
    named: str, models: list[Path], tmp_path: Path
) -> None:
    folder = with_file(tmp_path / "model", models[0], PROCESSOR, {**PLAIN, "image_processor_type": named})
    loaded = hf_lwmm.load(folder)
    assert loaded.notes == (f"model: {OWN.replace('Own', named)}",)
    assert loaded.image_processor.do_resize is False


def test_a_merge_copies_either_file(models: list[Path], tmp_path: Path) -> None:
    for kind in ("an extractor", "a processor's"):
        name, content = PROCESSORS[kind]
        anchor = with_file(tmp_path / kind, models[0], name, content)
        output = tmp_path / f"out {kind}"
        hf_lwmm.merge([anchor, models[1]], output=output)
        assert (output / name).read_bytes() == (anchor / name).read_bytes()
        size = hf_lwmm.load(output).image_processor.size
        assert (size["height"], size["width"]) == (32, 32)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (b"{,}", "is not valid JSON"),
        (b"", r"is empty\. Download or save it again\.$"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", r"is a Git LFS pointer.* or download it\.$"),
        (b"\xff\xfe", "is not UTF-8"),
        ([], "must hold names and values"),
        ({"image_processor": 3}, None),
        ({**PLAIN, "size": "big"}, "size is 'big'"),
        ({**PLAIN, "size": 10**9}, "size is 1000000000"),
        ({**PLAIN, "size": {}}, "size is {}"),
        ({**PLAIN, "image_mean": ["a", 1, 1]}, r"image_mean is \['a', 1, 1\]"),
        ({**PLAIN, "image_std": [0.2, 0, 0.2]}, r"image_std is \[0.2, 0, 0.2\], not a number above 0"),
        ({**PLAIN, "image_std": -0.5}, "image_std is -0.5"),
        ({**PLAIN, "do_resize": "yes"}, "do_resize is 'yes', not true or false"),
        ({**PLAIN, "image_processor_type": ["SegformerImageProcessor"]}, "image_processor_type is"),
        ({**PLAIN, "resample": "bilinear"}, "resample is 'bilinear'"),
    ],
)
def test_settings_that_cannot_be_used_are_named_on_every_command(
    settings: Any, fault: str | None, models: list[Path], tmp_path: Path, run: Run
) -> None:
    name = "processor_config.json" if fault is None else PROCESSOR
    bad = with_file(tmp_path / "bad", models[0], name, settings)
    scene(1)[0].save(tmp_path / "p.png")
    said = set()
    for command in (
        ("inspect", bad),
        ("plan", models[1], bad),
        ("merge", models[1], bad, "--output", "out"),
        ("predict", bad, "p.png"),
    ):
        code, _, err = run(*command)
        assert code == 1 and not Path("out").exists()
        said.add(err)
    [line] = said
    assert line.startswith(f"Error: bad, {name}") and line.count("\n") == 1
    with pytest.raises(DocumentError, match=fault or "image_processor: must hold names and values"):
        hf_lwmm.load(bad)


# Reduced labels


def test_do_reduce_labels_makes_the_ids_of_unnamed_labels_one_more(tmp_path: Path, models: list[Path]) -> None:
    settings = {"do_resize": False, "image_processor_type": "SegformerImageProcessor"}
    plain = with_file(tmp_path / "plain", models[0], PROCESSOR, settings)
    reduced = with_file(tmp_path / "reduced", models[0], PROCESSOR, {**settings, "do_reduce_labels": True})
    assert hf_lwmm.load(reduced).reduce_labels and not hf_lwmm.load(plain).reduce_labels
    hf_lwmm.predict(plain, [save_pictures(tmp_path / "data" / "images")], tmp_path / "found")
    for path in sorted((tmp_path / "found").glob("*_labels.png")):
        ids = np.asarray(Image.open(path)) + 1
        ids[:8] = 0
        label = tmp_path / "data" / "labels" / path.name.replace("_labels", "")
        label.parent.mkdir(exist_ok=True)
        Image.fromarray(ids.astype(np.uint8)).save(label)
    report = hf_lwmm.evaluate([reduced], tmp_path / "data")
    assert report is not None and report.models[0].mean == 1
    assert any("takes 1 off every id of a label (do_reduce_labels)" in note for note in report.notes)
    with pytest.raises(hf_lwmm.DatasetError, match="has the id 3, but there are 3 classes"):
        hf_lwmm.evaluate([plain], tmp_path / "data")
    (tmp_path / "data" / "id2label.json").write_text(json.dumps({"1": "road", "2": "sky", "3": "car"}))
    named = hf_lwmm.evaluate([reduced], tmp_path / "data")
    assert named is not None and named.models[0].mean == 1
    (tmp_path / "data" / "id2label.json").write_text(json.dumps({"0": "x", "1": "road", "2": "sky", "3": "car"}))
    contradicted = hf_lwmm.evaluate([reduced], tmp_path / "data")
    assert contradicted is not None and contradicted.models[0].by_class[0] == 0  # x is a class, and never found


@pytest.mark.parametrize(("entries", "reduces"), [
    ({"reduce_labels": True}, False),
    ({"reduce_labels": True, "do_reduce_labels": False}, False),
    ({"reduce_labels": False, "do_reduce_labels": True}, True),
])  # fmt: skip
def test_labels_are_reduced_where_transformers_reduces_them(
    entries: dict[str, bool], reduces: bool, models: list[Path], tmp_path: Path
) -> None:
    settings = {"do_resize": False, "image_processor_type": "SegformerImageProcessor", **entries}
    folder = with_file(tmp_path / "model", models[0], PROCESSOR, settings)
    label = np.array([[0, 1], [2, 255]], np.uint8)
    read = AutoImageProcessor.from_pretrained(folder)(scene(1)[0], label, return_tensors="np")["labels"]
    assert np.array_equal(read[0], [[255, 0], [1, 255]] if reduces else label)
    loaded = hf_lwmm.load(folder)
    assert loaded.reduce_labels == reduces
    said = [note for note in loaded.notes if "say --ids from-1" in note]
    assert len(said) == ("do_reduce_labels" not in entries)


def test_a_class_that_is_not_known_takes_its_labels_along(models: list[Path], tmp_path: Path) -> None:
    settings = {**PLAIN, "image_processor_type": "Own", "do_reduce_labels": True}
    folder = with_file(tmp_path / "model", models[0], PROCESSOR, settings)
    hf_lwmm.export(folder, tmp_path / "out")
    assert hf_lwmm.load(tmp_path / "out").reduce_labels
    assert AutoImageProcessor.from_pretrained(tmp_path / "out", backend="pil").do_reduce_labels is True


def test_labels_above_the_reduced_classes_are_named_as_they_are_stored(tmp_path: Path, models: list[Path]) -> None:
    settings = {"do_resize": False, "image_processor_type": "SegformerImageProcessor", "do_reduce_labels": True}
    reduced = with_file(tmp_path / "reduced", models[0], PROCESSOR, settings)
    save_pictures(tmp_path / "data" / "images")
    (tmp_path / "data" / "labels").mkdir()
    for seed in range(3):
        Image.fromarray(np.full((48, 64), 4, np.uint8)).save(tmp_path / "data" / "labels" / f"{seed}.png")
    with pytest.raises(hf_lwmm.DatasetError, match="has the id 4, but there are 3 classes"):
        hf_lwmm.evaluate([reduced], tmp_path / "data")


def test_fisher_information_is_measured_on_reduced_labels(models: list[Path], tmp_path: Path) -> None:
    settings = {"do_resize": False, "image_processor_type": "SegformerImageProcessor"}
    found = []
    for name, reduce in (("plain", False), ("reduced", True)):
        model = with_file(tmp_path / name, models[0], PROCESSOR, {**settings, "do_reduce_labels": reduce})
        (save_pictures(tmp_path / f"data {name}" / "images").parent / "labels").mkdir()
        for seed in range(3):
            label = scene(seed)[1]
            stored = np.where(label == 255, 0, label + 1) if reduce else label
            Image.fromarray(stored.astype(np.uint8)).save(tmp_path / f"data {name}" / "labels" / f"{seed}.png")
        hf_lwmm.measure(model, tmp_path / f"data {name}", tmp_path / f"{name}.safetensors", kind="fisher")
        found.append(load_file(tmp_path / f"{name}.safetensors"))
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def save_pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for seed in range(3):
        scene(seed)[0].save(folder / f"{seed}.png")
    return folder


# config.json


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xff\xfe", "is not UTF-8"),
        (b"[]", "must hold names and values"),
        (b'{"a":' * 20000, "more than 100 levels"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b"{", "is not valid JSON"),
        (b"<!DOCTYPE html><html>", "is a web page, not the file itself"),
    ],
)
def test_a_config_that_is_no_document_is_one_error_on_every_command(
    content: bytes, fault: str, models: list[Path], data: Path, tmp_path: Path, run: Run
) -> None:
    bad = with_file(tmp_path / "bad", models[0], "config.json", content)
    said = set()
    for command in (
        ("inspect", bad),
        ("plan", bad, models[1]),
        ("merge", models[1], bad, "--output", "out"),
        ("predict", bad, data / "images"),
        ("evaluate", bad, "--data", data),
        ("convert", bad, "--to", "nvidia", "out.pth"),
    ):
        code, _, err = run(*command)
        assert code == 1 and not Path("out").exists()
        said.add(err)
    [line] = said
    assert line.startswith("Error: bad, config.json: ") and fault in line and line.count("\n") == 1


@pytest.mark.parametrize(
    ("entries", "note"),
    [
        ({"id2label": ["road", "sky", "car"]}, "id2label: must hold names and values, not ['road', 'sky', 'car']."),
        (
            {"id2label": {"0": "road", "2": "car", "3": "sky"}},
            "id2label: has the ids 0, 2, 3, not 0, 1, 2, ... in turn",
        ),
        ({"id2label": {"a": "road", "1": "sky", "2": "car"}}, "id2label: 'a' is no id"),
        ({"id2label": {"0": 5, "1": "sky", "2": "car"}}, "id2label: the name of the id 0 is 5, not a text"),
        ({"architectures": "SegformerForSemanticSegmentation"}, "left out architectures, which is 'Segformer"),
        ({"architectures": [3]}, "left out architectures, which is [3], not a list of texts"),
        ({"auto_map": ["own.py"]}, "left out auto_map, which is ['own.py']"),
        ({"label2id": [1, 2]}, "left out label2id, which is [1, 2]"),
    ],
)
def test_entries_that_cannot_be_used_are_noted_on_every_command(
    entries: dict[str, Any], note: str, models: list[Path], data: Path, tmp_path: Path, run: Run
) -> None:
    odd = edited(tmp_path / "odd", models[0], **entries)
    scored = ("--protocol", tmp_path / "names") if "id2label" in entries else ()
    (tmp_path / "names").write_text("LABEL_0\nLABEL_1\nLABEL_2\n")
    for command in (
        ("inspect", odd),
        ("plan", odd, models[1]),
        ("merge", odd, models[1], "--output", "out"),
        ("predict", odd, data / "images"),
        ("evaluate", odd, "--data", data, *scored),
        ("convert", odd, "--to", "nvidia", "converted.pth"),
    ):
        code, _, err = run(*command)
        assert code == 0 and note in err, (command, err)
    loaded = hf_lwmm.load(odd)
    own = ("road", "sky", "car") if "id2label" not in entries else ("LABEL_0", "LABEL_1", "LABEL_2")
    assert loaded.classes == own
    head = "decode_head.classifier.weight"
    assert np.array_equal(loaded.model.state_dict()[head], tensors(models[0])[head])


def test_labels_name_the_classes_of_a_config_that_does_not(models: list[Path], tmp_path: Path) -> None:
    placeholders = {"id2label": {str(i): f"LABEL_{i}" for i in range(3)}}
    for name, entries in (("placeholders", placeholders), ("odd", {"id2label": ["a"]})):
        folder = edited(tmp_path / name, models[0], **entries)
        loaded = hf_lwmm.load(folder, hf_lwmm.NetworkOptions(labels=(("a", "b", "c"),)))
        assert loaded.classes == tuple(loaded.model.config.id2label.values()) == ("a", "b", "c")
        assert loaded.model.config.label2id == {"a": 0, "b": 1, "c": 2}


def test_two_classes_of_one_name_are_noted_and_kept(models: list[Path], tmp_path: Path) -> None:
    odd = edited(tmp_path / "odd", models[0], id2label={"0": "crane", "1": "sky", "2": "Crane"}, label2id={"crane": 0})
    info = hf_lwmm.inspect(odd)
    assert info.classes == ("crane", "sky", "Crane")
    assert info.notes == ("odd, config.json, id2label: names two classes 'Crane', 0 and 2",)


def test_an_architecture_that_is_no_network_is_passed_over(models: list[Path], tmp_path: Path) -> None:
    odd = edited(tmp_path / "odd", models[0], architectures=["AutoModelForSemanticSegmentation"])
    assert hf_lwmm.load(odd).family.name == "SegFormer"
