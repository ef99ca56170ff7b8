"""Vision transformers of several code bases merge as if they had the same names, or it is said why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from manifests import on_meta, to_slots
from safetensors.numpy import load_file
from torch import nn
from vits import (
    GATED,
    VIT,
    beit,
    beit_of_timm,
    clip,
    converted,
    data2vec,
    dinov2,
    dinov3,
    dinov3_of_timm,
    drawn,
    layout_of,
    merged,
    of_timm,
    plain,
    siglip,
    stored,
)

import hf_lwmm
from hf_lwmm.errors import AlignmentError
from hf_lwmm.layouts import map_slots

pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.mark.parametrize(
    ("anchor", "other"),
    [
        (lambda: of_timm(init_values=1.0, mlp_ratio=4), dinov2),
        (dinov2, lambda: of_timm(init_values=1.0, mlp_ratio=4)),
        (lambda: of_timm(init_values=1.0, **GATED), lambda: dinov2(use_swiglu_ffn=True)),
        (clip, lambda: of_timm(pre_norm=True, norm_layer=nn.LayerNorm)),
        (siglip, lambda: of_timm(class_token=False, global_pool="map")),
        (dinov3_of_timm, dinov3),
        (beit, beit_of_timm),
        (data2vec, beit_of_timm),
        (beit, data2vec),
    ],
)
def test_code_bases_merge_as_if_they_had_the_same_names(anchor: Any, other: Any, tmp_path: Path) -> None:
    first, second = drawn(anchor()), drawn(other(), 1)
    arrays, result = merged(tmp_path, first, second)
    mine, theirs = (to_slots(load_file(stored(network, tmp_path / "again"))) for network in (first, second))
    mean = to_slots(arrays)
    kept = {entry.slot for entry in result.plan.alignment.unshared if entry.model == 0}
    assert kept <= {"vit.embed.mask"} and mean.keys() == mine.keys()
    for slot in mine.keys() - kept:
        assert np.allclose(mean[slot], (mine[slot] + theirs[slot]) / 2, atol=1e-6), slot


def masked_beit() -> nn.Module:
    config = transformers.BeitConfig(
        **VIT, use_relative_position_bias=True, layer_scale_init_value=0.1, use_mask_token=True, vocab_size=16
    )
    return transformers.BeitForMaskedImageModeling(config)


def test_the_norm_of_a_beit_that_reconstructs_masked_images_is_microsofts(tmp_path: Path) -> None:
    theirs = drawn(beit_of_timm(global_pool="token"), 1)
    first = drawn(masked_beit())
    assert map_slots(on_meta(masked_beit)).layout == "beit/transformers-masked-runtime"
    assert layout_of(stored(first, tmp_path / "file")) == "beit/transformers-masked"
    arrays, _ = merged(tmp_path, first, theirs)
    mean = (first.state_dict()["layernorm.weight"] + theirs.state_dict()["norm.weight"]) / 2
    assert np.allclose(arrays["layernorm.weight"], mean.numpy(), atol=1e-6)
    back = converted(tmp_path / "model1" / "model.safetensors", "transformers-masked")
    assert (back["layernorm.weight"] == theirs.state_dict()["norm.weight"].numpy()).all()
    assert all(name.startswith(("beit.", "layernorm.")) for name in back)


def test_a_class_token_that_holds_its_position_is_not_averaged_with_one_that_does_not(tmp_path: Path) -> None:
    timms = drawn(of_timm(init_values=1.0, mlp_ratio=4, reg_tokens=3, no_embed_class=True))
    arrays, result = merged(tmp_path, timms, drawn(dinov2(registers=3), 1))
    reasons = {entry.slot: entry.reason for entry in result.plan.alignment.unshared if entry.model == 0}
    assert (
        reasons.keys() == {"vit.embed.class"} and "it includes vit.embed.token_position" in reasons["vit.embed.class"]
    )
    assert (arrays["cls_token"] == timms.state_dict()["cls_token"].numpy()).all()


@pytest.mark.parametrize(
    ("first", "second", "note", "kept"),
    [
        (0, 3, "has 3 registers, .* has none: they are left out", set()),
        (3, 0, "has no registers, .* has 3: the anchor's are kept", {"vit.embed.registers"}),
        (2, 3, "has 3 registers, .* has 2: the anchor's are kept", {"vit.embed.registers"}),
    ],
)
def test_registers_of_one_dinov2_alone_are_noted(
    first: int, second: int, note: str, kept: set[str], tmp_path: Path
) -> None:
    _, result = merged(tmp_path, drawn(dinov2(first)), drawn(dinov2(second), 1))
    assert {entry.slot for entry in result.plan.alignment.unshared if entry.model == 0} == kept
    assert any(re.search(note, each) for each in result.warnings)


def test_biases_of_queries_and_values_that_one_side_lacks_stay_the_anchors(tmp_path: Path) -> None:
    anchor = plain(0)
    arrays, result = merged(tmp_path, anchor, plain(1, qkv_bias=False))
    biases = {f"vit.stage0.block{block}.attn.{part}.bias" for block in (0, 1) for part in "qkv"}
    assert {entry.slot for entry in result.plan.alignment.unshared} == biases
    assert (arrays["blocks.0.attn.qkv.bias"] == anchor.state_dict()["blocks.0.attn.qkv.bias"].numpy()).all()
    assert (arrays["blocks.0.attn.qkv.weight"] != anchor.state_dict()["blocks.0.attn.qkv.weight"].numpy()).any()


@pytest.mark.parametrize("options", [{"depth": 3}, {"embed_dim": 48}])
def test_two_sizes_of_a_family_are_refused(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match="merging needs the same architecture"):
        merged(tmp_path, plain(0), plain(1, **options))


def test_two_families_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match=r"BEiT with 2 blocks \(beit/timm\)"):
        merged(tmp_path, plain(0), drawn(beit_of_timm(), 1))


def test_towers_of_two_families_merge_with_a_warning_that_names_both(tmp_path: Path) -> None:
    _, result = merged(tmp_path, drawn(clip()), drawn(dinov2(), 1))
    says = "a CLIP ViT, model1/model.safetensors a DINOv2 ViT: merge models fine-tuned from one."
    assert any("the merge may be useless" in each and says in each for each in result.warnings)
    _, result = merged(tmp_path, plain(0), plain(1))
    assert any("Merge models fine-tuned from one. --permute" in each for each in result.warnings)


def test_a_bias_of_keys_is_merged_where_the_network_uses_it(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = dinov3(key_bias=True)
        for layer in network.modules():
            if hasattr(layer, "k_proj"):
                nn.init.normal_(layer.k_proj.bias)
        paths.append(tmp_path / str(seed))
        network.save_pretrained(paths[-1])
    merged = hf_lwmm.merge(paths, knobs=hf_lwmm.Knobs(method="isotropic"), output=tmp_path / "out")
    assert merged.folder is not None
    one, two, both = (load_file(path / "model.safetensors") for path in (*paths, merged.folder))
    name = next(name for name in one if name.endswith("k_proj.bias"))
    np.testing.assert_allclose(both[name], (one[name] + two[name]) / 2, rtol=1e-6)
