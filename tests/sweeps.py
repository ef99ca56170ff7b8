"""Models and data for sweeps."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import NAMES, tree
from transformers import SegformerConfig, SegformerForSemanticSegmentation


def model(folder: Path, seed: int) -> Path:
    """A network of the same beginnings as the others, with a classifier that sees more than one class."""
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2], sr_ratios=[4, 2],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=8, layer_norm_eps=1e-6,
        id2label=dict(enumerate(NAMES)),
    )  # fmt: skip
    network = SegformerForSemanticSegmentation(config)
    torch.manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    network.decode_head.classifier.bias.data.zero_()
    network.save_pretrained(folder)
    return folder


def write_world(folder: Path) -> Path:
    """Write three models, their base, and data."""
    for seed, name in enumerate(("base", "one", "two", "three")):
        model(folder / name, seed)
    tree(folder / "data", 4)
    return folder


def paths(world: Path, *names: str) -> list[Path]:
    return [world / name for name in names or ("one", "two", "three")]
