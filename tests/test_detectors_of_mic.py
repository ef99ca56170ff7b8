"""MIC's detectors as files: their containers, merges, conversions, predictions and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import merge
from conftest import Run
from huggingface_hub import HfApi
from manifests import slot_map, stored
from PIL import Image
from safetensors.torch import load_file
from small_networks import network, saved
from test_detection_ap import foggy_tree
from torch import Tensor

import hf_lwmm
from hf_lwmm import NetworkOptions
from hf_lwmm.errors import LayoutError
from hf_lwmm.evaluation.inference import detect
from hf_lwmm.labels import label_sets
from hf_lwmm.networks import FasterRCNNForObjectDetection, SegmentationImageProcessor
from hf_lwmm.networks.from_slots import faster_rcnn_config

SYSTEM = "mic_detector_r50_fpn"
FOGGY = NetworkOptions(labels=("foggy-cityscapes8",))
NAMES = {"id2label": {0: "car", 1: "person", 2: "bicycle"}}


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """Weights of MIC's detector in narrow layers, under the names of its files."""
    return {name: torch.from_numpy(array) for name, array in stored(SYSTEM, seed, shrink=16).items()}


def checkpoint(path: Path, prefix: str = "", seed: int = 0, **beside: Any) -> Path:
    torch.save({"model": {prefix + name: tensor for name, tensor in tensors(seed).items()}, **beside}, path)
    return path


def detector(folder: Path, seed: int = 0, likes: int = 1, rows: tuple[int, ...] = (0, 1, 2)) -> Path:
    """A repository with a small network, which finds the class `likes`; its classes are put into another order."""
    model = network("faster_rcnn", seed)
    head = model.roi_head.bbox_head
    head.fc_cls.weight.data *= 0.001
    head.fc_cls.bias.data[likes + 1] = 6.0
    classes = torch.tensor([0, *(row + 1 for row in rows)])
    for layer, each in ((head.fc_cls, 1), (head.fc_reg, 4)):
        for leaf in (layer.weight, layer.bias):
            leaf.data = leaf.data.unflatten(0, (4, each))[classes].flatten(0, 1)
    model.config.id2label = {number: NAMES["id2label"][row] for number, row in enumerate(rows)}
    model.config.label2id = {name: number for number, name in model.config.id2label.items()}
    saved(model, folder)
    processor = SegmentationImageProcessor(
        size={"shortest_edge": 96}, channel_order="BGR", image_mean=(103, 116, 123), image_std=(1, 1, 1)
    )
    processor.save_pretrained(folder)
    return folder


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).resize((64, 48), 3)


TRAINING = {
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "scheduler": {"last_epoch": 3},
    "iteration": 10,
}


@pytest.mark.parametrize(("name", "prefix", "beside"), [
    ("model_final.pth", "", TRAINING),
    ("model_0010000.pth", "module.", TRAINING),
    ("model_final_teacher.pth", "ema_model.", {"iteration": 10}),
])  # fmt: skip
def test_the_files_of_a_training_run_are_loaded(name: str, prefix: str, beside: Any, tmp_path: Path) -> None:
    loaded = hf_lwmm.load(checkpoint(tmp_path / name, prefix, **beside), FOGGY)
    assert loaded.task == "detection" and loaded.classes == label_sets()["foggy-cityscapes8"].classes
    assert isinstance(loaded.model, FasterRCNNForObjectDetection)
    wanted = tensors()
    assert torch.equal(
        loaded.model.backbone.layer4[2].bn3.running_var, wanted["backbone.body.layer4.2.bn3.running_var"]
    )
    own = loaded.model.roi_head.bbox_head.fc_reg.weight
    assert torch.equal(own, wanted["roi_heads.box.predictor.bbox_pred.weight"])
    processor = loaded.image_processor
    assert processor.size == {"shortest_edge": 800, "longest_edge": 1600} and processor.channel_order == "BGR"
    assert any("49 tensors are not used" in note for note in loaded.notes)  # the anchors, and what adapts domains


def test_files_of_a_student_and_a_teacher_merge_into_a_repository_of_transformers(
    tmp_path: Path, without_plots: None
) -> None:
    student = checkpoint(tmp_path / "model_final.pth", **TRAINING)
    teacher = checkpoint(tmp_path / "model_final_teacher.pth", "ema_model.", seed=1, iteration=10)
    result = merge([student, teacher], output=tmp_path / "out", method="isotropic", labels=("foggy-cityscapes8",))
    shared = {slot.slot for slot in result.plan.alignment.shared}
    assert len(shared) == 344 - 49 and "faster_rcnn.box.regression.weight" in shared
    merged = load_file(tmp_path / "out" / "model.safetensors")
    name = "roi_heads.box.predictor.cls_score.weight"
    average = (tensors(0)[name] + tensors(1)[name]) / 2
    assert torch.allclose(merged["roi_head.bbox_head.fc_cls.weight"], average, atol=1e-6)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["FasterRCNNForObjectDetection"]
    assert list(config["id2label"].values()) == list(label_sets()["foggy-cityscapes8"].classes)
    assert {"faster_rcnn.py", "regions.py", "boxes.py", "resnet.py"} <= {p.name for p in (tmp_path / "out").iterdir()}
    again = FasterRCNNForObjectDetection.from_pretrained(tmp_path / "out")
    assert torch.equal(again.roi_head.bbox_head.fc_cls.weight, merged["roi_head.bbox_head.fc_cls.weight"])


@pytest.mark.parametrize("head", ["by-label", "shared"])
def test_rows_of_detectors_are_matched_by_the_names_of_classes(head: str, tmp_path: Path) -> None:
    first, second = detector(tmp_path / "a"), detector(tmp_path / "b", rows=(2, 0, 1))
    result = merge([first, second], output=tmp_path / "out", method="isotropic", head=head)
    wanted, found = (load_file(folder / "model.safetensors") for folder in (first, tmp_path / "out"))
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)
    shared = {slot.slot for slot in result.plan.alignment.shared}
    assert ("faster_rcnn.box.regression.bias" in shared) == (head == "by-label")


def test_a_converted_detector_on_the_hub_is_one_that_transformers_loads(
    hub: Any, api: HfApi, run: Run, tmp_path: Path
) -> None:
    folder = detector(tmp_path / "model")
    code, _, err = run("convert", folder, "--push", "local/detector")
    assert code == 0, err
    card = api.hf_hub_download("local/detector", "README.md")
    assert 'AutoModelForObjectDetection.from_pretrained("local/detector"' in Path(card).read_text()
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    model = AutoModelForObjectDetection.from_pretrained("local/detector", trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained("local/detector", trust_remote_code=True)
    ours = detect(hf_lwmm.load(folder), picture())
    with torch.no_grad():
        outputs = model.eval()(**processor(picture(), return_tensors="pt"))
    (theirs,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(48, 64)])
    assert len(ours.labels) > 0
    np.testing.assert_allclose(theirs["boxes"].numpy(), ours.boxes, atol=1e-3)
    np.testing.assert_array_equal(theirs["labels"].numpy(), ours.labels)


def test_predict_draws_the_boxes_and_lists_them(run: Run, tmp_path: Path) -> None:
    folder = detector(tmp_path / "model")
    picture().save(tmp_path / "street.png")
    code, out, err = run("predict", folder, tmp_path / "street.png", "--output", tmp_path / "seen")
    assert code == 0, err
    listed = json.loads((tmp_path / "seen" / "street_boxes.json").read_text())
    assert {each["category"] for each in listed} == {"person"} and f"{len(listed)} person -> " in out
    scores = [each["score"] for each in listed]
    assert scores == sorted(scores, reverse=True) and scores[-1] >= 0.5
    found = detect(hf_lwmm.load(folder), picture())
    np.testing.assert_allclose(listed[0]["box"], found.boxes[0], atol=0.01)
    overlay = np.asarray(Image.open(tmp_path / "seen" / "street_overlay.png"))
    assert (overlay != np.asarray(picture())).any()
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["street_boxes.json", "street_overlay.png"]


def test_evaluate_scores_detectors_on_foggy_cityscapes(tmp_path: Path) -> None:
    ids = np.full((2, 48, 64), 7, np.uint16)
    ids[:, 4:44, 4:60] = 24001
    foggy_tree(tmp_path / "data", ids)
    right, wrong = detector(tmp_path / "right", likes=1), detector(tmp_path / "wrong", likes=0)
    report = hf_lwmm.evaluate([right, wrong], tmp_path / "data")
    assert report is not None and report.metric.name == "mean AP"
    person = report.classes.index("person")
    assert [scored.by_class[person] > 0 for scored in report.models] == [True, False]


def test_the_background_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="has 8 classes, but 19 labels were given"):
        faster_rcnn_config(slot_map(SYSTEM), label_sets()["cityscapes19"].classes)
    loaded = hf_lwmm.load(checkpoint(tmp_path / "model.pth"))
    assert loaded.classes == tuple(f"LABEL_{row}" for row in range(8)) and "names none of its 8" in loaded.notes[1]
