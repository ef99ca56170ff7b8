"""The order in which networks that no layout knows use their tensors, guessed from names."""

from __future__ import annotations

import random

import pytest
import timm
import torch

from hf_lwmm.layouts import depth_order
from hf_lwmm.layouts.guessing import first_guessed_keys, guessed_order
from hf_lwmm.networks.tracing import first_uses

# Modules in the order in which networks run them; each has a weight.
CASES = {
    "stems, positions and norms around blocks": [
        "patch_embed.proj", "pos_embed", "blocks.0.norm1", "blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.norm2",
        "blocks.0.mlp.fc1", "blocks.0.mlp.fc2", "blocks.10.norm1", "norm", "head",
    ],
    "transformers' blocks": [
        "net.embeddings.patch_embeddings.projection", "net.encoder.layer.2.layernorm_before",
        "net.encoder.layer.2.attention.attention.query", "net.encoder.layer.2.attention.attention.key",
        "net.encoder.layer.2.attention.attention.value", "net.encoder.layer.2.attention.output.dense",
        "net.encoder.layer.2.layernorm_after", "net.encoder.layer.2.intermediate.dense",
        "net.encoder.layer.2.output.dense", "net.layernorm", "classifier",
    ],
    "convolutions before their norms": ["conv1", "bn1", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.conv2", "fc"],
    "heads": ["backbone.conv1", "decode_head.convs.0", "decode_head.conv_seg", "auxiliary_head.convs.0"],
    "stages that begin by halving": ["stages.0.blocks.0.mlp", "stages.1.downsample.norm", "stages.1.blocks.0.mlp"],
    "stages that end by halving": ["layers.0.blocks.0.mlp", "layers.0.downsample.norm", "layers.1.blocks.0.mlp"],
    "lists in turn": [
        "patch_embeddings.0.proj", "block.0.0.mlp", "layer_norm.0", "patch_embeddings.1.proj", "block.1.0.mlp",
        "layer_norm.1",
    ],
    "numbered stages": [
        "patch_embed1.proj", "block1.0.attn.q", "norm1", "patch_embed2.proj", "block2.0.attn.q", "norm2",
    ],
    "numbers inside names": [
        "Conv2d_1a_3x3.conv", "Conv2d_2b_3x3.conv", "Mixed_5b.conv", "Mixed_6a.conv", "Mixed_6d.conv", "fc",
    ],
    "decoders": ["model.backbone.conv1", "model.encoder.0", "model.decoder.0", "class_labels_classifier"],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_names_tell_what_runs_first(case: str) -> None:
    slots = [f"{module}.{leaf}" for module in CASES[case] for leaf in ("weight", "bias")]
    assert guessed_order(random.Random(0).sample(slots, len(slots))) == slots


def test_the_first_guess_stays_what_it_was() -> None:
    slots = ["head.weight", "norm.weight", "patch_embed.weight", "blocks.10.weight", "blocks.2.weight"]
    before = ["blocks.2.weight", "blocks.10.weight", "norm.weight", "patch_embed.weight", "head.weight"]
    assert depth_order(slots, first_guess=True) == before
    keys = first_guessed_keys(slots)
    assert sorted(slots, key=lambda slot: keys[slot]) == before
    assert depth_order(slots)[0] == "patch_embed.weight"


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "mobilenetv3_small_050", "regnetx_002"])
def test_small_networks_run_in_the_order_that_is_guessed(name: str) -> None:
    model = timm.create_model(name).eval()
    uses = first_uses(model, torch.rand(1, 3, *model.pretrained_cfg["input_size"][1:]))
    state = {slot: uses[id(tensor)] for slot, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in uses}
    rank = {slot: place for place, slot in enumerate(guessed_order(state))}
    traced = sorted(state, key=lambda slot: (state[slot], rank[slot]))
    off = [abs(rank[slot] - place) for place, slot in enumerate(traced)]
    assert max(off) < len(state) / 10


@pytest.mark.parametrize("slots", [["a"], ["0"], ["a..b", ".", "x.0.0"], ["1x1.weight", "_.weight", "3d", "é.1"]])
def test_odd_names_have_some_order(slots: list[str]) -> None:
    assert sorted(guessed_order(slots)) == sorted(slots)


def test_numbers_of_any_length_are_put_in_order() -> None:
    long = "9" * 5000
    old = [f"layer{long}.weight", "a.1\u00b22.weight"]  # with a 2 above the line, which is a digit and no decimal
    assert first_guessed_keys(old).keys() == {*old}
    assert (
        depth_order(["head.weight", f"layer{long}.weight", f"blocks.{long}.weight", "blocks.1.weight"])[-1]
        == "head.weight"
    )
