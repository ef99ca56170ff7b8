"""Layouts of vision transformers: names of several code bases, families, and the depth order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import calls
import pytest
import timm
import torch
import transformers
from manifests import known, on_meta, slot_map, stored, write
from torch import nn
from vits import MLP, PAIRS, SIZE, VIT, beit, dinov2, dinov3, of_timm

import hf_lwmm
from hf_lwmm.layouts import LAYOUTS, depth_order, in_backbone, map_slots, place_of
from hf_lwmm.layouts.forms import Form, special_tokens


@torch.no_grad()
@pytest.mark.parametrize("library", [0, 1])
@pytest.mark.parametrize("kin", PAIRS)
def test_depth_order_is_the_order_of_a_forward_pass(kin: str, library: int) -> None:
    network, forward = PAIRS[kin][library]().eval(), PAIRS[kin][4]
    called: dict[str, int] = {}

    def note(name: str) -> None:
        called.setdefault(name, len(called))

    for name, module in network.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: note(name))
    forward(network, torch.zeros(2, 3, 32, 32))
    slots = map_slots({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    places: dict[str, int] = {}
    for place, slot in enumerate(depth_order(slots.slots)):
        module = slots.slots[slot].tensor.rpartition(".")[0]
        if module in called and isinstance(network.get_submodule(module), nn.Linear | nn.LayerNorm | nn.Conv2d):
            places[module] = place
    ranks = [called[module] for module in sorted(places, key=places.__getitem__)]
    assert ranks == sorted(ranks) and len(ranks) > 10


SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
BEIT_INDICES = {f"beit.stage0.block{block}.attn.relative_index" for block in range(12)}
DINOV3_ONLY = {"dinov3.embed.mask", "dinov3.embed.periods"} | {
    f"dinov3.stage0.block{block}.attn.{name}" for block in range(12) for name in ("k.masked_bias", "bias_mask")
}
TOWERS = {"vision_config": {**SIZE, **MLP}, "text_config": {**SIZE, **MLP, "vocab_size": 50}}


@pytest.mark.parametrize(
    ("make", "layout", "unknown"),
    [
        (lambda: dinov2(), "vit/transformers-dinov2-runtime", 0),
        (lambda: dinov2(registers=2), "vit/transformers-dinov2-registers-runtime", 0),
        (lambda: dinov2(use_swiglu_ffn=True), "vit/transformers-dinov2-giant-runtime", 0),
        (lambda: dinov3(), "dinov3/transformers-runtime", 0),
        (lambda: beit(), "beit/transformers-runtime", 0),
        (
            lambda: transformers.Data2VecVisionForImageClassification(
                transformers.Data2VecVisionConfig(**VIT, use_relative_position_bias=True)
            ),
            "beit/transformers-data2vec + imagenet/beit-transformers", 0,
        ),
        (
            lambda: transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**SIZE)),
            "vit/transformers-dinov2-runtime + imagenet/vit-transformers", 0,
        ),
        (lambda: transformers.CLIPModel(transformers.CLIPConfig(**TOWERS)), "vit/transformers-clip", 39),
        (lambda: transformers.SiglipModel(transformers.SiglipConfig(**TOWERS)), "vit/transformers-siglip", 40),
        (
            lambda: transformers.ViTMAEForPreTraining(
                transformers.ViTMAEConfig(**VIT, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
            ),
            "vit/transformers-runtime", 24,
        ),
        (lambda: of_timm(init_values=1.0, no_embed_class=True), "vit/timm", 0),
        (lambda: of_timm(class_token=False, reg_tokens=2, global_pool="avg"), "vit/timm-no-class", 0),
        (lambda: of_timm(global_pool="avg", fc_norm=True), "vit/timm", 0),
    ],
)  # fmt: skip
def test_names_in_memory_and_of_whole_models_are_known(make: Any, layout: str, unknown: int) -> None:
    slots = map_slots(on_meta(make))
    assert slots.layout == layout
    assert sum(place_of(slot) is None for slot in slots.slots) == unknown


@pytest.mark.parametrize(
    ("original", "make", "unlike"),
    [
        ("open_clip_vit_b32", lambda: timm.create_model("vit_base_patch32_clip_224"), set()),
        (
            "open_clip_vit_b32",
            lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(patch_size=32)),
            set(),
        ),
        ("dinov2_vits14", lambda: timm.create_model("vit_small_patch14_dinov2"), {"vit.embed.mask"}),
        (
            "dinov2_vits14",
            lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, image_size=518, patch_size=14)),
            set(),
        ),
        (
            "dinov2_vits14_reg4",
            lambda: timm.create_model("vit_small_patch14_reg4_dinov2"),
            {"vit.embed.mask", "vit.embed.token_position"},
        ),
        (
            "dinov2_vits14_reg4",
            lambda: transformers.Dinov2WithRegistersModel(
                transformers.Dinov2WithRegistersConfig(**SMALL, image_size=518, patch_size=14)
            ),
            set(),
        ),
        ("dinov3_vits16", lambda: timm.create_model("vit_small_patch16_dinov3_qkvb"), DINOV3_ONLY),
        (
            "dinov3_vits16",
            lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**SMALL, num_register_tokens=4)),
            DINOV3_ONLY - {"dinov3.embed.mask"},
        ),
        ("beit_base_finetuned", lambda: timm.create_model("beit_base_patch16_224"), BEIT_INDICES),
        (
            "beit_base_finetuned",
            lambda: transformers.BeitModel(transformers.BeitConfig(use_relative_position_bias=True)),
            BEIT_INDICES,
        ),
    ],
)
def test_originals_share_all_slots_with_what_was_made_of_them(original: str, make: Any, unlike: set[str]) -> None:
    theirs = {slot: shape for slot, shape in slot_map(original).shapes.items() if in_backbone(slot)}
    ours = {slot: shape for slot, shape in map_slots(on_meta(make)).shapes.items() if in_backbone(slot)}
    assert {slot for slot in theirs | ours if theirs.get(slot) != ours.get(slot)} == unlike


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("vit_small_patch16_224", "ViT-S, image classifier"),
        ("deit3_small_patch16_224", "DeiT-3 ViT-S, image classifier"),
        ("vit_small_patch14_dinov2", "DINOv2 ViT-S"),
        ("vit_small_patch14_reg4_dinov2", "DINOv2 ViT-S"),
        ("vit_base_patch32_clip_224", "CLIP ViT-B, image classifier"),
        ("vit_base_patch16_siglip_224", "SigLIP ViT-B"),
        ("vit_small_patch16_dinov3", "DINOv3-S"),
        ("vit_small_patch16_dinov3_qkvb", "DINOv3-S"),
        ("vit_small_plus_patch16_dinov3", "DINOv3-S"),
        ("beit_base_patch16_224", "BEiT-B, image classifier"),
        ("beitv2_base_patch16_224", "BEiT-B, image classifier"),
        ("deit_tiny_distilled_patch16_224", "ViT-Ti, image classifier"),
    ],
)
def test_a_network_of_timm_is_named_by_its_family(name: str, title: str) -> None:
    assert map_slots(on_meta(lambda: timm.create_model(name))).architecture == title


@pytest.mark.parametrize(
    ("tokens", "special"),
    [(196, 0), (197, 1), (198, 2), (1370, 1), (1369, 0), (129, 0), (1, 0), (2, 1)],
)
def test_special_tokens_stand_before_a_square_grid(tokens: int, special: int) -> None:
    assert special_tokens(tokens) == special
    parts = Form(tokens=True).cut((1, tokens, 8), 2)
    assert parts == ((1, special, 8) if special else None, (1, tokens - special, 8))
    assert Form(tokens=True).stack([part for part in parts if part]) == (1, tokens, 8)


def test_leading_dimensions_are_added_and_taken_away() -> None:
    form = Form(ones=-1, tokens=True)
    assert form.cut((50, 8), 2) == ((1, 1, 8), (1, 49, 8))
    assert form.stack([(1, 1, 8), (1, 49, 8)]) == (50, 8)


def test_every_vit_holds_the_same_slots() -> None:
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    runtime = on_meta(lambda: ViTForImageClassification(ViTConfig(num_labels=1000)))
    expected = known(map_slots(runtime))
    assert len(expected) == 5 + 12 * 16 + 4 and map_slots(runtime).architecture == "ViT-B, image classifier"
    slots = map_slots(on_meta(lambda: timm.create_model("vit_base_patch16_224")))
    assert slots.layout == "vit/timm + imagenet/vit-timm" and known(slots) == expected

    # Names as in files on the Hub, which transformers renames to those in memory.
    layout = next(layout for layout in LAYOUTS if layout.name == "vit/transformers")
    hub = {slot: layout.stored(slot) for slot in expected if slot.startswith("vit.")}
    names = {slot: "vit." + found[0] for slot, found in hub.items() if found}
    assert len(names) == len(hub)
    in_memory = {slot: atom.tensor for slot, atom in map_slots(runtime).slots.items()}
    renames = get_checkpoint_conversion_mapping("ViTModel")
    for slot, name in names.items():
        renamed = name
        for rename in renames:
            renamed = rename.rename_source_key(renamed)[0]
        assert renamed == in_memory[slot]
    assert map_slots({name: expected[slot] for slot, name in names.items()}).layout == "vit/transformers"


def test_conmix_shares_its_transformer_with_timms_hybrid() -> None:
    hybrid = known(map_slots(on_meta(lambda: timm.create_model("vit_base_r50_s16_224"))))
    conmix = known(slot_map("conmix_vit"))
    lacking = {slot for slot in conmix if slot.startswith("vit.") and hybrid.get(slot) != conmix[slot]}
    assert lacking == {"vit.projection.weight", "vit.projection.bias"}


def test_what_follows_from_the_size_is_neither_merged_nor_converted(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{i}.safetensors", stored("beit_base_finetuned", i, shrink=16)) for i in (0, 1)]
    reasons = {entry.slot: entry.reason for entry in calls.plan(files).alignment.unshared}
    assert len(reasons) == 12 and all("relative_index" in slot for slot in reasons)
    conversion = hf_lwmm.convert(files[0], tmp_path / "transformers.safetensors", to="transformers")
    assert any("Left out 12 tensors that are computed when the network is built" in note for note in conversion.notes)
    assert map_slots({t.name: t.info.shape for t in conversion.tensors}).layout.startswith("beit/transformers")
