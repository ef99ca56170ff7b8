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
from conftest import Run
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
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
    command += ["-m", "hf_lwmm", "evaluate", *map(str, models), "--dataset", str(data), "--json"]
    # Each its own port: the tests run beside each other.
    command[3:3] = ["--main_process_port", str(29600 + processes)]
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
    for label in (data / "labels").iterdir():
        Image.fromarray(np.asarray(Image.open(label)) + np.uint8(7)).save(label)
    strange = hf_lwmm.evaluate([path], data, ids="cityscapes")
    assert strange is not None and "only 2 of 19 classes occur" in " ".join(strange.notes)


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


def test_a_merge_shows_its_scores_and_its_parents_in_the_card(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    data = tree(tmp_path / "data", 3)
    code, _, err = run("merge", *models, "--output", tmp_path / "merged", "--evaluate", data)
    assert code == 0, err
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


def test_scores_on_a_data_set_of_the_hub_are_pushed_as_the_hub_reads_them(
    hub: Any, api: HfApi, models: tuple[Path, Path], rows: dict[str, list[Any]]
) -> None:
    import yaml
    from huggingface_hub import parse_eval_result_entries

    features = Features({"image": ImageFeature(), "annotation": ImageFeature()})
    Dataset.from_dict(rows, features=features).push_to_hub("local/scored", split="validation")
    done = hf_lwmm.merge(models, push="local/merged", evaluate="local/scored", evaluation={"qualitative": 1})
    assert done.evaluation is not None
    path = api.hf_hub_download("local/merged", ".eval_results/local--scored.yaml")
    (entry,) = parse_eval_result_entries(yaml.safe_load(Path(path).read_text()))
    assert entry.dataset_id == "local/scored" and entry.value == pytest.approx(
        done.evaluation.models[-1].mean, abs=1e-6
    )
    assert entry.dataset_revision == api.dataset_info("local/scored").sha
    pictures = [name for name in api.list_repo_files("local/merged") if name.startswith("plots/01_")]
    assert len(pictures) == 1 and f"]({pictures[0]})" in done.card


def test_panoptic_networks_are_scored_by_panoptic_quality(hub: Any, api: HfApi, tmp_path: Path) -> None:
    from hf_lwmm.inference import panoptic
    from hf_lwmm.metrics.panoptic import PanopticMap, mean_pq, panoptic_counts
    from hf_lwmm.metrics.runs import Runs
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


def test_fisher_information_of_a_classifier_is_of_its_images_labels(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from hf_lwmm.models import BottleneckConfig, BottleneckForImageClassification

    config = BottleneckConfig(
        depths=(1, 1, 1, 1), width=8, block="basic", bottleneck_size=8, id2label=dict(enumerate(NAMES))
    )
    BottleneckForImageClassification(config).save_pretrained(tmp_path / "model")
    for number, name in enumerate(("sky", "sky", "car")):
        (tmp_path / "data/validation" / name).mkdir(parents=True, exist_ok=True)
        scene(number)[0].save(tmp_path / "data/validation" / name / f"{number}.png")
    hf_lwmm_measure(tmp_path / "model", tmp_path / "data", tmp_path / "f.safetensors", count=3)
    loaded = hf_lwmm.load(tmp_path / "model")
    weight, squares = loaded.model.feat_embed_layer.bottleneck.weight, []
    for number, row in enumerate((NAMES.index("sky"), NAMES.index("sky"), NAMES.index("car"))):
        pixels = loaded.image_processor(scene(number)[0], return_tensors="pt")["pixel_values"]
        loss = torch.nn.functional.cross_entropy(loaded.model(pixels).logits, torch.tensor([row]))
        squares.append(torch.autograd.grad(loss, weight)[0] ** 2)
    (found,) = (t for t in load_file(tmp_path / "f.safetensors").values() if t.shape == weight.shape)
    torch.testing.assert_close(found, torch.stack(squares).mean(0), rtol=1e-3, atol=1e-9)
    with pytest.raises(PlanError, match="has no image labels, which Fisher information of model needs"):
        hf_lwmm_measure(tmp_path / "model", tree(tmp_path / "maps", 2), tmp_path / "g.safetensors")


# Measurements for methods


def test_fisher_information_is_the_mean_squared_gradient(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    data = tree(tmp_path / "data", 3)
    loaded = hf_lwmm.load(models[0])
    code, _, err = run("measure", models[0], "--dataset", data, "--count", 2, "--output", tmp_path / "f.safetensors")
    assert code == 0, err
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

    return measure(hf_lwmm.load(path), open_images(data), target, **{"count": 2, **options})


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


# Boxes, listed segments, pictures, batches


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
    from hf_lwmm.inference import detect
    from hf_lwmm.metrics.detection import Boxes, average_precision, detection_counts
    from hf_lwmm.scoring import padded

    paths = [detector(tmp_path / str(seed), seed) for seed in (1, 2)]
    record = [{"bbox": [Value("float32")], "category": ClassLabel(names=[*NAMES]), "iscrowd": Value("bool")}]
    features = Features({"image": ImageFeature(), "objects": record})
    rows: dict[str, list[Any]] = {"image": [], "objects": []}
    for seed in range(4):
        rows["image"].append(scene(seed)[0])
        rows["objects"].append([{"bbox": b, "category": c, "iscrowd": False} for c, b in objects(seed)])
    Dataset.from_dict(rows, features=features).push_to_hub("local/objects", split="validation")
    found = hf_lwmm.evaluate(paths, "local/objects", qualitative=2)
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
        hf_lwmm.evaluate(paths, "local/objects", ensemble=True)
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
    found = hf_lwmm.evaluate([model(tmp_path / "model", 1)], tmp_path)
    assert found is not None and found.metric.name == "mIoU" and found.images == 2
    (tmp_path / "val2017" / "1.png").unlink()
    with pytest.raises(DatasetError, match=r"1\.png, which is not there \(1 of 2 images\)"):
        open_images(tmp_path, task="panoptic")


def test_batches_and_compiled_networks_give_the_same_scores(models: tuple[Path, Path], tmp_path: Path) -> None:
    data = tree(tmp_path / "data")
    one = hf_lwmm.evaluate(models, data)
    batched = hf_lwmm.evaluate(models, data, batch_size=2)
    assert one is not None and batched is not None
    np.testing.assert_allclose(one.counts, batched.counts, atol=3)  # pixels whose two best classes are a rounding apart
    assert one.confusion is not None and one.confusion.shape == (2, 3, 4)
    valid = sum((scene(seed)[1] != 255).sum() for seed in range(5))
    assert one.confusion.sum(axis=(1, 2)).tolist() == [valid, valid]


def test_pictures_are_of_the_images_where_the_models_differ_most(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    data = tree(tmp_path / "data")
    first, last = (hf_lwmm.load(path) for path in models)
    parts = []
    for seed in range(5):
        image, label = scene(seed)
        a, b = (segment([loaded], [image])[0] for loaded in (first, last))
        parts.append(((a != b) & (label != 255)).sum() / (label != 255).sum())
    command = ("evaluate", *models, "--dataset", data, "--ensemble", "--qualitative", 2)
    code, _, err = run(*command, "--plot", tmp_path / "shown", "--batch-size", 3)
    assert code == 0, err
    order = np.argsort(-np.array(parts), kind="stable")[:2]
    assert [path.name for path in sorted((tmp_path / "shown").iterdir())] == [
        *(f"{number:02d}_{seed}.png" for number, seed in enumerate(order, start=1)),
        *(f"confusion_{number}.png" for number in (1, 2, 3)),
        "scores.png",
    ]
    code, _, err = run(*command)
    assert code == 1 and "name it with --plot FOLDER" in err
    from hf_lwmm.predicting import class_colours

    shown = np.asarray(Image.open(tmp_path / "shown" / f"01_{order[0]}.png"))
    # Image, labels, a model; the other, their ensemble, the difference; the labels are in Cityscapes' colours.
    assert shown.shape[:2] == (2 * (24 + 270 + 4) - 4, 3 * 364 - 4)
    labels = {tuple(pixel) for pixel in shown[30:285, 370:720].reshape(-1, 3)}
    assert labels <= {tuple(colour) for colour in class_colours(NAMES)}


def test_odd_input_is_refused_in_a_line(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        code, _, err = run("evaluate", *arguments)
        assert code == 1, err
        return err

    data, one = str(tree(tmp_path / "data", 2)), str(models[0])
    assert "name a file, .json or .md, in a folder that exists" in said(one, "--dataset", data, "--output", data)
    assert "name a folder; a file is in its place" in said(one, "--dataset", data, "--plot", f"{data}/labels/0.png")
    assert "where --streaming has no meaning" in said(one, "--dataset", data, "--streaming")
    assert "--device nowhere: cannot be used here" in said(one, "--dataset", data, "--device", "nowhere")
    for arguments, message in (
        ({"dtype": "int8"}, "--dtype int8 is none of"),
        ({"scales": [0.0]}, "a scale is a positive number"),
        ({"edaps_void": True}, "--edaps-void is about panoptic maps"),
    ):
        with pytest.raises(PlanError, match=message):
            hf_lwmm.evaluate([one], data, **arguments)
    split = tree(tmp_path / "split", 2, "images/train", "labels/train")
    with pytest.raises(DatasetError, match="no images with labels of the split validation"):
        hf_lwmm.evaluate([one], split)  # the training images are not taken for another split
    void = tmp_path / "data" / "labels"
    for path in void.iterdir():
        Image.fromarray(np.full((48, 64), 255, np.uint8)).save(path)
    with pytest.raises(DatasetError, match="has no labelled pixel"):
        hf_lwmm.evaluate([one], data)
    Image.fromarray(np.zeros((49, 64), np.uint8)).save(void / "0.png")
    with pytest.raises(DatasetError, match="the label is 64x49, but the image 64x48"):
        hf_lwmm.evaluate([one], data)


def test_synonyms_meet_in_an_ensemble(tmp_path: Path) -> None:
    from hf_lwmm.inference import rows_of_classes

    first, other = (
        hf_lwmm.load(model(tmp_path / str(seed), seed, names))
        for seed, names in ((1, ("road", "person", "sky")), (2, ("sky", "pedestrian", "road")))
    )
    rows = rows_of_classes(first, other)
    assert rows is not None and rows.tolist() == [2, 1, 0]
