"""Segmenters and detectors of transformers with different heads merge the backbone that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn
from transformers import SwinConfig

from hf_lwmm.cli import app
from hf_lwmm.layouts import in_backbone, map_slots, place_of

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_SWIN = {"image_size": 64, "window_size": 2, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
_LABELS = {"id2label": {0: "road", 1: "sky", 2: "car"}}
_DECODER: dict[str, Any] = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 4}
_MASKS: dict[str, Any] = {
    "feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 2,
    "encoder_feedforward_dim": 8, "dim_feedforward": 8, **_DECODER,
}  # fmt: skip
_DETR: dict[str, Any] = {
    "d_model": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8, **_DECODER,
}  # fmt: skip


def swin() -> SwinConfig:
    """Return the configuration of a narrow Swin."""
    return SwinConfig(**_SWIN, out_features=_STAGES)


def resnet() -> transformers.ResNetConfig:
    """Return the configuration of a narrow ResNet."""
    return transformers.ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 32, 64, 64], depths=[1, 1, 1, 1], out_features=_STAGES
    )


def mask2former(backbone: Any) -> nn.Module:
    """Return a narrow Mask2Former."""
    config = transformers.Mask2FormerConfig(backbone_config=backbone, **_MASKS, **_LABELS)
    return transformers.Mask2FormerForUniversalSegmentation(config)


def maskformer() -> nn.Module:
    """Return a narrow MaskFormer."""
    config = transformers.MaskFormerConfig(
        backbone_config=swin(),
        decoder_config=transformers.DetrConfig(**_DETR),
        fpn_feature_size=32,
        mask_feature_size=32,
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


def oneformer() -> nn.Module:
    """Return a narrow OneFormer."""
    sizes = {key: value for key, value in _MASKS.items() if "feature_size" not in key}
    text = {"text_encoder_width": 8, "text_encoder_num_layers": 1, "text_encoder_vocab_size": 16}
    config = transformers.OneFormerConfig(
        backbone_config=swin(), conv_dim=32, mask_dim=32, query_dec_layers=1, **text, **sizes
    )
    return transformers.OneFormerForUniversalSegmentation(config)


def upernet() -> nn.Module:
    """Return a narrow UperNet on a Swin."""
    return upernet_on(swin(), 32)


def depth_of_swinv2() -> nn.Module:
    """Return a narrow DPT on a SwinV2."""
    config = transformers.DPTConfig(
        backbone_config=transformers.Swinv2Config(**_SWIN, out_features=_STAGES), neck_hidden_sizes=[8, 16, 32, 64],
        fusion_hidden_size=8, readout_type="ignore", reassemble_factors=[1, 1, 1, 1],
    )  # fmt: skip
    return transformers.DPTForDepthEstimation(config)


_VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def depth_of_dinov2() -> nn.Module:
    """Return a narrow DPT on a DINOv2 with registers."""
    backbone = transformers.Dinov2WithRegistersConfig(
        **_VIT, num_register_tokens=2, out_features=_STAGES, reshape_hidden_states=False
    )
    config = transformers.DPTConfig(
        backbone_config=backbone, neck_hidden_sizes=[8, 16, 32, 32], fusion_hidden_size=8
    )  # fmt: skip
    return transformers.DPTForDepthEstimation(config)


def eomt(**options: Any) -> nn.Module:
    """Return a narrow EoMT, whose last block sees its queries, too."""
    sizes = {"num_blocks": 1, "num_queries": 4, "num_upscale_blocks": 1, "num_register_tokens": 2}
    return transformers.EomtForUniversalSegmentation(transformers.EomtConfig(**_VIT, **sizes, **_LABELS, **options))


def eomt_of_dinov3() -> nn.Module:
    """Return a narrow EoMT on a DINOv3."""
    sizes = {"num_blocks": 1, "num_queries": 4, "num_upscale_blocks": 1, "num_register_tokens": 2}
    config = transformers.EomtDinov3Config(**_VIT, intermediate_size=64, **sizes, **_LABELS)
    return transformers.EomtDinov3ForUniversalSegmentation(config)


def upernet_on(backbone: Any, width: int) -> nn.Module:
    """Return a narrow UperNet on a backbone whose third features have this width."""
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=8, pool_scales=[1], auxiliary_channels=8, auxiliary_in_channels=width,
        **_LABELS,
    )  # fmt: skip
    return transformers.UperNetForSemanticSegmentation(config)


def detr(timm: bool) -> nn.Module:
    """Return a narrow DETR, on a ResNet of timm or of transformers."""
    chosen = {"backbone": "resnet18", "backbone_config": None} if timm else {"backbone_config": resnet()}
    return transformers.DetrForObjectDetection(
        transformers.DetrConfig(use_timm_backbone=timm, use_pretrained_backbone=False, **chosen, **_DETR)
    )


# Networks, the layouts that their files and they themselves have, and what is before the names of their backbones.
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], str, str, str]] = {
    "maskformer": (maskformer, "swin/transformers-maskformer", "swin/transformers-maskformer", ".encoder."),
    "mask2former": (
        lambda: mask2former(swin()),
        "swin/transformers-segmenter",
        "swin/transformers-backbone",
        ".encoder.",
    ),
    "mask2former-resnet": (lambda: mask2former(resnet()), "resnet/transformers", "resnet/transformers", ".encoder."),
    "oneformer": (
        oneformer,
        "swin/transformers-segmenter",
        "swin/transformers-backbone",
        "pixel_level_module.encoder.",
    ),
    "detr": (lambda: detr(False), "resnet/transformers", "resnet/transformers", "backbone."),
    "detr-timm": (lambda: detr(True), "resnet/torchvision", "resnet/torchvision", "backbone."),
    "dpt": (depth_of_swinv2, "swinv2/transformers", "swinv2/transformers", "backbone."),
    "eomt": (eomt, "vit/transformers-eomt", "vit/transformers-eomt", "layers."),
    "eomt-giant": (
        lambda: eomt(use_swiglu_ffn=True),
        "vit/transformers-eomt-giant",
        "vit/transformers-eomt-giant",
        "layers.",
    ),
    "eomt-dinov3": (eomt_of_dinov3, "dinov3/transformers-eomt", "dinov3/transformers-eomt", "layers."),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_backbone_is_known_in_the_file_and_in_memory_beside_any_head(name: str, tmp_path: Path) -> None:
    make, of_file, of_memory, prefix = NETWORKS[name]
    network = make()
    network.save_pretrained(tmp_path)  # type: ignore[operator]
    found = {}
    for layout, tensors in ((of_file, load_file(tmp_path / "model.safetensors")), (of_memory, network.state_dict())):
        slots = map_slots({key: tuple(tensor.shape) for key, tensor in tensors.items()})
        assert slots.layout == layout
        assert not [slot for slot in slots.slots if place_of(slot) is None and prefix in slot and "decoder" not in slot]
        found[layout] = {slot: shape for slot, shape in slots.shapes.items() if place_of(slot)}
    assert len({tuple(sorted(each)) for each in found.values()}) == 1


@pytest.mark.parametrize("first", ["mask2former", "upernet"])
@torch.no_grad()
def test_a_mask2former_and_an_upernet_merge_their_swin(first: str, tmp_path: Path) -> None:
    networks = {"mask2former": mask2former(swin()), "upernet": upernet()}
    for name, network in networks.items():
        network.save_pretrained(tmp_path / name)  # type: ignore[operator]
    second = next(name for name in networks if name != first)
    arguments = ["merge", str(tmp_path / first), str(tmp_path / second), "--output", str(tmp_path / "merged")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    merged, loading = type(networks[first]).from_pretrained(tmp_path / "merged", output_loading_info=True)  # type: ignore[attr-defined]
    assert not any(loading.values())
    assert all(tensor.isfinite().all() for tensor in merged(torch.zeros(1, 3, 64, 64))[:1])

    anchor, other, found = (
        map_slots_of(tmp_path / name / "model.safetensors") for name in (first, second, "merged")
    )  # fmt: skip
    embedding = "swin.embed.proj.weight"
    middle = 0.5 * (anchor[embedding] + other[embedding])
    assert (found[embedding] - middle).norm() < 0.1 * (anchor[embedding] - other[embedding]).norm()
    heads = [slot for slot in anchor if not slot.startswith("swin.")]
    assert all(torch.equal(found[slot], anchor[slot]) for slot in heads)
    assert any("transformer_module" in slot or slot.startswith("upernet.") for slot in heads)


_DINOV2 = transformers.Dinov2WithRegistersConfig(**_VIT, num_register_tokens=2, out_features=_STAGES)
_DINOV3 = transformers.DINOv3ViTConfig(**_VIT, intermediate_size=64, num_register_tokens=2)
# Two of one class merge whole; two of different heads on one backbone merge that.
COUPLES: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "Mask2Formers": (lambda: mask2former(swin()), lambda: mask2former(swin())),
    "OneFormers": (oneformer, oneformer),
    "DPTs": (depth_of_dinov2, depth_of_dinov2),
    "EoMTs": (eomt, eomt),
    "DETRs": (lambda: detr(False), lambda: detr(False)),
    "UperNets": (lambda: upernet_on(_DINOV2, 32), lambda: upernet_on(_DINOV2, 32)),
    "OneFormer and MaskFormer": (oneformer, maskformer),
    "EoMT and DPT": (eomt, depth_of_dinov2),
    "DPT and EoMT": (depth_of_dinov2, eomt),
    "UperNet and DPT": (lambda: upernet_on(_DINOV2, 32), depth_of_dinov2),
    "EoMT and DINOv3": (eomt_of_dinov3, lambda: transformers.DINOv3ViTModel(_DINOV3)),
    "DETR and Mask2Former": (lambda: detr(False), lambda: mask2former(resnet())),
}


@pytest.mark.parametrize("couple", COUPLES)
def test_models_with_one_backbone_merge_it_and_the_head_if_it_is_one(couple: str, tmp_path: Path) -> None:
    networks = [make() for make in COUPLES[couple]]
    for seed, (name, network) in enumerate(zip("ab", networks, strict=True)):
        torch.manual_seed(seed)
        for parameter in network.parameters():
            parameter.data.normal_()
        network.save_pretrained(tmp_path / name)  # type: ignore[operator]
    arguments = ["merge", *(str(tmp_path / name) for name in "ab"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--method", "isotropic"])
    assert result.exit_code == 0, result.output
    _, loading = type(networks[0]).from_pretrained(tmp_path / "out", output_loading_info=True)  # type: ignore[attr-defined]
    assert not any(loading.values())

    ours, theirs, found = (map_slots_of(tmp_path / name / "model.safetensors") for name in ("a", "b", "out"))
    floats = {slot for slot, tensor in ours.items() if tensor.is_floating_point()}
    head = {slot for slot in floats if not in_backbone(slot)}
    merged = {slot for slot in floats & theirs.keys() if ours[slot].shape == theirs[slot].shape}
    unlike = {slot for slot in merged if not torch.allclose(found[slot], (ours[slot] + theirs[slot]) / 2, atol=1e-5)}
    expected = ("swin.unused_norm", "vit.embed.class", "criterion.", "class_predictor.")
    assert [slot for slot in unlike if not slot.startswith(expected)] == []
    assert [slot for slot in (head - merged) | unlike if not torch.equal(found[slot], ours[slot])] == []
    assert ("head stay" in result.output) == bool(head - theirs.keys())


def map_slots_of(path: Path) -> dict[str, torch.Tensor]:
    """Return the slots in a file whose tensors are single slots."""
    tensors = load_file(path)
    slots = map_slots({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return {atoms[0].slot: tensors[name] for name, atoms in slots.atoms.items() if len(atoms) == 1}


def test_a_merge_does_not_depend_on_the_order_of_elements_in_a_file(tmp_path: Path) -> None:
    runner = CliRunner()

    def merged(first: str, second: str) -> Path:
        out = tmp_path / f"{first}-{second}".replace(".", "_")
        arguments = ["merge", str(tmp_path / first), str(tmp_path / second), "--output", str(out)]
        result = runner.invoke(app, [*arguments, "--format", "safetensors"])
        assert result.exit_code == 0, result.output
        return out / "model.safetensors"

    for name in "a", "b":
        upernet().save_pretrained(tmp_path / name)  # type: ignore[operator]
        arguments = ["convert", str(tmp_path / name), str(tmp_path / f"{name}.pth"), "--to", "mmseg"]
        assert runner.invoke(app, arguments).exit_code == 0
    own, mixed = load_file(merged("a", "b")), load_file(merged("a", "b.pth"))
    assert all(torch.equal(mixed[name], tensor) for name, tensor in own.items())
    theirs = merged("a.pth", "b")
    assert map_slots({name: tuple(t.shape) for name, t in load_file(theirs).items()}).layout.startswith("swin/mmseg")
    arguments = ["convert", str(theirs), str(tmp_path / "back.safetensors"), "--to", "transformers"]
    assert runner.invoke(app, arguments).exit_code == 0
    back = load_file(tmp_path / "back.safetensors")
    assert own.keys() - back.keys() == {f"backbone.swin.layernorm.{leaf}" for leaf in ("weight", "bias")}
    assert all(torch.equal(own[name], tensor) for name, tensor in back.items())
