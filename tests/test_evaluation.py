"""Evaluation on data sets of the Hub and in folders, against scores counted by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from PIL import Image
from tiny import NAMES, scene, segformer, tree

import hf_lwmm
from hf_lwmm.errors import DatasetError, MergeError, PlanError
from hf_lwmm.evaluation import reading
from hf_lwmm.evaluation.evaluate import evaluate as evaluate_networks
from hf_lwmm.evaluation.inference import segment
from hf_lwmm.evaluation.overlays import save_picture
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.evaluation.reading import SampleCache
from hf_lwmm.evaluation.report import report
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.evaluation.task_metrics import METRICS
from hf_lwmm.labels import label_sets
from hf_lwmm.planning.images import ImageSource
from hf_lwmm.planning.inputs import NetworkOptions


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return segformer(folder / "one", 1), segformer(folder / "two", 2)


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
    found = hf_lwmm.evaluate(models, tree(tmp_path / "data"), evaluation=EvaluationSpec(ensemble=True))
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
    loaded, images = [hf_lwmm.load(path) for path in models], ImageSource(data)
    whole = evaluate_networks(loaded, images, partial=tmp_path / "whole")
    calls: list[int] = []

    def stop(what: str, done: int, total: int) -> None:
        calls.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_networks(loaded, images, partial=tmp_path / "partial", progress=stop)
    starts: list[int] = []

    def note_start(what: str, done: int, total: int) -> None:
        starts.append(done)

    again = evaluate_networks(loaded, images, partial=tmp_path / "partial", progress=note_start)
    assert starts[0] == 3  # what was counted is not counted again
    assert whole is not None and again is not None
    assert not any((tmp_path / "partial").iterdir())  # a finished run is never taken for an answer about other data
    assert np.array_equal(whole.counts, again.counts) and whole.models[1].interval == again.models[1].interval
    with pytest.raises(KeyboardInterrupt):
        evaluate_networks(loaded, images, partial=tmp_path / "partial", progress=stop)
    (data / "images" / "0.png").write_bytes(b"no picture")  # what was counted before is of other data now
    with pytest.raises(DatasetError, match=r"0\.png: cannot be decoded"):
        evaluate_networks(loaded, images, partial=tmp_path / "partial")


@pytest.mark.parametrize(
    "change",
    [
        {"spec": EvaluationSpec(flip=True)},
        {"spec": EvaluationSpec(batch_size=2)},
        {"limit": 4},
        {"ids": "cityscapes"},
        {"network": NetworkOptions(compute_dtype="bfloat16")},
        {"branch": "teacher"},
    ],
)
def test_a_partial_result_is_never_taken_for_that_of_another_evaluation(
    change: dict[str, Any], models: tuple[Path, Path], tmp_path: Path
) -> None:
    def stop(what: str, done: int, total: int) -> None:
        starts.append(done)
        if done >= 3:
            raise KeyboardInterrupt

    def run(change: dict[str, Any]) -> None:
        images = ImageSource(data, limit=change.get("limit"), ids=change.get("ids"))
        network = hf_lwmm.load(city, change.get("network", NetworkOptions()))
        network = replace(network, branch=change.get("branch", network.branch))
        with pytest.raises(KeyboardInterrupt):
            evaluate_networks([network], images, change.get("spec", EvaluationSpec()), partial=tmp_path, progress=stop)

    data, city = tree(tmp_path / "data"), segformer(tmp_path / "city", 3, label_sets()["cityscapes19"].classes)
    starts: list[int] = []
    run({})
    starts.clear()
    run(change)
    assert starts[0] == 0


def test_a_tally_that_cannot_be_kept_costs_nothing(models: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    found = evaluate_networks(
        [hf_lwmm.load(models[0])], ImageSource(tree(tmp_path / "data")), partial=tmp_path / "file"
    )
    assert found is not None and found.images == 5


def test_several_processes_give_the_same_numbers(models: tuple[Path, Path], tmp_path: Path) -> None:
    data = tree(tmp_path / "data")
    alone = hf_lwmm.evaluate(models, data)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["-m", "hf_lwmm", "evaluate", *map(str, models), "--data", str(data), "--json"]
    command[3:3] = ["--main_process_port", "29603"]  # no other test has it
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert alone is not None
    for mine, theirs in zip(alone.to_dict()["models"], found["models"], strict=True):
        assert mine == theirs


def test_what_does_not_match_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2)
    with pytest.raises(DatasetError, match=r"share no class name. --labels names a model's classes"):
        hf_lwmm.evaluate(
            [segformer(tmp_path / "other", 4, ("a", "b", "c"))], data, evaluation=EvaluationSpec(protocol="camvid11")
        )
    with pytest.raises(DatasetError, match="--ids kitti is not one of cityscapes, gta, synthia, mapillary"):
        hf_lwmm.evaluate(models[:1], ImageSource(data, ids="kitti"))
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
    found = report(METRICS["semantic"], "d", ["m"], counts, ScoredClasses(NAMES, (0, 1, 2)))
    assert found.models[0].mean == 0.75 and np.isnan(found.models[0].by_class[2])
    assert found.to_dict()["models"][0]["by_class"]["car"] is None and "| car | - |" in found.to_markdown()


def test_a_merge_shows_its_scores_and_its_parents_in_the_card(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    data = tree(tmp_path / "data", 3)
    code, _, err = run("merge", *models, "--output", tmp_path / "merged", "--eval-data", data)
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


def test_batches_give_the_same_scores(models: tuple[Path, Path], tmp_path: Path) -> None:
    data = tree(tmp_path / "data")
    one = hf_lwmm.evaluate(models, data)
    batched = hf_lwmm.evaluate(models, data, evaluation=EvaluationSpec(batch_size=2))
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
    command = ("evaluate", *models, "--data", data, "--ensemble", "--examples", 2)
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
    from hf_lwmm.evaluation.overlays import class_colours

    shown = np.asarray(Image.open(tmp_path / "shown" / f"01_{order[0]}.png"))
    # Image, labels, a model; the other, their ensemble, the difference; the labels are in Cityscapes' colours.
    key = 4 + 2 * 24  # below the panels: the classes, and what the last one shows
    assert shown.shape[:2] == (2 * (24 + 270 + 4) - 4 + key, 3 * 364 - 4)
    labels = {tuple(pixel) for pixel in shown[30:285, 370:720].reshape(-1, 3)}
    assert labels <= {tuple(colour) for colour in class_colours(NAMES)}


def test_a_picture_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    save_picture(scene(0)[0], path)
    with pytest.raises(MergeError, match=r"Could not write .*picture\.png"):
        save_picture(Image.new("F", (2, 2)), path)  # PNG files hold no fractions
    assert np.array_equal(Image.open(path), scene(0)[0]) and [*tmp_path.iterdir()] == [path]


def test_odd_input_is_refused_in_a_line(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        code, _, err = run("evaluate", *arguments)
        assert code == 1, err
        return err

    data, one = str(tree(tmp_path / "data", 2)), str(models[0])
    assert "name a file, .json or .md, in a folder that exists" in said(one, "--data", data, "--output", data)
    assert "0.png is not a folder" in said(one, "--data", data, "--plot", f"{data}/labels/0.png")
    assert "where --streaming has no meaning" in said(one, "--data", data, "--streaming")
    assert "--device nowhere: cannot be used here" in said(one, "--data", data, "--device", "nowhere")
    with pytest.raises(PlanError, match="--edaps-void is about panoptic maps"):
        hf_lwmm.evaluate([one], data, evaluation=EvaluationSpec(edaps_void=True))
    with pytest.raises(PlanError, match=r"--scales 0\.0 must be above 0"):
        EvaluationSpec(scales=(0.0,))
    assert "must be above 0 and at most 8" in said(one, "--data", data, "--scales", "1e9")
    with pytest.raises(PlanError, match="--scales is empty"):
        EvaluationSpec(scales=())
    with pytest.raises(PlanError, match="--compute-dtype int8 is not one of"):
        NetworkOptions(compute_dtype="int8")
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
    from hf_lwmm.evaluation.inference import rows_of_classes

    first, other = (
        hf_lwmm.load(segformer(tmp_path / str(seed), seed, names))
        for seed, names in ((1, ("road", "person", "sky")), (2, ("sky", "pedestrian", "road")))
    )
    rows = rows_of_classes(first, other)
    assert rows is not None and rows.tolist() == [2, 1, 0]


def test_evaluations_with_one_cache_look_at_labels_once(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, cache, looked, look = ImageSource(tree(tmp_path / "data", 3)), SampleCache(), list[str](), reading.label_ids

    def counted(images: Any, classes: ScoredClasses) -> Any:
        looked.append(images.name)
        return look(images, classes)

    monkeypatch.setattr(reading, "label_ids", counted)
    loaded = [hf_lwmm.load(folder) for folder in models[:2]]
    apart = [evaluate_networks([each], images, cache=cache) for each in loaded]
    assert looked == ["data"]
    together = evaluate_networks(loaded, images)
    assert together is not None
    assert [each.models[0].mean for each in apart if each] == [each.mean for each in together.models]
