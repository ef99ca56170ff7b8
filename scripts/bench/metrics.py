"""Measure what the metrics cost an image of 1024x2048 pixels and 19 classes, against peers, in one thread.

    pip install hotcoco torchmetrics evaluate cityscapesscripts
    python scripts/bench/metrics.py [--runs 15] [--noise 0.05] [--mean-iou mean_iou.py] [--no-inference]

Makes one frame of about 40 segments, with void and a class that is absent, and takes the peers in turn, in another
order each time, so that a slower moment of the machine meets them all. `evaluate` fetches its `mean_iou` script from
the Hub unless given a copy. cityscapesScripts and panopticapi read PNG files, so hf-lwmm is timed with and without
reading them. Peers that cannot be used are listed with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hf_lwmm.data.annotations import PanopticMap
from hf_lwmm.data.decoding import label_ids, segment_runs
from hf_lwmm.data.runs import Runs
from hf_lwmm.metrics.bootstrap import interval, score_resamples, summed
from hf_lwmm.metrics.panoptic import mean_pq, panoptic_counts
from hf_lwmm.metrics.semantic import confusion, mean_iou, semantic_counts

CLASSES, HEIGHT, WIDTH, CELLS = 19, 1024, 2048, 40
THINGS = range(11, 19)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
SLOW = 1.0  # seconds; what takes longer is run three times only

Way = Callable[[], float]  # runs once and gives the score


@dataclass(frozen=True)
class Segments:
    """(HEIGHT, WIDTH) ids, and their classes."""

    ids: np.ndarray
    classes: dict[int, int]
    crowds: frozenset[int] = frozenset()

    def map_of(self, runs: Runs) -> PanopticMap:
        return PanopticMap(runs, self.classes, self.crowds)


@dataclass(frozen=True)
class Frame:
    label: np.ndarray
    prediction: np.ndarray
    truth: Segments
    guess: Segments


def make_frame(noise: float) -> Frame:
    """Cells with wavy edges; in the prediction they are shifted a little and some have another class."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    wave = 6 * np.sin(x / 17) + 4 * np.sin(y / 9 + x / 31)
    nearest, cells = np.full((HEIGHT, WIDTH), np.inf, np.float32), np.zeros((HEIGHT, WIDTH), np.int32)
    for cell, (row, column) in enumerate(random.uniform(0, 1, (CELLS, 2)) * [HEIGHT, WIDTH]):
        distance = 1.5 * np.abs(y - row + wave) + np.abs(x - column + wave)
        cells[distance < nearest] = cell
        nearest = np.minimum(nearest, distance)
    classes = np.arange(CELLS) % (CLASSES - 1)
    guesses = classes.copy()
    guesses[:4] = classes[4:8]
    shifted = np.roll(cells, (3, 5), (0, 1))
    void = (cells == 10) | (y > 0.9 * HEIGHT)
    label = np.where(void, 255, classes[cells]).astype(np.uint8)
    prediction = guesses[shifted].astype(np.uint8)
    wrong = random.random(label.shape) < noise
    prediction[wrong] = random.integers(CLASSES - 1, size=int(wrong.sum()), dtype=np.uint8)
    ids = np.where(void, 0, cells + 1)
    truth = Segments(ids, {i: int(classes[i - 1]) for i in np.unique(ids).tolist() if i}, frozenset({20}))
    guess = Segments(shifted + 1, {i + 1: int(guesses[i]) for i in np.unique(shifted).tolist()})
    return Frame(label, prediction, truth, guess)


def own_miou(frame: Frame) -> Way:
    return lambda: float(mean_iou(semantic_counts(confusion(frame.label, frame.prediction, CLASSES))))


def own_pq(frame: Frame) -> Way:
    def way() -> float:
        truth, guess = (each.map_of(Runs.of(each.ids)) for each in (frame.truth, frame.guess))
        return float(mean_pq(panoptic_counts(truth, guess, CLASSES)))

    return way


def own_miou_from_files(frame: Frame, folder: Path) -> Way:
    save_class_map(frame.label, folder / "train_label.png")
    save_class_map(frame.prediction, folder / "train_prediction.png")

    def way() -> float:
        label, prediction = (label_ids(folder / f"train_{name}.png", name) for name in ("label", "prediction"))
        return float(mean_iou(semantic_counts(confusion(label, prediction, CLASSES))))

    return way


def own_pq_from_files(frame: Frame, folder: Path) -> Way:
    save_panoptic(frame, folder)

    def way() -> float:
        truth = frame.truth.map_of(segment_runs(folder / "truth" / "0.png", "truth"))
        guess = frame.guess.map_of(segment_runs(folder / "guess" / "0.png", "guess"))
        return float(mean_pq(panoptic_counts(truth, guess, CLASSES)))

    return way


def hotcoco_miou(frame: Frame) -> Way:
    semantic = importlib.import_module("hotcoco.semantic")

    def way() -> float:
        evaluation = semantic.SemanticEval(CLASSES)
        evaluation.update(frame.label, frame.prediction)
        return float(evaluation.results()["mIoU"])

    return way


def torchmetrics_miou(frame: Frame) -> Way:
    torch, functional = importlib.import_module("torch"), importlib.import_module("torchmetrics.functional")
    torch.set_num_threads(1)
    prediction, label = torch.from_numpy(frame.prediction).long(), torch.from_numpy(frame.label).long()
    return lambda: float(
        functional.jaccard_index(
            prediction, label, "multiclass", num_classes=CLASSES, ignore_index=255, average="none"
        ).mean()
    )


def evaluate_miou(frame: Frame, script: str) -> Way:
    metric = importlib.import_module("evaluate").load(script)

    def way() -> float:
        with np.errstate(invalid="ignore"):
            scores = metric.compute(
                predictions=[frame.prediction], references=[frame.label], num_labels=CLASSES, ignore_index=255
            )
        return float(scores["mean_iou"])

    return way


def cityscapes_miou(frame: Frame, folder: Path) -> Way:
    module = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    labels = [label for label in module.labels if label.id >= 0 and not label.ignoreInEval]
    ids = np.zeros(256, np.uint8)
    ids[[label.trainId for label in labels]] = [label.id for label in labels]
    save_class_map(ids[frame.label], folder / "label.png")
    save_class_map(ids[frame.prediction], folder / "prediction.png")
    args = copy.copy(module.args)
    args.evalInstLevelScore = args.evalPixelAccuracy = False

    def way() -> float:
        matrix = module.generateMatrix(args)
        module.evaluatePair(str(folder / "prediction.png"), str(folder / "label.png"), matrix, {}, {}, args)
        return float(
            module.getScoreAverage(
                {label.name: module.getIouScoreForLabel(label.id, matrix, args) for label in labels}, args
            )
        )

    return way


def panopticapi_pq(frame: Frame, folder: Path, name: str) -> Way:
    module = importlib.import_module(name)
    content = save_panoptic(frame, folder)
    categories = {category["id"]: category for category in content["categories"]}
    pair = tuple(content[side]["annotations"][0] for side in ("truth", "guess"))

    def way() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            found = module.pq_compute_single_core(0, [pair], str(folder / "truth"), str(folder / "guess"), categories)
        return float(found.pq_average(categories, None)[0]["pq"])

    return way


def hotcoco_pq(frame: Frame, folder: Path) -> Way:
    panoptic = importlib.import_module("hotcoco.panoptic")
    save_panoptic(frame, folder)
    files = str(folder / "truth.json"), str(folder / "guess.json")

    def way() -> float:
        evaluation = panoptic.PanopticEval(*files, gt_folder=folder / "truth", pred_folder=folder / "guess")
        evaluation.evaluate()
        return float(evaluation.stats[0])

    return way


def torchmetrics_pq(frame: Frame) -> Way:
    torch = importlib.import_module("torch")
    functional = importlib.import_module("torchmetrics.functional.detection")

    def pairs(segments: Segments, void: int) -> Any:
        classes = np.full(CELLS + 1, void)
        classes[list(segments.classes)] = list(segments.classes.values())
        return torch.from_numpy(np.stack([classes[segments.ids], segments.ids], axis=-1))

    guess, truth = pairs(frame.guess, 0), pairs(frame.truth, CLASSES)
    stuff = set(range(CLASSES)) - set(THINGS)
    return lambda: float(functional.panoptic_quality(guess[None], truth[None], set(THINGS), stuff))


def save_class_map(classes: np.ndarray, path: Path) -> None:
    Image.fromarray(classes).save(path)


def save_panoptic(frame: Frame, folder: Path) -> dict[str, Any]:
    """Both maps as COCO panoptic files, truth.json and guess.json with a folder each; what is in them."""
    content: dict[str, Any] = {
        "categories": [{"id": c, "name": str(c), "isthing": int(c in THINGS)} for c in range(CLASSES)]
    }
    for name, segments in (("truth", frame.truth), ("guess", frame.guess)):
        (folder / name).mkdir(exist_ok=True)
        colours = np.stack([segments.ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
        Image.fromarray(colours).save(folder / name / "0.png")
        info = [
            {"id": i, "category_id": c, "iscrowd": int(i in segments.crowds), "area": int((segments.ids == i).sum())}
            for i, c in segments.classes.items()
        ]
        content[name] = {
            "images": [{"id": 0, "file_name": "0.png", "height": HEIGHT, "width": WIDTH}],
            "annotations": [{"image_id": 0, "file_name": "0.png", "segments_info": info}],
            "categories": content["categories"],
        }
        (folder / f"{name}.json").write_text(json.dumps(content[name]))
    return content


def segformer(frame: Frame) -> Way:
    """SegFormer-B0 of random weights on one image, with the upsampling of its logits."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    torch.set_num_threads(1)
    model = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=CLASSES)).eval()
    image = torch.rand(1, 3, HEIGHT, WIDTH)

    def way() -> float:
        with torch.inference_mode():
            logits = model(image).logits
            torch.nn.functional.interpolate(logits, size=(HEIGHT, WIDTH), mode="bilinear").argmax(dim=1)
        return float("nan")

    return way


def measure(title: str, makers: dict[str, Callable[[], Way]], runs: int) -> dict[str, float]:
    """Print a table of ways and their median milliseconds, and give these; the first way is the one compared with."""
    ways: dict[str, Way] = {}
    missing = {}
    for name, make in makers.items():
        try:
            way = make()
            way()
            ways[name] = way
        except Exception as error:  # whatever keeps a peer from running is what there is to say about it
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:100]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores = {}
    order, random = list(ways.items()), np.random.default_rng(0)
    for _ in range(runs):
        random.shuffle(order)  # what ran before leaves the caches warm or cold
        for name, way in order:
            if len(seconds[name]) >= 3 and min(seconds[name]) > SLOW:
                continue
            started = time.perf_counter()
            scores[name] = way()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    print(f"\n| {title} | ms | least | times the first | score |\n|---|---|---|---|---|")
    for name, median in medians.items():
        score = "" if np.isnan(scores[name]) else f"{scores[name]:.6f}"
        print(f"| {name} | {median:.2f} | {1000 * min(seconds[name]):.2f} | {median / first:.2f} | {score} |")
    for name, reason in missing.items():
        print(f"| {name} | not run | | | {reason} |")
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--noise", type=float, default=0.0, help="part of the predicted pixels that is random")
    parser.add_argument("--mean-iou", default="mean_iou", help="name or file of evaluate's script")
    parser.add_argument("--no-inference", action="store_true", help="do not run SegFormer-B0 for comparison")
    arguments = parser.parse_args()
    if not ONE_THREAD.items() <= os.environ.items():  # libraries read it when they are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    frame = make_frame(arguments.noise)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        miou = measure(
            "mIoU, maps in memory",
            {
                "hf-lwmm": lambda: own_miou(frame),
                "hotcoco": lambda: hotcoco_miou(frame),
                "torchmetrics jaccard_index": lambda: torchmetrics_miou(frame),
                "evaluate mean_iou": lambda: evaluate_miou(frame, arguments.mean_iou),
            },
            arguments.runs,
        )
        measure(
            "mIoU, PNG files",
            {
                "hf-lwmm": lambda: own_miou_from_files(frame, folder),
                "cityscapesScripts": lambda: cityscapes_miou(frame, folder),
            },
            arguments.runs,
        )
        pq = measure(
            "PQ, maps in memory",
            {"hf-lwmm": lambda: own_pq(frame), "torchmetrics panoptic_quality": lambda: torchmetrics_pq(frame)},
            arguments.runs,
        )
        measure(
            "PQ, PNG files",
            {
                "hf-lwmm": lambda: own_pq_from_files(frame, folder),
                "hotcoco": lambda: hotcoco_pq(frame, folder),
                "panopticapi": lambda: panopticapi_pq(frame, folder, "panopticapi.evaluation"),
                "cityscapesScripts": lambda: panopticapi_pq(
                    frame, folder, "cityscapesscripts.evaluation.evalPanopticSemanticLabeling"
                ),
            },
            arguments.runs,
        )
    counts = np.random.default_rng(0).integers(1, 10_000, size=(500, CLASSES, 3))
    measure(
        "Interval, 1000 resamples of 500 images",
        {"hf-lwmm bootstrap of mIoU": lambda: lambda: interval(score_resamples(counts, summed(mean_iou))).low},
        min(arguments.runs, 5),
    )
    if not arguments.no_inference:
        inference = measure("Inference, 1 image", {"SegFormer-B0 on this processor": lambda: segformer(frame)}, 2)
        for milliseconds in inference.values():
            for metric, own in (("mIoU", miou["hf-lwmm"]), ("PQ", pq["hf-lwmm"])):
                print(f"\n{metric} adds {own / milliseconds:.3%} to inference.")


if __name__ == "__main__":
    main()
