"""Calibrate the verdict on a common pre-training: median cosines of pairs of models with a known history.

    python -m scripts.bench.pretraining --work DIR [--pair RELATION A B ...]

Trains two small networks (SegFormer, DeepLabV2) on rendered streets, a few minutes each on one core: from two random
starts, twice from one start, and fine-tuned, once for as long and at the same rate as the pre-training. `--pair` adds
other models. Networks that are in the folder already are not trained again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, SegformerConfig, SegformerForSemanticSegmentation

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hf_lwmm.demo.streets import CLASSES, render
from hf_lwmm.networks.deeplab import DeepLabV2Config, DeepLabV2ForSemanticSegmentation
from hf_lwmm.planning.permutation import Matching, axes_of, permuted_checkpoint
from hf_lwmm.planning.pretraining import same_pretraining
from scripts.uda.losses import forward

FRAMES, BATCH = 160, 8
SIZE = (160, 120)  # width, height
LABELS = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}


class Run(NamedTuple):
    """A training run.

    `start` is the seed of a random start or the name of an earlier run; `order` is the seed of the batches.
    """

    start: int | str
    styles: tuple[str, ...] = ()
    steps: int = 0
    rate: float = 0.0
    order: int = 0


BOTH = ("gta", "synthia")
RUNS = {
    "pre": Run(1, BOTH, 600, 1e-3, 1),
    "other pre": Run(2, BOTH, 600, 1e-3, 2),
    "same start": Run(1, BOTH, 600, 1e-3, 3),
    "gta": Run("pre", ("gta",), 200, 5e-4, 4),
    "synthia": Run("pre", ("synthia",), 200, 5e-4, 5),
    "hard gta": Run("pre", ("gta",), 600, 1e-3, 6),
    "other gta": Run("other pre", ("gta",), 200, 5e-4, 7),
    "start 3": Run(3),
    "start 4": Run(4),
}
PAIRS = {
    "one pre-training": [("pre", "gta"), ("gta", "synthia"), ("pre", "hard gta"), ("synthia", "hard gta")],
    "one random start": [("pre", "same start"), ("gta", "same start")],
    "two trainings": [("pre", "other pre"), ("gta", "other gta"), ("hard gta", "other gta")],
    "random draws": [("start 3", "start 4"), ("pre", "start 3")],
}


def segformer(seed: int) -> PreTrainedModel:
    """Build a SegFormer of 0.4 million weights, with LayerNorm throughout the backbone."""
    torch.manual_seed(seed)
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 128],
        num_attention_heads=[1, 2, 4, 8],
        mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=64,
        classifier_dropout_prob=0.0,
        **LABELS,
    )
    return SegformerForSemanticSegmentation(config)


def deeplab(seed: int) -> PreTrainedModel:
    """Build a DeepLabV2 of 0.7 million weights, with BatchNorm throughout the backbone."""
    torch.manual_seed(seed)
    config = DeepLabV2Config(depths=(2, 2, 2, 2), width=16, block="basic", **LABELS)
    return DeepLabV2ForSemanticSegmentation(config)


NETWORKS: dict[str, Callable[[int], PreTrainedModel]] = {"segformer": segformer, "deeplab": deeplab}


def frames(style: str) -> tuple[Tensor, Tensor]:
    """Render images (FRAMES, 3, H, W) float32 in [0, 1] and labels (FRAMES, H, W) int64, 255 for unlabelled pixels."""
    scenes = [render(style, seed, SIZE) for seed in range(FRAMES)]
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).contiguous()
    return images.float() / 255, torch.from_numpy(np.stack([scene.labels for scene in scenes])).long()


def train(network: str, name: str, work: Path) -> Path:
    """Train a run unless its folder exists, and return the folder of its final network."""
    run, folder = RUNS[name], work / f"{network} {name}"
    if folder.exists():
        return folder
    model = NETWORKS[network](run.start if isinstance(run.start, int) else 0)
    if isinstance(run.start, str):
        model = type(model).from_pretrained(train(network, run.start, work))
    sets = [frames(style) for style in run.styles]
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.rate, weight_decay=0.01)
    draw = np.random.default_rng(run.order)
    model.train()
    for step in range(run.steps):
        images, labels = sets[draw.integers(len(sets))]
        index = torch.from_numpy(draw.choice(FRAMES, BATCH, replace=False))
        for group in optimizer.param_groups:
            group["lr"] = run.rate * min(1, (step + 1) / 50) * (1 - step / run.steps) ** 0.9
        logits = forward(model, images[index]).logits
        target = functional.interpolate(labels[index][:, None].float(), logits.shape[-2:], mode="nearest")[:, 0].long()
        loss = functional.cross_entropy(logits, target, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"{network} {name}: step {step + 1}, loss {loss.item():.2f}", flush=True)
    model.save_pretrained(folder)
    return folder


def opened(model: str | Path) -> Checkpoint:
    """Open the checkpoint of a model."""
    return open_checkpoint(hub.resolve(hub.parse_ref(model)))


def permuted(checkpoint: Checkpoint) -> Checkpoint:
    """Return the same network with its units in a random order."""
    slots, draw = checkpoint.slot_map.slots, np.random.default_rng(0)
    sizes = {where.rows: slots[slot].shape[0] for slot, where in axes_of(checkpoint).items() if where.rows}
    return permuted_checkpoint(checkpoint, Matching({group: draw.permutation(size) for group, size in sizes.items()}))


def row(relation: str, name: str, first: Checkpoint, other: Checkpoint) -> str:
    """Return the row of a pair of models in the table."""
    verdict = same_pretraining(first, other)
    return f"| {relation} | {name} | {verdict.slots} | {verdict.cosine:.3f} | {verdict.answer} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, required=True, help="folder for the trained networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pair", nargs=3, action="append", default=[], metavar=("RELATION", "A", "B"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = []
    for network in NETWORKS:
        models = {name: opened(train(network, name, options.work)) for name in RUNS}
        for relation, pairs in PAIRS.items():
            lines += [row(relation, f"{network}: {a}, {b}", models[a], models[b]) for a, b in pairs]
        for a, b in (("gta", "gta"), ("synthia", "gta")):
            lines.append(row("units permuted", f"{network}: {a}, {b} permuted", models[a], permuted(models[b])))
    lines += [row(relation, f"{a}, {b}", opened(a), opened(b)) for relation, a, b in options.pair]
    print("| relation | pair | weights | median cosine | verdict |\n| --- | --- | --- | --- | --- |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
