"""Train the quick start's two SegFormers: one pre-training on rendered streets, fine-tuned once for each style.

    python -m scripts.quickstart.train            # about a quarter of an hour on one core; goes on where it stopped

The results (float16) replace `scripts/quickstart/models/`; scores are on frames that training never saw.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from scripts.uda.streets import render

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
MODELS = Path(__file__).parent / "models"
SIZE = (160, 120)  # width, height of the training frames
BATCH = 8
STAGES = {  # name: styles, steps, learning rate, what it starts from
    "pretraining": (("gta", "synthia"), 3000, 1e-3, None),
    "streets-day": (("gta",), 1500, 5e-4, "pretraining"),
    "streets-synthia": (("synthia",), 1500, 5e-4, "pretraining"),
}
STYLE_OF = {"streets-day": "gta", "streets-synthia": "synthia"}
FRAMES = 600  # rendered for training, of each style
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
log = logging.getLogger("train")


def build() -> SegformerForSemanticSegmentation:
    """An untrained SegFormer of 371,000 weights."""
    torch.manual_seed(0)
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            depths=[1, 1, 1, 1],
            hidden_sizes=[16, 32, 64, 128],
            num_attention_heads=[1, 2, 4, 8],
            mlp_ratios=[2, 2, 2, 2],
            decoder_hidden_size=64,
            classifier_dropout_prob=0.0,
            id2label=dict(enumerate(CLASSES)),
            label2id={name: i for i, name in enumerate(CLASSES)},
        )
    )


def frames(style: str, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images (count, 3, H, W) float32 and labels (count, H, W) int64, 255 where unlabelled."""
    scenes = [render(style, first + i, SIZE) for i in range(count)]
    images = np.stack([(scene.image / np.float32(255) - MEAN) / STD for scene in scenes]).astype(np.float32)
    labels = np.stack([scene.labels for scene in scenes]).astype(np.int64)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def train(stage: str, work: Path) -> SegformerForSemanticSegmentation:
    """Train one stage, or load it if an earlier run finished it; half-done stages go on from their last save."""
    styles, steps, rate, origin = STAGES[stage]
    model, save = build(), work / f"{stage}.pt"
    if origin:
        model.load_state_dict(torch.load(work / f"{origin}.pt", weights_only=True)["model"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    step = 0
    if save.exists():
        state = torch.load(save, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    if step < steps:
        sets = [frames(style, 0, FRAMES) for style in styles]
        images, labels = (torch.cat(parts) for parts in zip(*sets, strict=True))
    model.train()
    started = time.time()
    while step < steps:
        draw = np.random.default_rng([step, len(stage)])
        index = torch.from_numpy(draw.choice(len(images), BATCH, replace=False))
        batch, target = images[index], labels[index]
        if draw.random() < 0.5:
            batch, target = batch.flip(-1), target.flip(-1)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - step / steps) ** 0.9
        logits = model(batch).logits
        small = functional.interpolate(target[:, None].float(), logits.shape[-2:], mode="nearest")[:, 0].long()
        loss = functional.cross_entropy(logits, small, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 100 == 0:
            log.info("%s %d/%d loss %.3f, %.0f s", stage, step, steps, loss.item(), time.time() - started)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, save)
    return model.eval()


@torch.inference_mode()
def mean_iou(model: SegformerForSemanticSegmentation, style: str, count: int = 60, first: int = 100_000) -> float:
    """mIoU over held-out frames of a style, classes that do not occur left out."""
    images, labels = frames(style, first, count)
    confusion = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    for image, label in zip(images.split(10), labels.split(10), strict=True):
        logits = functional.interpolate(model(image).logits, label.shape[-2:], mode="bilinear")
        valid = label != 255
        pairs = label[valid] * len(CLASSES) + logits.argmax(1)[valid]
        confusion += torch.bincount(pairs, minlength=len(CLASSES) ** 2).view_as(confusion)
    hits = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return float((hits / union)[union > 0].mean())


def ship(name: str, model: SegformerForSemanticSegmentation, scores: dict[str, float]) -> None:
    """Write a trained model as a Hub repository's folder."""
    folder = MODELS / name
    model.half().save_pretrained(folder)
    SegformerImageProcessor(size={"width": SIZE[0], "height": SIZE[1]}).save_pretrained(folder)
    rows = "\n".join(f"| {style} | {100 * score:.1f} |" for style, score in scores.items())
    (folder / "README.md").write_text(
        f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: image-segmentation
tags: [semantic-segmentation, segformer, synthetic]
---

# {name}

A SegFormer of 371,000 weights for trying out hf-lwmm: pre-trained on rendered street scenes of two styles
("gta", "synthia"), then fine-tuned on "{STYLE_OF[name]}". Not for any other use. mIoU in percent over 11 classes, on
60 held-out frames of {SIZE[0]}x{SIZE[1]} of each style; "night" was never trained on:

| style | mIoU |
| --- | --- |
{rows}
"""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path(".quickstart/training"), help="keeps unfinished runs")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        model = train(stage, options.work)
        if stage in STYLE_OF:
            scores = {style: mean_iou(model, style) for style in ("gta", "synthia", "night")}
            log.info("%s mIoU %s", stage, json.dumps(scores))
            ship(stage, model, scores)


if __name__ == "__main__":
    main()
