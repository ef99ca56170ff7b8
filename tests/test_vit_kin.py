"""Vision transformers of several code bases: the same slots, and the same answers after a conversion."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import calls
import numpy as np
import pytest
import timm
import torch
import transformers
from manifests import Arrays, slot_map, to_slots, write
from manifests import stored as stored_arrays
from safetensors.numpy import load_file
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import hf_lwmm
from hf_lwmm.errors import AlignmentError, PlanError
from hf_lwmm.layouts import depth_order, in_backbone, map_slots, place_of
from hf_lwmm.layouts.forms import Form, special_tokens
from hf_lwmm.recipes.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("without_plots")

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
MLP = {"intermediate_size": 64}
VIT = {**SIZE, **MLP}
TIMM = {
    "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2, "num_classes": 0,
}  # fmt: skip
Forward = Callable[[Any, torch.Tensor], torch.Tensor]


def of_timm(**options: Any) -> VisionTransformer:
    return VisionTransformer(**{**TIMM, **options})


def tokens(network: Any, images: torch.Tensor) -> torch.Tensor:
    """All tokens behind the last block and norm."""
    if isinstance(network, transformers.ViTMAEModel):  # it drops and shuffles patches by the noise that it is given
        return torch.as_tensor(network(images, noise=torch.arange(16.0).expand(2, -1)).last_hidden_state)
    if isinstance(network, transformers.PreTrainedModel):
        return torch.as_tensor(network(pixel_values=images).last_hidden_state)
    return torch.as_tensor(network.forward_features(images))


def pooled(network: Any, images: torch.Tensor) -> torch.Tensor:
    if isinstance(network, transformers.PreTrainedModel):
        return torch.as_tensor(network(pixel_values=images).pooler_output)
    return torch.as_tensor(network(images))


def clip_tokens(network: Any, images: torch.Tensor) -> torch.Tensor:
    """The class token, the only one that CLIP in transformers brings through the last norm."""
    if isinstance(network, transformers.PreTrainedModel):
        return torch.as_tensor(network(pixel_values=images).pooler_output)
    return torch.as_tensor(network.forward_features(images)[:, 0])


def mae() -> nn.Module:
    return transformers.ViTMAEModel(transformers.ViTMAEConfig(**VIT, mask_ratio=0.0))


def clip() -> nn.Module:
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SIZE, **MLP))


def siglip() -> nn.Module:
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SIZE, **MLP, hidden_act="gelu"))


def dinov2(registers: int = 0, **options: Any) -> nn.Module:
    """DINOv2, whose feed-forward layers are four times as wide."""
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**SIZE, num_register_tokens=registers, **options)
        return transformers.Dinov2WithRegistersModel(config)
    return transformers.Dinov2Model(transformers.Dinov2Config(**SIZE, **options))


def dinov3(**options: Any) -> nn.Module:
    config = transformers.DINOv3ViTConfig(**SIZE, **MLP, num_register_tokens=3, **options)
    return transformers.DINOv3ViTModel(config)


def dinov3_of_timm(**options: Any) -> nn.Module:
    """The network with the settings that timm gives its DINOv3."""
    return Eva(**{
        **TIMM, "init_values": 1.0, "rope_type": "dinov3", "rope_temperature": 100, "use_rot_pos_emb": True,
        "use_abs_pos_emb": False, "rope_rotate_half": True, "num_reg_tokens": 3, "use_fc_norm": False,
        "norm_layer": partial(nn.LayerNorm, eps=1e-5), **options,
    })  # fmt: skip


def beit(**options: Any) -> nn.Module:
    config = transformers.BeitConfig(**{
        **SIZE, **MLP, "use_relative_position_bias": True, "layer_scale_init_value": 0.1, **options
    })  # fmt: skip
    return transformers.BeitModel(config)


def data2vec() -> nn.Module:
    config = transformers.Data2VecVisionConfig(**SIZE, **MLP, use_relative_position_bias=True)
    return transformers.Data2VecVisionModel(config, add_pooling_layer=True)


def beit_of_timm(**options: Any) -> nn.Module:
    return Beit(**{**TIMM, "init_values": 0.1, "use_abs_pos_emb": False, "use_rel_pos_bias": True, **options})


GATED = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 2.75 * 2}
# The network in timm, in transformers, the layouts of their files, and what both must answer.
PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], str, str, Forward]] = {
    "CLIP": (
        lambda: of_timm(pre_norm=True, act_layer="quick_gelu", norm_layer=nn.LayerNorm),
        clip, "vit/timm", "vit/transformers-clip", clip_tokens,
    ),
    "SigLIP": (
        lambda: of_timm(class_token=False, global_pool="map"),
        siglip, "vit/timm-no-class", "vit/transformers-siglip", pooled,
    ),
    "DINOv2": (lambda: of_timm(init_values=1.0, mlp_ratio=4), dinov2, "vit/timm", "vit/transformers-dinov2", tokens),
    "DINOv2 with registers": (
        lambda: of_timm(init_values=1.0, mlp_ratio=4, reg_tokens=3, no_embed_class=True),
        lambda: dinov2(registers=3),
        "vit/timm-registers", "vit/transformers-dinov2-registers", tokens,
    ),
    "DINOv2, gated": (
        lambda: of_timm(init_values=1.0, **GATED),
        lambda: dinov2(use_swiglu_ffn=True),
        "vit/timm-gated", "vit/transformers-dinov2-giant", tokens,
    ),
    "DINOv2 with registers, gated": (
        lambda: of_timm(init_values=1.0, reg_tokens=3, no_embed_class=True, **GATED),
        lambda: dinov2(registers=3, use_swiglu_ffn=True),
        "vit/timm-registers-gated", "vit/transformers-dinov2-registers-giant", tokens,
    ),
}  # fmt: skip


PAIRS |= {
    "ViT": (of_timm, lambda: transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=False),
            "vit/timm", "vit/transformers", tokens),
    "DeiT, distilled": (
        lambda: VisionTransformerDistilled(**TIMM),
        lambda: transformers.DeiTModel(transformers.DeiTConfig(**VIT), add_pooling_layer=False),
        "vit/timm", "vit/transformers-deit", tokens,
    ),
    "MAE": (of_timm, mae, "vit/timm", "vit/transformers", tokens),
    "DINOv3": (dinov3_of_timm, dinov3, "dinov3/timm", "dinov3/transformers", tokens),
    "DINOv3, no biases": (
        lambda: dinov3_of_timm(qkv_bias=False),
        lambda: dinov3(query_bias=False, value_bias=False),
        "dinov3/timm", "dinov3/transformers", tokens,
    ),
    "DINOv3, gated": (
        lambda: dinov3_of_timm(swiglu_mlp=True, swiglu_align_to=8),
        lambda: dinov3(use_gated_mlp=True, hidden_act="silu"),
        "dinov3/timm-gated", "dinov3/transformers", tokens,
    ),
    "BEiT": (beit_of_timm, beit, "beit/timm", "beit/transformers", pooled),
    "data2vec-vision": (beit_of_timm, data2vec, "beit/timm", "beit/transformers", pooled),
    "BEiT, shared positions": (
        lambda: beit_of_timm(use_rel_pos_bias=False, use_shared_rel_pos_bias=True, use_abs_pos_emb=True),
        lambda: beit(
            use_relative_position_bias=False,
            use_shared_relative_position_bias=True,
            use_absolute_position_embeddings=True,
        ),
        "beit/timm", "beit/transformers", pooled,
    ),
}  # fmt: skip


def drawn(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with other random weights than zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data = values * (0.3 if parameter.dim() > 1 else 0.5) / max(parameter.shape[-1] / 8, 1) ** 0.5
    return network.eval()


def stored(network: nn.Module, folder: Path) -> Path:
    """The network's file, under the names that its library writes."""
    if isinstance(network, transformers.PreTrainedModel):
        network.save_pretrained(folder)
        return folder / "model.safetensors"
    return write(folder / "model.safetensors", {n: t.numpy() for n, t in network.state_dict().items()})


def layout_of(file: Path) -> str:
    return map_slots({name: array.shape for name, array in load_file(file).items()}).layout


def name_in(library: str, network: nn.Module) -> str:
    """What the layouts call a library's names: data2vec-vision has names of its own in transformers."""
    return library + "-data2vec" * isinstance(network, transformers.Data2VecVisionModel)


def converted(file: Path, to: str) -> Arrays:
    output = file.with_name(f"{to}.safetensors")
    hf_lwmm.convert(file, output, to=to, backbone_only=True, overwrite=True)
    return load_file(output)


def loaded(network: nn.Module, arrays: Arrays) -> nn.Module:
    """The network with these weights, loaded as its library does it."""
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    if isinstance(network, transformers.PreTrainedModel):
        pools = {transformers.Data2VecVisionModel: True, transformers.ViTModel: False, transformers.DeiTModel: False}
        more = {"add_pooling_layer": pools[type(network)]} if type(network) in pools else {}
        return type(network).from_pretrained(None, config=network.config, state_dict=state, **more).eval()
    network.load_state_dict(state)
    return network.eval()


def agree(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.shape == other.shape and float(one.std()) > 0.05
    assert float((one - other).abs().max()) < 1e-5 * float(one.max() - one.min())


@torch.no_grad()
@pytest.mark.parametrize("kin", PAIRS)
def test_both_libraries_give_the_same_answer_after_a_conversion(kin: str, tmp_path: Path) -> None:
    in_timm, in_transformers, timms, others, forward = PAIRS[kin]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for make, layout, other, to in (
        (in_timm, timms, in_transformers, "transformers"),
        (in_transformers, others, in_timm, "timm"),
    ):
        network = drawn(make())
        file = stored(network, tmp_path / to)
        assert layout_of(file) == layout
        target = drawn(other(), 1)
        target = loaded(target, converted(file, name_in(to, target)))
        agree(forward(network, images), forward(target, images))


@pytest.mark.parametrize("kin", PAIRS)
def test_there_and_back_is_the_same_bytes(kin: str, tmp_path: Path) -> None:
    file = stored(drawn(PAIRS[kin][0]()), tmp_path)
    before = load_file(file)
    there = write(tmp_path / "there.safetensors", converted(file, name_in("transformers", PAIRS[kin][1]())))
    after = converted(there, "timm")
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert all(np.shape(before[name]) == np.shape(after[name]) for name in before)


@torch.no_grad()
@pytest.mark.parametrize(("registers", "layout"), [(0, "dinov2-giant"), (3, "dinov2-registers-giant")])
def test_a_giant_dinov2_in_memory_is_the_one_of_files_and_of_timm(registers: int, layout: str, tmp_path: Path) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network = drawn(dinov2(registers, use_swiglu_ffn=True))
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    in_memory = write(tmp_path / "in_memory.safetensors", state)
    assert layout_of(in_memory) == f"vit/transformers-{layout}-runtime"
    timms = of_timm(init_values=1.0, reg_tokens=registers, no_embed_class=registers > 0, **GATED)
    agree(tokens(loaded(timms, converted(in_memory, "timm")), images), tokens(network, images))
    there = write(tmp_path / "there.safetensors", converted(in_memory, "transformers"))
    again = loaded(dinov2(registers, use_swiglu_ffn=True), load_file(there))
    assert all((tensor.numpy() == state[name]).all() for name, tensor in again.state_dict().items())
    back = converted(there, f"transformers-{layout}-runtime")
    assert {name.partition(".")[2] for name in back} == state.keys()


@torch.no_grad()
def test_an_eomt_computes_in_its_first_blocks_what_timms_dinov2_does(tmp_path: Path) -> None:
    config = transformers.EomtConfig(**SIZE, num_blocks=1, num_queries=2, num_upscale_blocks=1, num_register_tokens=3)
    network = drawn(transformers.EomtForUniversalSegmentation(config))
    timms = of_timm(init_values=1.0, mlp_ratio=4, reg_tokens=3, no_embed_class=True)
    loaded(timms, converted(stored(network, tmp_path), "timm"))
    outputs = []
    for block in (network.layers[0], timms.blocks[0]):  # type: ignore[union-attr]
        block.register_forward_hook(lambda *args: outputs.append(args[-1]))
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network(images)
    timms(images)
    agree(*outputs)


def on_meta(make: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


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


def merged(tmp_path: Path, *models: nn.Module, **options: Any) -> tuple[Arrays, hf_lwmm.MergeResult]:
    """The mean of models, under the names of the first."""
    files = [stored(model, tmp_path / f"model{i}") for i, model in enumerate(models)]
    options = {"method": "isotropic", "format": "safetensors", "overwrite": True, **options}
    result = calls.merge(files, output=tmp_path / "out", **options)
    return load_file(tmp_path / "out" / "model.safetensors"), result


def plain(seed: int, **options: Any) -> nn.Module:
    return drawn(of_timm(**options), seed)


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


def test_what_only_meta_trains_a_dinov3_with_is_left_out(tmp_path: Path) -> None:
    arrays = stored_arrays("dinov3_vits16", shrink=16)
    width = arrays["norm.weight"].shape
    local = {f"local_cls_norm.{leaf}": np.ones(width, np.float32) for leaf in ("weight", "bias")}
    file = write(tmp_path / "model.safetensors", {**arrays, **local})
    found = hf_lwmm.convert(file, tmp_path / "out.safetensors", to="transformers")
    assert "Left out 14 tensors that the network never uses" in found.notes[0]  # with the biases of keys
    assert layout_of(tmp_path / "out.safetensors") == "dinov3/transformers"


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


def test_position_embeddings_of_another_grid_stay_the_anchors(tmp_path: Path) -> None:
    anchor = plain(0)
    arrays, result = merged(tmp_path, anchor, plain(1, img_size=48))
    own = anchor.state_dict()["pos_embed"].numpy()
    assert (arrays["pos_embed"][:, 1:] == own[:, 1:]).all() and (arrays["pos_embed"][:, 0] != own[:, 0]).all()
    (note,) = [each for each in result.warnings if "position" in each]
    assert "6 x 6 patches" in note and "4 x 4" in note and "--resize-position" in note
    planned = calls.lwmm("plan", *(tmp_path / f"model{i}" / "model.safetensors" for i in (0, 1)))
    assert planned.exit_code == 0 and f"Warning: {note}" in planned.stderr


@pytest.mark.parametrize(
    ("anchor", "other", "side"),
    [
        (plain, lambda seed: plain(seed, img_size=48), 4),
        (lambda seed: plain(seed, img_size=48), plain, 6),
        (lambda seed: drawn(clip(), seed), lambda seed: plain(seed, img_size=24, pre_norm=True), 4),
        (plain, lambda seed: plain(seed, patch_size=4), 4),
    ],
)
def test_position_embeddings_are_interpolated_as_torch_does_it(
    anchor: Any, other: Any, side: int, tmp_path: Path
) -> None:
    first, second = anchor(0), other(1)
    arrays, result = merged(tmp_path, first, second, resize_position=True)
    grid = second.state_dict()["pos_embed"][:, 1:]
    old = int(grid.shape[1] ** 0.5)
    square = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    wanted = nn.functional.interpolate(square, (side, side), mode="bicubic", align_corners=False)
    theirs = wanted.permute(0, 2, 3, 1).reshape(1, side * side, -1).numpy()
    mine = to_slots(load_file(tmp_path / "model0" / "model.safetensors"))["vit.embed.position"]
    assert np.allclose(to_slots(arrays)["vit.embed.position"], (mine + theirs) / 2, atol=1e-6)
    assert any(f"{old} x {old} patches are interpolated (bicubic) to the anchor's {side} x {side}" in each
               for each in result.warnings)  # fmt: skip


def test_the_card_says_what_was_interpolated(tmp_path: Path) -> None:
    merged(tmp_path, plain(0), plain(1, img_size=48), resize_position=True)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "6 x 6 patches are interpolated (bicubic) to the anchor's 4 x 4" in card and "--resize-position" in card
    assert load_recipe(tmp_path / "out" / "hf_lwmm.yaml").knobs.resize_position


def swin(window: int, seed: int) -> nn.Module:
    sizes = {"img_size": 64, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "num_classes": 0}
    return drawn(timm.models.SwinTransformer(**sizes, window_size=window, always_partition=True), seed)


RELATIVE = {
    "Swin": (swin(2, 0), swin(4, 1), 3, ".attn.bias_table", 0, "windows of 4 x 4.* 2 x 2"),
    "Swin, larger": (swin(4, 0), swin(2, 1), 7, ".attn.bias_table", 0, "windows of 2 x 2.* 4 x 4"),
    "BEiT": (
        *(drawn(beit(), 0), drawn(beit_of_timm(img_size=48), 1), 7),
        *(".relative_position", 3, "windows of 6 x 6.* 4 x 4"),
    ),
}


@pytest.mark.parametrize("kin", RELATIVE)
def test_relative_positions_are_interpolated_as_torch_does_it(kin: str, tmp_path: Path) -> None:
    first, second, side, ending, behind, note = RELATIVE[kin]
    arrays, result = merged(tmp_path, first, second, resize_position=True)
    mine, theirs = (to_slots(load_file(stored(network, tmp_path / "again"))) for network in (first, second))
    mean = to_slots(arrays)
    tables = [slot for slot in mine if slot.endswith(ending)]
    assert len(tables) > 1
    for slot in tables:
        grid = torch.from_numpy(theirs[slot][: len(theirs[slot]) - behind])
        old = int(len(grid) ** 0.5)
        square = grid.T.reshape(1, -1, old, old)
        wanted = nn.functional.interpolate(square, (side, side), mode="bicubic").reshape(-1, side**2).T.numpy()
        other = np.concatenate([wanted, theirs[slot][len(grid) :]])
        assert np.allclose(mean[slot], (mine[slot] + other) / 2, atol=1e-6)
    assert any(re.search(f"{note} .* and {len(tables) - 1} more", each) for each in result.warnings)


@pytest.mark.parametrize("kin", ["Swin", "BEiT"])
def test_relative_positions_of_another_window_stay_the_anchors_with_one_note(kin: str, tmp_path: Path) -> None:
    first, second, _, ending, _, note = RELATIVE[kin]
    arrays, result = merged(tmp_path, first, second)
    mine, mean = to_slots(load_file(tmp_path / "model0" / "model.safetensors")), to_slots(arrays)
    assert all((mean[slot] == mine[slot]).all() for slot in mine if slot.endswith(ending))
    (found,) = [each for each in result.warnings if "relative positions" in each]
    assert re.search(note, found) and "anchor's are kept" in found and "--resize-position" in found


def test_interpolating_needs_a_grid(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"has no position embeddings of a square grid.*leave it out"):
        merged(tmp_path, drawn(dinov3()), drawn(dinov3(), 1), resize_position=True)


def test_towers_of_two_families_merge_with_a_warning_that_names_both(tmp_path: Path) -> None:
    _, result = merged(tmp_path, drawn(clip()), drawn(dinov2(), 1))
    says = "a CLIP ViT, model1/model.safetensors a DINOv2 ViT: merge models fine-tuned from one."
    assert any("the merge may be useless" in each and says in each for each in result.warnings)
    _, result = merged(tmp_path, plain(0), plain(1))
    assert any("Merge models fine-tuned from one. If only" in each for each in result.warnings)


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
