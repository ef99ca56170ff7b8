"""Evaluation on data sets of the Hub and in folders, against scores counted by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub import HfApi
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import hf_lwmm
from hf_lwmm.datasets.labels import label_sets
from hf_lwmm.datasets.loading import open_images
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation import METRICS, report
from hf_lwmm.inference import segment

NAMES = ("road", "sky", "car")


def model(folder: Path, seed: int, names: tuple[str, ...] = NAMES) -> Path:
    torch.manual_seed(seed)
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16,
        id2label=dict(enumerate(names)),
        layer_norm_eps=1e-6,
    )
    network = SegformerForSemanticSegmentation(config)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.3 * torch.randn_like(tensor).abs()
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return model(folder / "one", 1), model(folder / "two", 2)


def scene(seed: int) -> tuple[Image.Image, np.ndarray]:
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 4, (6, 8), np.uint8)
    small[small == 3] = 255
    colours = draw.integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(colours).resize((64, 48), 0), np.kron(small, np.ones((8, 8), np.uint8))


def tree(root: Path, count: int = 5, images: str = "images", labels: str = "labels") -> Path:
    for seed in range(count):
        image, label = scene(seed)
        for name, picture in ((images, image), (labels, Image.fromarray(label))):
            (root / name).mkdir(parents=True, exist_ok=True)
            picture.save(root / name / f"{seed}.png")
    return root


def by_hand(loaded: Any, count: int, classes: int = 3) -> np.ndarray:
    """IoU of each class over all scenes."""
    hits, either = np.zeros(classes), np.zeros(classes)
    for seed in range(count):
        image, label = scene(seed)
        guess = segment([loaded], [image])[0]
        for c in range(classes):
            valid = label != 255
            hits[c] += ((guess == c) & (label == c)).sum()
            either[c] += (((guess == c) | (label == c)) & valid).sum()
    return hits / either


def test_scores_are_those_counted_by_hand(models: tuple[Path, Path], tmp_path: Path) -> None:
    found = hf_lwmm.evaluate(models, tree(tmp_path / "data"), ensemble=True)
    assert found is not None and found.images == 5 and found.classes == NAMES
    for path, scored in zip(models, found.models, strict=False):
        iou = by_hand(hf_lwmm.load(path), 5)
        np.testing.assert_allclose(scored.by_class, iou, rtol=1e-12)
        assert scored.mean == pytest.approx(iou.mean()) and scored.interval.low <= iou.mean() <= scored.interval.high
    anchor, other, both = found.models
    assert anchor.difference is None and other.difference == pytest.approx(other.mean - anchor.mean)
    assert other.difference_interval is not None and other.difference_interval.low <= other.difference
    assert both.name == "ensemble of 2" and np.isfinite(both.mean)
    assert any("does not name its classes; its ids were taken for one's" in note for note in found.notes)
    text = found.to_markdown()
    assert f"| two | {100 * other.mean:.2f} |" in text and "| car |" in text


def test_a_killed_run_goes_on_where_it_stopped(models: tuple[Path, Path], tmp_path: Path) -> None:
    data = tree(tmp_path / "data")
    whole = hf_lwmm.evaluate(models, data, partial=tmp_path / "whole")
    calls: list[int] = []

    def stop(what: str, done: int, total: int) -> None:
        calls.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hf_lwmm.evaluate(models, data, partial=tmp_path / "partial", progress=stop)
    starts: list[int] = []
    again = hf_lwmm.evaluate(
        models, data, partial=tmp_path / "partial", progress=lambda what, done, total: starts.append(done)
    )
    assert starts[0] == 3  # what was counted is not counted again
    assert whole is not None and again is not None
    assert not any((tmp_path / "partial").iterdir())  # a finished run is never taken for an answer about other data
    assert np.array_equal(whole.counts, again.counts) and whole.models[1].interval == again.models[1].interval
    with pytest.raises(KeyboardInterrupt):
        hf_lwmm.evaluate(models, data, partial=tmp_path / "partial", progress=stop)
    (data / "images" / "0.png").write_bytes(b"no picture")  # what was counted before is of other data now
    with pytest.raises(DatasetError, match=r"0\.png: cannot be decoded"):
        hf_lwmm.evaluate(models, data, partial=tmp_path / "partial")


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_same_numbers(processes: int, models: tuple[Path, Path], tmp_path: Path) -> None:
    data = tree(tmp_path / "data")
    alone = hf_lwmm.evaluate(models, data, partial=tmp_path / "alone")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += ["-m", "hf_lwmm", "evaluate", *map(str, models), "--dataset", str(data), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert alone is not None
    for mine, theirs in zip(alone.to_dict()["models"], found["models"], strict=True):
        assert mine == theirs


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Any]]:
    scenes = [scene(seed) for seed in range(4)]
    return {"image": [image for image, _ in scenes], "annotation": [Image.fromarray(label) for _, label in scenes]}


def test_data_sets_of_the_hub_are_read_by_type_and_usual_names(
    hub: Any, api: HfApi, models: tuple[Path, Path], rows: dict[str, list[Any]], tmp_path: Path
) -> None:
    features = Features({"image": ImageFeature(), "annotation": ImageFeature()})
    Dataset.from_dict(rows, features=features).push_to_hub("local/scenes", split="validation")
    (tmp_path / "id2label.json").write_text(json.dumps(dict(enumerate(("sky", "road", "car")))))
    api.upload_file(path_or_fileobj=tmp_path / "id2label.json", path_in_repo="id2label.json", repo_id="local/scenes",
                    repo_type="dataset")  # fmt: skip
    images = open_images("local/scenes")
    assert images.count == 4 and images.classes == ("sky", "road", "car")
    assert np.array_equal(images.read(2).label, scene(2)[1])
    found = hf_lwmm.evaluate(models[:1], "local/scenes")
    # Ids are the data set's, whose names stand in another order.
    assert found is not None and found.classes == ("sky", "road", "car")
    hits = sum(
        ((segment([hf_lwmm.load(models[0])], [scene(s)[0]])[0] == 1) & (scene(s)[1] == 0)).sum() for s in range(4)
    )
    assert found.counts[0, :, 0, 0].sum() == hits
    with pytest.raises(DatasetError, match="local/scenes, split test: cannot be opened"):
        open_images("local/scenes", "test")
    with pytest.raises(DatasetError, match=r"no such data set|cannot be opened"):
        open_images("local/nothing-here")
    with pytest.raises(DatasetError, match="has no column 'x'"):
        open_images("local/scenes", label_column="x")


def test_palette_masks_keep_their_ids_and_columns_can_be_ambiguous(hub: Any, rows: dict[str, list[Any]]) -> None:
    masks = [mask.convert("P") for mask in rows["annotation"]]
    for mask, source in zip(masks, rows["annotation"], strict=True):
        mask.putdata(list(source.getdata()))
        mask.putpalette([value for colour in label_sets()["cityscapes19"].colours for value in colour])
    features = Features({"pixel_values": ImageFeature(), "first": ImageFeature(), "second": ImageFeature()})
    data = Dataset.from_dict({"pixel_values": rows["image"], "first": masks, "second": masks}, features=features)
    data.push_to_hub("local/palette", split="validation")
    with pytest.raises(DatasetError, match=r"several columns could be it \(first, second\).*--label-column"):
        open_images("local/palette")
    images = open_images("local/palette", label_column="second")
    assert np.array_equal(images.read(1).label, scene(1)[1])


def test_what_has_no_masks_is_refused(hub: Any, models: tuple[Path, Path], rows: dict[str, list[Any]]) -> None:
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    data = Dataset.from_dict({"image": rows["image"], "label": [0, 1, 0, 1]}, features=features)
    data.push_to_hub("local/classes", split="validation")
    assert open_images("local/classes").task == "classification"
    with pytest.raises(DatasetError, match="has classification labels, but one is a semantic network"):
        hf_lwmm.evaluate(models[:1], "local/classes")
    features = Features({"image": ImageFeature(), "caption": Value("string")})
    Dataset.from_dict({"image": rows["image"], "caption": ["x"] * 4}, features=features).push_to_hub(
        "local/captions", split="validation"
    )
    with pytest.raises(DatasetError, match=r"no column is plainly the label: it has image, caption"):
        open_images("local/captions")


def test_trees_are_read_as_they_are_downloaded(tmp_path: Path) -> None:
    city = tmp_path / "city"
    raw = np.full(256, 3, np.uint8)  # id 3 is ignored
    raw[:3] = (7, 23, 26)  # road, sky, car
    for seed in range(3):
        image, label = scene(seed)
        for kind, picture in (("leftImg8bit", image), ("gtFine", Image.fromarray(raw[label]))):
            folder = city / kind / "val" / "ulm"
            folder.mkdir(parents=True, exist_ok=True)
            ending = "leftImg8bit" if kind == "leftImg8bit" else "gtFine_labelIds"
            picture.save(folder / f"ulm_{seed}_{ending}.png")
    images = open_images(city)
    assert images.ids == "cityscapes" and images.count == 3
    table = label_sets()["cityscapes19"].table("cityscapes")
    assert np.array_equal(table[images.read(0).label], np.array([0, 10, 13, *[255] * 253], np.uint8)[scene(0)[1]])
    synthia = tree(tmp_path / "synthia", 2, "RGB", "GT/LABELS")
    assert open_images(synthia).ids == "synthia"
    assert open_images(tree(tmp_path / "vistas" / "validation", 2)).count == 2
    assert open_images(tmp_path / "vistas").count == 2
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DatasetError, match="no images with labels of the split validation"):
        open_images(tmp_path / "nothing")
    (synthia / "GT" / "LABELS" / "1.png").unlink()
    with pytest.raises(DatasetError, match=r"has no label for 1\.png \(1 of 2"):
        open_images(synthia)


def test_protocols_choose_classes_by_name_in_one_pass(tmp_path: Path) -> None:
    city = label_sets()["cityscapes19"].classes
    path = model(tmp_path / "city", 3, city)
    data = tree(tmp_path / "data", 3)
    found = hf_lwmm.evaluate([path], data, protocol="synthia16")
    assert found is not None and found.classes == label_sets()["synthia16"].classes
    assert set(found.models[0].other_protocols) == {"cityscapes19", "synthia13"}
    whole = hf_lwmm.evaluate([path], data, protocol="cityscapes19")
    assert whole is not None
    rows = [city.index(name) for name in found.classes]
    np.testing.assert_array_equal(found.models[0].by_class, whole.models[0].by_class[rows])
    assert whole.models[0].other_protocols["synthia16"] == pytest.approx(found.models[0].mean)


def test_what_does_not_match_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2)
    with pytest.raises(DatasetError, match=r"share no class name. --labels names a model's classes"):
        hf_lwmm.evaluate([model(tmp_path / "other", 4, ("a", "b", "c"))], data, protocol="camvid11")
    with pytest.raises(DatasetError, match="--ids kitti is none of cityscapes, gta, synthia, mapillary"):
        hf_lwmm.evaluate(models[:1], data, ids="kitti")
    with pytest.raises(PlanError, match="at least one model"):
        hf_lwmm.evaluate([], data)
    (tmp_path / "data" / "id2label.json").write_text('{"0": "road", "1": "sky"}')
    with pytest.raises(DatasetError, match=r"has the id 2, but there are 2 classes and 255"):
        hf_lwmm.evaluate(models[:1], data)
    (tmp_path / "data" / "id2label.json").unlink()
    Image.fromarray(np.zeros((10, 64), np.uint8)).save(data / "labels" / "0.png")
    with pytest.raises(DatasetError, match=r"0\.png: the label is 64x10, but the image 64x48"):
        hf_lwmm.evaluate(models[:1], data)
    empty = tmp_path / "empty"
    (empty / "images").mkdir(parents=True)
    (empty / "labels").mkdir()
    with pytest.raises(DatasetError, match="the split has no images"):
        hf_lwmm.evaluate(models[:1], empty)


def test_classes_that_do_not_occur_are_left_out_of_the_mean() -> None:
    counts = np.zeros((1, 2, 3, 3), np.int64)
    counts[0, :, 0] = (5, 5, 0)
    counts[0, :, 1] = (10, 0, 0)
    found = report(METRICS["semantic"], "d", ["m"], counts, NAMES, [0, 1, 2], None, 1.0)
    assert found.models[0].mean == 0.75 and np.isnan(found.models[0].by_class[2])
    assert found.to_dict()["models"][0]["by_class"]["car"] is None and "| car | - |" in found.to_markdown()


def test_a_merge_shows_its_scores_and_its_parents_in_the_card(models: tuple[Path, Path], tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 3)
    command = [sys.executable, "-m", "hf_lwmm", "merge", *map(str, models), "--output", str(tmp_path / "merged")]
    done = subprocess.run([*command, "--evaluate", str(data)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "merged" / "evaluation.json").read_text())
    assert [entry["model"] for entry in scores["models"]] == ["one", "two", "merged"]
    card = (tmp_path / "merged" / "README.md").read_text()
    mean = scores["models"][2]["mean"]
    assert f"| merged | {100 * mean:.2f} |" in card and "## Scores" in card and str(tmp_path) not in card
    from huggingface_hub import ModelCard

    results = ModelCard(card).data.eval_results
    assert results[0].metric_type == "mean_iou" and results[0].metric_value == pytest.approx(mean, abs=1e-6)
    assert {r.metric_config for r in results[1:]} <= {f"class:{name}" for name in NAMES}
    merged = hf_lwmm.evaluate([tmp_path / "merged"], data)
    assert merged is not None and merged.models[0].mean == pytest.approx(mean)


def test_panoptic_networks_are_scored_by_panoptic_quality(hub: Any, api: HfApi, tmp_path: Path) -> None:
    from hf_lwmm.inference import panoptic
    from hf_lwmm.metrics.panoptic import PanopticMap, mean_pq, panoptic_counts
    from hf_lwmm.models import EDAPSConfig, EDAPSForPanopticSegmentation

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
        truths.append(PanopticMap(ids, {info["id"]: info["category_id"] for info in infos}))
        colours = np.stack([ids % 256, ids // 256, 0 * ids], axis=-1).astype(np.uint8)
        for name, value in (("image", image), ("label", Image.fromarray(colours)), ("segments_info", infos)):
            rows[name].append(value)
    record = [{"id": Value("int64"), "category_id": Value("int64"), "iscrowd": Value("int64")}]
    features = Features({"image": ImageFeature(), "label": ImageFeature(), "segments_info": record})
    Dataset.from_dict(rows, features=features).push_to_hub("local/segments", split="validation")
    found = hf_lwmm.evaluate([loaded], "local/segments")
    assert found is not None and found.metric.name == "mean PQ"
    codes = [panoptic(loaded, scene(seed)[0]) for seed in range(3)]
    counts = [panoptic_counts(t, PanopticMap.of_codes(c, 1000, 255000), 3) for t, c in zip(truths, codes, strict=True)]
    assert found.models[0].mean == pytest.approx(float(mean_pq(np.sum(counts, axis=0))))
    assert set(found.models[0].extras) == {"mean SQ", "mean RQ"} and "| PQ |" in found.to_markdown()
    with pytest.raises(PlanError, match="panoptic maps do not have"):
        hf_lwmm.evaluate([loaded], "local/segments", ensemble=True)
    semantic = hf_lwmm.evaluate([loaded], tree(tmp_path / "data", 2))  # its semantic head alone
    assert semantic is not None and semantic.metric.name == "mIoU"


def test_classifiers_are_scored_by_average_accuracy(hub: Any, tmp_path: Path) -> None:
    from hf_lwmm.inference import classify
    from hf_lwmm.models import BottleneckConfig, BottleneckForImageClassification

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
    found = hf_lwmm.evaluate(paths, "local/pictures", ensemble=True)
    assert found is not None and found.metric.name == "average accuracy" and found.classes == ("car", "road", "sky")
    order = {0: 1, 1: 2, 2: 0}  # road, sky, car as the data set counts them
    for path, scored in zip(paths, found.models, strict=False):
        right = [order[classify([hf_lwmm.load(path)], [scene(s)[0]])[0]] == truth[s] for s in range(6)]
        by_class = [np.mean(right[:3]), np.mean(right[3:4]), np.mean(right[4:])]
        assert scored.mean == pytest.approx(np.mean(by_class))
        assert scored.extras["overall accuracy"] == pytest.approx(np.mean(right))


# Measurements for methods


def test_fisher_information_is_the_mean_squared_gradient(models: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    data = tree(tmp_path / "data", 3)
    loaded = hf_lwmm.load(models[0])
    command = [sys.executable, "-m", "hf_lwmm", "measure", str(models[0]), "--dataset", str(data), "--count", "2"]
    done = subprocess.run([*command, "--output", str(tmp_path / "f.safetensors")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "f.safetensors")
    squares = []
    for seed in range(2):
        image, label = scene(seed)
        pixels = loaded.image_processor(image, return_tensors="pt")["pixel_values"]
        logits = torch.nn.functional.interpolate(loaded.model(pixels).logits, label.shape, mode="bilinear")
        target = torch.from_numpy(label.astype(np.int64))[None]
        loss = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
        weight = loaded.model.decode_head.classifier.weight
        squares.append(torch.autograd.grad(loss, weight)[0] ** 2)
    torch.testing.assert_close(found["segformer.classifier.weight"], torch.stack(squares).mean(0), rtol=1e-3, atol=1e-9)
    other = tmp_path / "g.safetensors"
    hf_lwmm_measure(models[1], data, other)
    paths = list(models)
    plan = hf_lwmm.merge(
        paths, method="fisher", statistics=[tmp_path / "f.safetensors", other], output=tmp_path / "merged"
    ).plan
    assert plan.method.name == "fisher" and hf_lwmm.load(tmp_path / "merged").classes == NAMES
    with pytest.raises(PlanError, match="--kind hessian is none of fisher, grams"):
        hf_lwmm_measure(models[0], data, tmp_path / "h.safetensors", kind="hessian")


def hf_lwmm_measure(path: Path, data: Path, target: Path, **options: Any) -> int:
    from hf_lwmm.measuring import measure

    return measure(hf_lwmm.load(path), open_images(data), target, count=2, **options)


def test_gram_matrices_are_of_the_layers_inputs(models: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    data = tree(tmp_path / "data", 3)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, target in zip(models, files, strict=True):
        assert hf_lwmm_measure(path, data, target, kind="grams") == 2
    found = load_file(files[0])
    loaded = hf_lwmm.load(models[0])
    inputs: list[torch.Tensor] = []
    loaded.model.decode_head.classifier.register_forward_pre_hook(lambda layer, given: inputs.append(given[0]))
    total = 0
    for seed in range(2):
        loaded.model(loaded.image_processor(scene(seed)[0], return_tensors="pt")["pixel_values"])
        rows = inputs[-1][0].flatten(1).T
        total = total + rows.T @ rows / 2
    torch.testing.assert_close(found["segformer.classifier.weight"], total, rtol=1e-3, atol=1e-3)
    hf_lwmm.merge(models, method="regmean", statistics=files, output=tmp_path / "merged")
    assert hf_lwmm.load(tmp_path / "merged").classes == NAMES
