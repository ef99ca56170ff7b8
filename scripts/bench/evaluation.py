"""Time evaluations from decoding to the score as whole processes, against loops as people write them.

    pip install torchmetrics evaluate cityscapesscripts
    python scripts/bench/evaluation.py [--runs 5] [--row NETWORK/KIND ...] [--way WAY ...] [--place FOLDER]

Frames of 1024x2048 pixels with 19 classes go through networks in float32 (`frames.py` makes both). Ways take turns, in
another order each time. A run's start is the time from the beginning of its process to its first frame, imports and
loading included; its rate is that of all frames after that, the report included. The loops decode with Pillow, prepare
with the repository's own image processor, enlarge the logits with `interpolate`, and take `argmax`; they differ in who
counts. Ways that cannot be used are listed with the reason. `evaluate` fetches its `mean_iou` script from the Hub,
unless MEAN_IOU is the path of a copy.
"""

from __future__ import annotations

import time

BEGAN = time.time()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import shlex  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from frames import CLASSES, SIZE, read_frames, save_frames, save_network  # noqa: E402
from PIL import Image  # noqa: E402

MIOU = ("hf-lwmm", "loop", "loop, mmseg's counts", "loop, torchmetrics", "loop, evaluate", "pipeline")
PQ = ("hf-lwmm", "loop, cityscapesScripts", "loop, torchmetrics")
# Each row's frames, and who runs it.
ROWS: dict[str, tuple[int, tuple[str, ...]]] = {
    "nothing/png": (12, MIOU),
    "nothing/jpg": (12, MIOU[:2]),
    "nothing-pq/png": (4, PQ),
    "segformer-b0/png": (4, MIOU),
    "segformer-b0/jpg": (4, MIOU[:2]),
    "deeplab-r101/png": (2, MIOU[:2]),
    "deeplab-r101/jpg": (2, MIOU[:2]),
}

# One way in a process of its own


def run_way(way: str, model: Path, data: Path, threads: int) -> None:
    """Print the time of the first frame, of the last, and the score."""
    import torch

    torch.set_num_threads(threads)
    loop = _panoptic_loop if model.name.endswith("-pq") else _pipeline if way == "pipeline" else _loop
    first, last, score = _own(model, data) if way == "hf-lwmm" else loop(way, model, data)
    print(json.dumps({"start": first - BEGAN, "seconds": last - first, "score": float(score)}))


def _own(model: Path, data: Path) -> tuple[float, float, float]:
    """Run the command, whose bar of progress tells when the first frame begins."""
    from importlib import import_module

    from hf_lwmm.__main__ import main

    seen: list[float] = []
    command: Any = import_module("hf_lwmm.cli.evaluate")
    command.progress_bar = lambda: contextlib.nullcontext(lambda *_: seen.append(time.time()))
    sys.argv = ["hf-lwmm", "evaluate", str(model), "--data", str(data), "--split", "val", "--json"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main()
    return seen[0], time.time(), json.loads(printed.getvalue())["models"][0]["mean"]


def _loop(way: str, folder: Path, data: Path) -> tuple[float, float, float]:
    import torch
    import transformers
    from torch.nn.functional import interpolate

    if folder.name == "deeplab-r101":
        import hf_lwmm.networks  # noqa: F401  (registers it)

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    add, result = _counter(way)
    corners = bool(getattr(processor, "align_corners", False))
    first = time.time()
    with torch.inference_mode():
        for image, truth in read_frames(data):
            pixels = processor(image, return_tensors="pt")["pixel_values"]
            logits = model(pixels).logits
            guess = interpolate(logits, truth.shape, mode="bilinear", align_corners=corners).argmax(1)[0]
            add(guess, torch.from_numpy(truth).long())
    return first, time.time(), result()


def _pipeline(way: str, folder: Path, data: Path) -> tuple[float, float, float]:
    import torch
    import transformers

    pipe = transformers.pipeline("image-segmentation", model=str(folder))
    add, result = _counter(way)
    first = time.time()
    for image, truth in read_frames(data):
        guess = np.full(truth.shape, 255, np.uint8)
        for part in pipe(image, subtask="semantic"):
            guess[np.asarray(part["mask"]) > 0] = int(part["label"].split()[-1])
        add(torch.from_numpy(guess).long(), torch.from_numpy(truth).long())
    return first, time.time(), result()


def _counter(way: str) -> tuple[Callable[[Any, Any], None], Callable[[], float]]:
    """The function that counts a frame, and the one that gives the mean IoU."""
    import torch

    if way == "loop, torchmetrics":
        from torchmetrics.classification import MulticlassConfusionMatrix

        metric = MulticlassConfusionMatrix(CLASSES, ignore_index=255)
        return metric.update, lambda: _mean_iou(metric.compute())
    if way == "loop, evaluate":
        import evaluate

        script = evaluate.load(os.environ.get("MEAN_IOU", "mean_iou"))
        maps: list[Any] = []
        options = {"num_labels": CLASSES, "ignore_index": 255}
        add = lambda *pair: maps.append([each.numpy().astype(np.uint8) for each in pair])  # noqa: E731
        return add, lambda: script.compute(
            predictions=[guess for guess, _ in maps], references=[truth for _, truth in maps], **options
        )["mean_iou"]
    if way == "loop, mmseg's counts":
        areas: list[Any] = []

        def intersect(guess: Any, truth: Any) -> None:
            valid = truth != 255
            guess, truth = guess[valid], truth[valid]
            bins = [torch.histc(x.float(), CLASSES, 0, CLASSES - 1) for x in (guess[guess == truth], guess, truth)]
            areas.append(torch.stack([bins[0], bins[1] + bins[2] - bins[0]]).double())

        return intersect, lambda: float((sum(areas)[0] / sum(areas)[1]).nanmean())
    confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)

    def count(guess: Any, truth: Any) -> None:
        valid = truth != 255
        pairs = truth[valid] * CLASSES + guess[valid]
        confusion.add_(torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES))

    return count, lambda: _mean_iou(confusion)


def _mean_iou(confusion: Any) -> float:
    hits = confusion.diagonal().double()
    return float((hits / (confusion.sum(0) + confusion.sum(1) - hits)).nanmean())


def _panoptic_loop(way: str, folder: Path, data: Path) -> tuple[float, float, float]:
    import torch
    import transformers

    import hf_lwmm.networks  # noqa: F401  (registers it)

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model: Any = transformers.AutoModelForUniversalSegmentation.from_pretrained(folder).eval()
    listed = json.loads((data / "annotations" / "panoptic_val.json").read_text())
    categories = {each["id"]: each for each in listed["categories"]}
    if way == "loop, torchmetrics":
        from torchmetrics.detection import PanopticQuality

        metric = PanopticQuality({18}, set(range(18)) | {CLASSES}, allow_unknown_preds_category=True)
    else:
        from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as scripts

        total = scripts.PQStat()
    first = time.time()
    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        for (image, truth), entry in zip(read_frames(data), listed["annotations"], strict=True):
            outputs = model(processor(image, return_tensors="pt")["pixel_values"])
            codes = model.post_process_panoptic(outputs, [truth.shape])[0]
            if way == "loop, torchmetrics":
                ids = np.asarray(Image.open(data / "annotations" / "panoptic_val" / entry["file_name"]))[..., 0]
                known = torch.from_numpy(np.where(truth == 255, CLASSES, truth)).long()
                pair = torch.stack([known, torch.from_numpy(ids).long()], -1)
                guess = torch.stack([codes // 1000, codes % 1000], -1)
                metric.update(torch.where(guess[..., :1] == 255, CLASSES, guess)[None], pair[None])
                continue
            classes = [code for code in codes.unique().tolist() if code != 255000]
            table = np.zeros(256001, np.uint8)
            table[classes] = np.arange(1, len(classes) + 1)
            painted = np.zeros((*truth.shape, 3), np.uint8)
            painted[..., 0] = table[codes.numpy()]
            Image.fromarray(painted).save(Path(place, entry["file_name"]))
            info = [{"id": i, "category_id": code // 1000} for i, code in enumerate(classes, 1)]
            guess = {**entry, "segments_info": info}
            folder_of_truth = str(data / "annotations" / "panoptic_val")
            with contextlib.redirect_stdout(None):
                total += scripts.pq_compute_single_core(0, [(entry, guess)], folder_of_truth, place, categories)
    score = metric.compute() if way == "loop, torchmetrics" else total.pq_average(categories, None)[0]["pq"]
    return first, time.time(), float(score)


# The stages of hf-lwmm, one after another


def stages(model: Path, data: Path, threads: int, frames: int = 8) -> dict[str, float]:
    """Return the median milliseconds of each stage of a frame, in one thread but for torch's."""
    import torch

    import hf_lwmm
    from hf_lwmm.data.loading import open_images
    from hf_lwmm.evaluation.class_map import best_classes
    from hf_lwmm.evaluation.inference import predict_logits
    from hf_lwmm.evaluation.pictures import Picture
    from hf_lwmm.metrics.semantic import confusion

    torch.set_num_threads(threads)
    loaded, images = hf_lwmm.load(model), open_images(hf_lwmm.ImageSource(str(data), split="val"))
    times: dict[str, list[float]] = {name: [] for name in ("read", "prepare", "network", "class map", "count")}
    for index in [0, *range(min(frames, images.count))]:
        marks = [time.perf_counter()]
        sample = images.read(index)
        image = sample.image
        marks.append(time.perf_counter())
        picture = Picture.of(image, [loaded])
        marks.append(time.perf_counter())
        logits = predict_logits(loaded, [picture])
        marks.append(time.perf_counter())
        guess = best_classes(logits, SIZE)
        marks.append(time.perf_counter())
        confusion(np.asarray(sample.label), guess, CLASSES)
        marks.append(time.perf_counter())
        for name, seconds in zip(times, np.diff(marks), strict=True):
            times[name].append(1000 * float(seconds))
    return {name: statistics.median(each[1:]) for name, each in times.items()}


# All ways in turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, help="in place of each row's own number")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--row", action="append", choices=ROWS, help="all if left out")
    parser.add_argument("--way", action="append", choices=sorted({*MIOU, *PQ}))
    parser.add_argument("--place", help="a folder that keeps networks and frames for other runs")
    parser.add_argument("--through", type=shlex.split, default=[], help="a command that runs each process")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        way, model, data = options.alone
        if way == "stages":
            os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command does
            print(json.dumps(stages(Path(model), Path(data), options.threads)))
        else:
            run_way(way, Path(model), Path(data), options.threads)
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = options.place or temporary
        for row in options.row or ROWS:
            count, ways = ROWS[row]
            network, kind = row.split("/")
            count = options.frames or count
            model, data = Path(place, network), Path(place, f"{count}-{kind}-{network.endswith('-pq')}")
            if not data.exists():
                save_frames(data, kind, count, network.endswith("-pq"))
            if not model.exists():
                save_network(network, model, data)
            report(row, count, [way for way in ways if way in (options.way or ways)], model, data, options)


def report(row: str, count: int, ways: list[str], model: Path, data: Path, options: argparse.Namespace) -> None:
    """Run all ways of a row in turns and print a table."""

    def alone(way: str) -> dict[str, float]:
        command = [sys.executable, __file__, "--threads", options.threads, "--alone", way, model, data]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            [*options.through, *map(str, command)], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1][:90])
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    failed: dict[str, str] = {}
    for _ in range(options.runs):
        for way in random.sample(ways, len(ways)):
            try:
                if way not in failed:
                    runs[way].append(alone(way))
            except RuntimeError as error:
                failed[way] = str(error)
    score = "PQ" if row.startswith("nothing-pq") else "mIoU"
    print(f"\n**{row}**, {count} frames, {options.threads} threads, medians of {options.runs}\n")
    print(f"| way | start, s | frames/s | {score} |\n| --- | --- | --- | --- |")
    for way in ways:
        if way in failed:
            print(f"| {way} | {failed[way]} | | |")
            continue
        start, seconds = (statistics.median(run[key] for run in runs[way]) for key in ("start", "seconds"))
        print(f"| {way} | {start:.2f} | {count / seconds:.2f} | {runs[way][0]['score']:.12f} |")
    if score == "mIoU":
        shares = alone("stages")
        parts = ", ".join(f"{name} {value:.1f} ({value / sum(shares.values()):.1%})" for name, value in shares.items())
        print(f"\nms a frame, one stage after another: {parts}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
