"""Small vision transformers of timm and transformers with random weights, their files, and merges of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import calls
import timm
import torch
import transformers
from manifests import Arrays, write
from safetensors.numpy import load_file
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import hf_lwmm
from hf_lwmm.layouts import map_slots

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


def converted(file: Path, to: str) -> Arrays:
    output = file.with_name(f"{to}.safetensors")
    hf_lwmm.convert(file, output, to=to, backbone_only=True, overwrite=True)
    return load_file(output)


def merged(tmp_path: Path, *models: nn.Module, **options: Any) -> tuple[Arrays, hf_lwmm.MergeResult]:
    """The mean of models, under the names of the first."""
    files = [stored(model, tmp_path / f"model{i}") for i, model in enumerate(models)]
    options = {"method": "isotropic", "format": "safetensors", "overwrite": True, **options}
    result = calls.merge(files, output=tmp_path / "out", **options)
    return load_file(tmp_path / "out" / "model.safetensors"), result


def plain(seed: int, **options: Any) -> nn.Module:
    return drawn(of_timm(**options), seed)
