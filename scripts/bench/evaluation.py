"""Time evaluations from decoding to the score as whole processes, against loops as people write them.

    pip install torchmetrics evaluate cityscapesscripts segmentation-models-pytorch
    python scripts/bench/evaluation.py [--runs 5] [--frames 24] [--threads 2] [--row NETWORK/KIND ...]

Frames of 1024x2048 pixels with 19 classes go through networks with random weights, in float32. Ways take turns, in
another order each time. A run's start is the time until its first frame, imports included. The loops decode with
Pillow, prepare with the repository's own image processor, enlarge the logits with `interpolate`, and take `argmax`;
they differ in who counts. Ways that cannot be used are listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE, CLASSES = (1024, 2048), 19
NAMES = {index: f"class {index}" for index in range(CLASSES)}
WAYS = ("hf-lwmm", "loop, own counts", "loop, torchmetrics", "loop, evaluate", "pipeline", "smp's metric")
TINY: dict[str, Any] = {
    "depths": [1] * 4,
    "hidden_sizes": [4, 8, 8, 16],
    "num_attention_heads": [1, 1, 1, 1],
    "mlp_ratios": [1] * 4,
    "decoder_hidden_size": 16,
}
NETWORKS = ("nothing", "segformer-b0", "deeplab-r101")


def save_network(name: str, folder: Path) -> None:
    """Save a network with random weights and its image processor."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    from hf_lwmm.networks import DeepLabV2Config, DeepLabV2ForSemanticSegmentation

    torch.manual_seed(0)
    if name == "deeplab-r101":
        model: Any = DeepLabV2ForSemanticSegmentation(DeepLabV2Config(id2label=NAMES))
    else:
        settings = TINY if name == "nothing" else {}
        model = SegformerForSemanticSegmentation(SegformerConfig(**settings, id2label=NAMES))
    with torch.no_grad():  # untrained, one class would win everywhere
        head = [weight for key, weight in model.named_parameters() if "classifier" in key or "layer6" in key]
        for weight in head:
            weight.normal_(0, 1)
    height, width = (256, 512) if name == "nothing" else (512, 1024)
    model.save_pretrained(folder)
    SegformerImageProcessor(size={"height": height, "width": width}).save_pretrained(folder)


def save_frames(folder: Path, kind: str, count: int) -> None:
    """Save pictures of wavy cells with texture, and their classes, as a tree of images and labels."""
    generator = np.random.default_rng(0)
    height, width = SIZE
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for place in ("images", "labels"):
        (folder / "val" / place).mkdir(parents=True)
    for index in range(count):
        wave = 6 * np.sin(x / 17 + index) + 4 * np.sin(y / 9 + x / 31)
        centres = generator.uniform(0, 1, (40, 2)) * SIZE
        small = [1.5 * np.abs(y - a + wave)[::2, ::2] + np.abs(x - b + wave)[::2, ::2] for a, b in centres]
        cells = np.argmin(small, axis=0).repeat(2, 0).repeat(2, 1)
        colours = generator.integers(30, 220, (40, 3))
        picture = colours[cells] + generator.normal(0, 6, (height, width, 1))
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        image.save(folder / "val" / "images" / f"{index:03}.{kind}", **({"quality": 92} if kind == "jpg" else {}))
        Image.fromarray((cells % CLASSES).astype(np.uint8)).save(folder / "val" / "labels" / f"{index:03}.png")


# One way in a process of its own


def run_way(way: str, model: Path, data: Path, threads: int) -> None:
    """Print the time of the first frame, of the last, and the mean IoU."""
    import torch

    torch.set_num_threads(threads)
    if way == "hf-lwmm":
        import hf_lwmm

        seen: list[float] = []
        found = hf_lwmm.evaluate(
            [model], hf_lwmm.ImageSource(str(data), split="val"), progress=lambda *_: seen.append(time.time())
        )
        assert found is not None
        first, last, score = seen[0], time.time(), found.models[0].mean
    else:
        first, last, score = _loop(way, model, data)
    print(json.dumps({"first": first, "last": last, "score": float(score)}))


def _loop(way: str, folder: Path, data: Path) -> tuple[float, float, float]:
    import torch
    import transformers
    from torch.nn.functional import interpolate

    import hf_lwmm.networks  # noqa: F401  (registers DeepLabV2)

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    add, result = _counter(way)
    first = time.time()
    if way == "pipeline":
        pipe = transformers.pipeline("image-segmentation", model=model, image_processor=processor)
        for image, truth in _frames(data):
            guess = np.full(truth.shape, 255, np.uint8)
            for part in pipe(image, subtask="semantic"):
                guess[np.asarray(part["mask"]) > 0] = model.config.label2id[part["label"]]
            add(torch.from_numpy(guess).long(), torch.from_numpy(truth).long())
        return first, time.time(), result()
    with torch.inference_mode():
        for image, truth in _frames(data):
            pixels = processor(image, return_tensors="pt")["pixel_values"]
            logits = model(pixels).logits
            guess = interpolate(logits, truth.shape, mode="bilinear", align_corners=False).argmax(1)[0]
            add(guess, torch.from_numpy(truth).long())
    return first, time.time(), result()


def _frames(data: Path) -> Iterator[tuple[Image.Image, np.ndarray]]:
    for path in sorted((data / "val" / "images").iterdir()):
        label = data / "val" / "labels" / f"{path.stem}.png"
        yield Image.open(path).convert("RGB"), np.asarray(Image.open(label))


def _counter(way: str) -> tuple[Callable[[Any, Any], None], Callable[[], float]]:
    """The function that counts a frame, and the one that gives the mean IoU."""
    import torch

    if way == "loop, torchmetrics":
        from torchmetrics.classification import MulticlassJaccardIndex

        metric = MulticlassJaccardIndex(CLASSES, ignore_index=255)
        return metric.update, lambda: float(metric.compute())
    if way == "loop, evaluate":
        import evaluate

        script = evaluate.load(os.environ.get("MEAN_IOU", "mean_iou"))
        add = lambda guess, truth: script.add(prediction=guess.numpy(), reference=truth.numpy())  # noqa: E731
        return add, lambda: script.compute(num_labels=CLASSES, ignore_index=255)["mean_iou"]
    if way == "smp's metric":
        import segmentation_models_pytorch as smp

        parts: list[Any] = []
        options: dict[str, Any] = {"mode": "multiclass", "num_classes": CLASSES, "ignore_index": 255}

        def keep(guess: Any, truth: Any) -> None:
            parts.append([each.sum(0) for each in smp.metrics.get_stats(guess[None], truth[None], **options)])

        def mean() -> float:
            hits, false, missed, _ = (torch.stack(column).sum(0).double() for column in zip(*parts, strict=True))
            return float((hits / (hits + false + missed)).nanmean())

        return keep, mean
    confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)

    def count(guess: Any, truth: Any) -> None:
        valid = truth != 255
        pairs = truth[valid] * CLASSES + guess[valid]
        confusion.add_(torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES))

    def score() -> float:
        hits = confusion.diagonal().double()
        return float((hits / (confusion.sum(0) + confusion.sum(1) - hits)).nanmean())

    return count, score


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
        marks.append(time.perf_counter())
        picture = Picture.of(sample.image, [loaded])
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--row", action="append", help="such as nothing/png; all if left out")
    parser.add_argument("--way", action="append", choices=WAYS)
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        way, model, data = options.alone
        run_way(way, Path(model), Path(data), options.threads)
        return
    rows = options.row or [f"{network}/{kind}" for network in NETWORKS for kind in ("png", "jpg")]
    with tempfile.TemporaryDirectory() as place:
        for row in rows:
            network, kind = row.split("/")
            model, data = Path(place, network), Path(place, kind)
            if not model.exists():
                save_network(network, model)
            if not data.exists():
                save_frames(data, kind, options.frames)
            report(row, model, data, options.way or list(WAYS), options)


def report(row: str, model: Path, data: Path, ways: list[str], options: argparse.Namespace) -> None:
    """Run all ways in turns and print a table."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    failed: dict[str, str] = {}
    for _ in range(options.runs):
        for way in random.sample(ways, len(ways)):
            if way in failed:
                continue
            command = [
                sys.executable,
                __file__,
                "--threads",
                str(options.threads),
                "--alone",
                way,
                str(model),
                str(data),
            ]
            began = time.time()
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
            if done.returncode:
                failed[way] = done.stderr.strip().splitlines()[-1][:90]
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            frames = options.frames / (result["last"] - result["first"])
            found[way].append({"start": result["first"] - began, "rate": frames, "score": result["score"]})
    print(f"\n**{row}**, {options.frames} frames, {options.threads} threads, medians of {options.runs}\n")
    print("| way | start, s | frames/s | mIoU |\n| --- | --- | --- | --- |")
    for way in ways:
        if way in failed:
            print(f"| {way} | {failed[way]} | | |")
            continue
        start, rate = (statistics.median(run[key] for run in found[way]) for key in ("start", "rate"))
        print(f"| {way} | {start:.2f} | {rate:.2f} | {found[way][0]['score']:.10f} |")
    shares = stages(model, data, options.threads)
    print("\nms a frame: " + ", ".join(f"{name} {value:.1f}" for name, value in shares.items()), flush=True)


if __name__ == "__main__":
    main()
