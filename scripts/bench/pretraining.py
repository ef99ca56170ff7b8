"""What the verdict on a common pre-training is calibrated with: median cosines of pairs whose past is known.

    python -m scripts.bench.pretraining --work /tmp/pretraining [--pair RELATION A B ...]

Trains two small networks (SegFormer, DeepLabV2) on rendered streets, some minutes each on one core: from two random
starts, from one start twice, and fine-tuned, also for as long and as fast as the pre-training itself. `--pair` adds
models of one's own. What is in the folder is not trained again.
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
from hf_lwmm.hub.refs import parse_ref
from hf_lwmm.networks.deeplab import DeepLabV2Config, DeepLabV2ForSemanticSegmentation
from hf_lwmm.planning.discrepancy import same_pretraining
from hf_lwmm.planning.permutation import Matching, axes_of, permuted_checkpoint
from scripts.uda.losses import see
from scripts.uda.streets import CLASSES, render

FRAMES, BATCH = 160, 8
SIZE = (160, 120)  # width, height
LABELS = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}


class Run(NamedTuple):
    """A training: random start or earlier run, styles, steps, learning rate, and the order that frames come in."""

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
    """A SegFormer of 0.4 million weights, LayerNorm throughout the backbone."""
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
    """A DeepLabV2 of 0.7 million weights, BatchNorm throughout the backbone."""
    torch.manual_seed(seed)
    config = DeepLabV2Config(depths=(2, 2, 2, 2), width=16, block="basic", **LABELS)
    return DeepLabV2ForSemanticSegmentation(config)


NETWORKS: dict[str, Callable[[int], PreTrainedModel]] = {"segformer": segformer, "deeplab": deeplab}


def frames(style: str) -> tuple[Tensor, Tensor]:
    """Images (FRAMES, 3, H, W) in [0, 1] and labels (FRAMES, H, W) int64, 255 where unlabelled."""
    scenes = [render(style, seed, SIZE) for seed in range(FRAMES)]
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).contiguous()
    return images.float() / 255, torch.from_numpy(np.stack([scene.labels for scene in scenes])).long()


def train(network: str, name: str, work: Path) -> Path:
    """The folder of a run's last weights; trained unless it is there."""
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
        logits = see(model, images[index]).logits
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
    return open_checkpoint(hub.resolve(parse_ref(model)))


def permuted(checkpoint: Checkpoint) -> Checkpoint:
    """The same network with all its units in another order."""
    slots, draw = checkpoint.slot_map.slots, np.random.default_rng(0)
    sizes = {where.rows: slots[slot].shape[0] for slot, where in axes_of(checkpoint).items() if where.rows}
    return permuted_checkpoint(checkpoint, Matching({group: draw.permutation(size) for group, size in sizes.items()}))


def row(relation: str, name: str, first: Checkpoint, other: Checkpoint) -> str:
    verdict = same_pretraining(first, other)
    return f"| {relation} | {name} | {verdict.slots} | {verdict.cosine:.3f} | {verdict.answer} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, required=True, help="keeps the trained networks")
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
