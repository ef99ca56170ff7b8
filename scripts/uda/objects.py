"""Train the classifiers of Table 9 on crops of rendered objects, and adapt them from one style to another.

    python -m scripts.uda.objects --out DIR          # minutes on one core; resumes where it stopped

A classifier is trained on labelled crops of the source. Its adaptation then uses only unlabelled crops of the target,
as in GLC and CoNMix. The network is saved after every quarter of the steps.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from hf_lwmm.demo.streets import CLASSES, THINGS
from hf_lwmm.networks.bottleneck import BottleneckConfig, BottleneckForImageClassification
from scripts.uda.data import Frames, jitter, rendered
from scripts.uda.losses import forward
from scripts.uda.train import QUARTERS, save_model

OBJECTS = ("tree", "sign", "fence", "car", "pedestrian", "bicyclist")
SOURCE, TARGET = "gta", "night"
STRATEGIES = ("information", "consistency")
SIDE, BATCH = 48, 32
SMALLEST = 10  # pixels; length of an object's longer side
log = logging.getLogger("objects")


def object_crops(frames: Frames, most: int) -> Frames:
    """Cut square crops of objects from frames, at most `most` of each class; labels are indices of OBJECTS."""
    assert frames.labels is not None and frames.instances is not None
    images: list[list[np.ndarray]] = [[] for _ in OBJECTS]
    for image, labels, instances in zip(frames.images, frames.labels, frames.instances, strict=True):
        for index, name in enumerate(OBJECTS):
            if len(images[index]) < most:
                images[index] += [_square(image, box) for box in _boxes(labels, instances, CLASSES.index(name))]
    kept = [crops[:most] for crops in images]
    labels = np.concatenate([np.full(len(crops), index, np.uint8) for index, crops in enumerate(kept)])
    return Frames(np.stack([crop for crops in kept for crop in crops]), labels)


def _boxes(labels: np.ndarray, instances: np.ndarray, category: int) -> list[tuple[slice, slice]]:
    """Return boxes around the objects of a class: its instances, or its connected parts if it has none."""
    shown = labels == category
    numbered = np.where(shown, instances, 0).astype(np.int32) if category in THINGS else ndimage.label(shown)[0]
    boxes = [box for box in ndimage.find_objects(numbered) if box is not None]
    return [box for box in boxes if max(box[0].stop - box[0].start, box[1].stop - box[1].start) >= SMALLEST]


def _square(image: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """Cut a square around an object, with a margin and inside the image: (SIDE, SIDE, 3) uint8."""
    height, width = image.shape[:2]
    side = min(1.2 * max(box[0].stop - box[0].start, box[1].stop - box[1].start), height, width)
    top = np.clip((box[0].start + box[0].stop - side) / 2, 0, height - side)
    left = np.clip((box[1].start + box[1].stop - side) / 2, 0, width - side)
    edges = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR, edges))


def build() -> BottleneckForImageClassification:
    """Build a small, untrained network of GLC's architecture."""
    names = dict(enumerate(OBJECTS))
    config = BottleneckConfig(
        depths=(1, 1, 1, 1), width=16, block="basic", bottleneck_size=64,
        id2label=names, label2id={name: i for i, name in names.items()},
    )  # fmt: skip
    return BottleneckForImageClassification(config)


def information_loss(logits: Tensor) -> Tensor:
    """Return minus the mutual information of crop and class, for logits (N, C) (Liang et al., ICML 2020, Eq. 3)."""
    shares = logits.softmax(1)
    mean = shares.mean(0)
    return -(shares * logits.log_softmax(1)).sum(1).mean() + (mean * mean.clamp(min=1e-8).log()).sum()


def consistency_loss(plain: Tensor, changed: Tensor) -> Tensor:
    """Return the cross-entropy of changed crops with pseudo-labels of plain ones, plus `information_loss` (CoNMix)."""
    return functional.cross_entropy(changed, plain.detach().argmax(1)) + information_loss(plain)


def train(
    model: BottleneckForImageClassification, crops: Frames, steps: int, seed: int, strategy: str, folder: Path
) -> None:
    """Train on labelled crops (strategy "source") or adapt to unlabelled ones; save the network after every quarter."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    rate = 2e-3 if strategy == "source" else 5e-4
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    started = time.time()
    for step in range(steps):
        drawn = rng.integers(len(crops), size=BATCH)
        images = torch.from_numpy(np.ascontiguousarray(crops.images[drawn])).permute(0, 3, 1, 2).float() / 255
        images = images.flip(-1) if rng.random() < 0.5 else images
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - step / steps) ** 0.9
        model.train()
        if strategy == "source":
            assert crops.labels is not None
            logits = forward(model, jitter(images, 0.2)).logits
            loss = functional.cross_entropy(logits, torch.from_numpy(crops.labels[drawn].astype(np.int64)))
        else:
            plain = forward(model, images).logits
            loss = information_loss(plain)
            if strategy == "consistency":
                loss = consistency_loss(plain, forward(model, jitter(images, 0.4)).logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        quarter = (step + 1) * QUARTERS // steps
        if quarter > step * QUARTERS // steps:
            save_model(model, folder / f"quarter-{quarter}")
    log.info("%s: %d steps, %.3f s each", folder.name, steps, (time.time() - started) / max(steps, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/hf-lwmm/uda").expanduser())
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    source, target = (object_crops(rendered(options.cache, style, 0, 400), 400) for style in (SOURCE, TARGET))
    unlabelled = Frames(target.images)
    for seed in range(1, options.seeds + 1):
        base = options.out / f"objects-source@{seed}"
        if not (base / f"quarter-{QUARTERS}").exists():
            torch.manual_seed(seed)
            train(build(), source, 1200, seed, "source", base)
        for strategy in STRATEGIES:
            folder = options.out / f"objects-{strategy}@{seed}"
            if not (folder / f"quarter-{QUARTERS}").exists():
                model = BottleneckForImageClassification.from_pretrained(base / f"quarter-{QUARTERS}")
                train(model, unlabelled, 400, seed, strategy, folder)


if __name__ == "__main__":
    main()
