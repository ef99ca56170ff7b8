"""Evaluation of panoptic networks, classifiers and detectors, against scores counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub import HfApi
from PIL import Image
from tiny import NAMES, scene, segformer, tree

import hf_lwmm
from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.labels import label_sets


def test_panoptic_networks_are_scored_by_panoptic_quality(hub: Any, api: HfApi, tmp_path: Path) -> None:
    from hf_lwmm.data.annotations import PanopticMap
    from hf_lwmm.data.runs import Runs
    from hf_lwmm.evaluation.inference import panoptic
    from hf_lwmm.metrics.panoptic import mean_pq, panoptic_counts
    from hf_lwmm.networks import EDAPSConfig, EDAPSForPanopticSegmentation

    torch.manual_seed(0)
    config = EDAPSConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 2, 3, 4], embedding_size=8,
        decoder_hidden_size=8, fpn_hidden_size=8, box_hidden_size=16, mask_hidden_size=8, thing_ids=(2,),
        stuff_area=1, instance_score=0.0, id2label=dict(enumerate(NAMES)),
    )  # fmt: skip
    network = EDAPSForPanopticSegmentation(config)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.3 * torch.randn_like(tensor).abs()
    network.save_pretrained(tmp_path / "edaps")
    loaded = hf_lwmm.load(tmp_path / "edaps")
    truths, rows = [], {"image": [], "label": [], "segments_info": []}
    for seed in range(3):
        image, label = scene(seed)
        ids = np.where(label == 255, 0, label.astype(np.int64) + 300)
        infos = [{"id": int(i), "category_id": int(i) - 300, "iscrowd": 0} for i in np.unique(ids) if i]
        truths.append(PanopticMap(Runs.of(ids), {info["id"]: info["category_id"] for info in infos}))
        colours = np.stack([ids % 256, ids // 256, 0 * ids], axis=-1).astype(np.uint8)
        for name, value in (("image", image), ("label", Image.fromarray(colours)), ("segments_info", infos)):
            rows[name].append(value)
    record = [{"id": Value("int64"), "category_id": Value("int64"), "iscrowd": Value("int64")}]
    features = Features({"image": ImageFeature(), "label": ImageFeature(), "segments_info": record})
    Dataset.from_dict(rows, features=features).push_to_hub("local/segments", split="validation")
    found = hf_lwmm.evaluate([loaded], "local/segments")
    assert found is not None and found.metric.name == "mean PQ"
    codes = [panoptic(loaded, scene(seed)[0]) for seed in range(3)]
    counts = [
        panoptic_counts(t, PanopticMap.of_codes(Runs.of(c), 1000, 255000), 3)
        for t, c in zip(truths, codes, strict=True)
    ]
    assert found.models[0].mean == pytest.approx(float(mean_pq(np.sum(counts, axis=0))))
    assert set(found.models[0].extras) == {"mean SQ", "mean RQ"} and "| PQ |" in found.to_markdown()
    with pytest.raises(PlanError, match="panoptic maps do not have"):
        hf_lwmm.evaluate([loaded], "local/segments", evaluation=EvaluationSpec(ensemble=True))
    semantic = hf_lwmm.evaluate([loaded], tree(tmp_path / "data", 2))  # its semantic head alone
    assert semantic is not None and semantic.metric.name == "mIoU"


def test_classifiers_are_scored_by_average_accuracy(hub: Any, tmp_path: Path) -> None:
    from hf_lwmm.evaluation.inference import classify
    from hf_lwmm.networks import BottleneckConfig, BottleneckForImageClassification

    paths = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = BottleneckConfig(
            depths=(1, 1, 1, 1), width=8, block="basic", bottleneck_size=8, id2label=dict(enumerate(NAMES))
        )
        BottleneckForImageClassification(config).save_pretrained(tmp_path / str(seed))
        paths.append(tmp_path / str(seed))
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["car", "road", "sky"])})
    truth = [0, 0, 0, 1, 2, 2]
    data = Dataset.from_dict({"image": [scene(s)[0] for s in range(6)], "label": truth}, features=features)
    data.push_to_hub("local/pictures", split="validation")
    found = hf_lwmm.evaluate(paths, "local/pictures", evaluation=EvaluationSpec(ensemble=True))
    assert found is not None and found.metric.name == "average accuracy" and found.classes == ("car", "road", "sky")
    order = {0: 1, 1: 2, 2: 0}  # road, sky, car as the data set counts them
    for path, scored in zip(paths, found.models, strict=False):
        right = [order[classify([hf_lwmm.load(path)], [scene(s)[0]])[0]] == truth[s] for s in range(6)]
        by_class = [np.mean(right[:3]), np.mean(right[3:4]), np.mean(right[4:])]
        assert scored.mean == pytest.approx(np.mean(by_class))
        assert scored.extras["overall accuracy"] == pytest.approx(np.mean(right))


def detector(folder: Path, seed: int, names: tuple[str, ...] = NAMES) -> Path:
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    torch.manual_seed(seed)
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[48, 64],
        num_detection_tokens=8, use_mid_position_embeddings=False, id2label=dict(enumerate(names)),
    )  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(folder)
    YolosImageProcessor(do_resize=False, do_pad=False).save_pretrained(folder)
    return folder


def objects(seed: int) -> list[tuple[int, list[int]]]:
    """Class and x, y, width, height."""
    draw = np.random.default_rng(seed)
    return [(int(draw.integers(0, 3)), [int(v) for v in draw.integers(1, 24, 4)]) for _ in range(3)]


def test_detectors_are_scored_by_average_precision(hub: Any, tmp_path: Path) -> None:
    from hf_lwmm.data.annotations import Boxes
    from hf_lwmm.evaluation.inference import detect
    from hf_lwmm.evaluation.per_image import padded
    from hf_lwmm.metrics.detection import average_precision, detection_counts

    paths = [detector(tmp_path / str(seed), seed) for seed in (1, 2)]
    record = [{"bbox": [Value("float32")], "category": ClassLabel(names=[*NAMES]), "iscrowd": Value("bool")}]
    features = Features({"image": ImageFeature(), "objects": record})
    rows: dict[str, list[Any]] = {"image": [], "objects": []}
    for seed in range(4):
        rows["image"].append(scene(seed)[0])
        rows["objects"].append([{"bbox": b, "category": c, "iscrowd": False} for c, b in objects(seed)])
    Dataset.from_dict(rows, features=features).push_to_hub("local/objects", split="validation")
    found = hf_lwmm.evaluate(paths, "local/objects", evaluation=EvaluationSpec(examples=2))
    assert found is not None and found.metric.name == "mean AP" and found.classes == NAMES and found.commit
    for path, scored in zip(paths, found.models, strict=True):
        loaded, counts = hf_lwmm.load(path), []
        for seed in range(4):
            corners = np.array([[x, y, x + w, y + h] for _, (x, y, w, h) in objects(seed)], float)
            truth = Boxes(corners, np.array([c for c, _ in objects(seed)]))
            counts.append(detection_counts(truth, detect(loaded, scene(seed)[0]), 3))
        ap, ap50 = average_precision(padded(counts, 0), range(3))
        np.testing.assert_allclose(scored.by_class, ap)
        assert scored.extras["mean AP50"] == pytest.approx(np.nanmean(ap50))
    assert len(found.examples) == 2 and found.examples[0].picture.height > 2 * 200
    with pytest.raises(PlanError, match="which boxes do not have"):
        hf_lwmm.evaluate(paths, "local/objects", evaluation=EvaluationSpec(ensemble=True))
    # The same from COCO's lists, and from Cityscapes' instances.
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    (coco / "val2017").mkdir()
    entries = [
        {"id": 10 * s + k, "image_id": s, "category_id": 5 + c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for s in range(4)
        for k, (c, b) in enumerate(objects(s))
    ]
    listed = {
        "images": [{"id": s, "file_name": f"{s}.png"} for s in range(4)],
        "categories": [{"id": 5 + c, "name": name} for c, name in enumerate(NAMES)],
        "annotations": entries,
    }
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(listed))
    for seed in range(4):
        scene(seed)[0].save(coco / "val2017" / f"{seed}.png")
    again = hf_lwmm.evaluate(paths, coco)
    assert again is not None
    assert [m.mean for m in again.models] == pytest.approx([m.mean for m in found.models], nan_ok=True)
    entries[0]["bbox"] = [1, 1, 0, 5]
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(listed))
    with pytest.raises(DatasetError, match="has no extent"):
        hf_lwmm.evaluate(paths, coco)


def test_boxes_of_cityscapes_are_around_its_instances(tmp_path: Path) -> None:
    ids = np.full((48, 64), 7, np.uint16)
    ids[10:20, 5:15], ids[30:40, 30:33], ids[5:9, 40:50] = 26001, 24000, 26  # a car, a person, a group of cars
    for kind, name in (("leftImg8bit_foggy", "leftImg8bit_foggy_beta_0.02"), ("gtFine", "gtFine_instanceIds")):
        folder = tmp_path / kind / "val" / "ulm"
        folder.mkdir(parents=True)
        picture = scene(0)[0] if kind != "gtFine" else Image.fromarray(ids)
        picture.save(folder / f"ulm_0_{name}.png")
    images = open_images(tmp_path, task="detection")
    boxes = images.read(0).boxes
    assert images.classes == label_sets()["cityscapes19"].things and boxes is not None
    found = {images.classes[c]: b for c, b in zip(boxes.labels, boxes.boxes.tolist(), strict=True)}
    assert found == {"car": [5, 10, 15, 20], "person": [30, 30, 33, 40]}


def test_segments_in_cocos_lists_are_read_with_their_classes(tmp_path: Path) -> None:
    (tmp_path / "annotations" / "panoptic_val2017").mkdir(parents=True)
    (tmp_path / "val2017").mkdir()
    annotations = []
    for seed in range(2):
        image, label = scene(seed)
        image.save(tmp_path / "val2017" / f"{seed}.png")
        ids = np.where(label == 255, 0, label.astype(int) + 300)
        Image.fromarray(np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)).save(
            tmp_path / "annotations" / "panoptic_val2017" / f"{seed}.png"
        )
        infos = [{"id": int(i), "category_id": int(i) - 300 + 7, "iscrowd": 0} for i in np.unique(ids) if i]
        annotations.append({"image_id": seed, "file_name": f"{seed}.png", "segments_info": infos})
    listed = {
        "images": [{"id": s, "file_name": f"{s}.png"} for s in range(2)],
        "categories": [{"id": 7 + c, "name": name} for c, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text(json.dumps(listed))
    images = open_images(tmp_path, task="panoptic")
    assert images.task == "panoptic" and images.classes == NAMES
    for seed in range(2):
        assert np.array_equal(images.read(seed).label, scene(seed)[1])
    # A semantic network is scored on the segments' classes.
    found = hf_lwmm.evaluate([segformer(tmp_path / "model", 1)], tmp_path)
    assert found is not None and found.metric.name == "mIoU" and found.images == 2
    (tmp_path / "val2017" / "1.png").unlink()
    with pytest.raises(DatasetError, match=r"1\.png, which is not there \(1 of 2 images\)"):
        open_images(tmp_path, task="panoptic")
