"""Compare the depth order that is guessed from names with the one that running shows, over networks of two libraries.

Tables are not asked: every network is ordered as one that no layout knows. Prints the tables of docs/depth-order.md,
with the guess of 0.2.0 beside today's:

    python scripts/bench/order.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import timm
import torch
import transformers
from torch import nn

from hf_lwmm.layouts.guessing import first_guessed_keys, guessed_order
from hf_lwmm.networks.tracing import first_uses

TIMM = (
    "resnet18", "test_resnet", "test_vit", "deit3_small_patch16_224", "beit_base_patch16_224", "cait_xxs24_224",
    "vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224",
    "convnext_atto", "mobilenetv3_small_050", "efficientnet_b0", "regnety_002", "hrnet_w18_small", "densenet121",
    "vgg11_bn", "mixer_s32_224", "poolformer_s12", "pvt_v2_b0", "twins_pcpvt_small", "xcit_nano_12_p16_224",
    "coat_lite_tiny", "maxvit_tiny_rw_224", "levit_128s", "edgenext_xx_small", "mobilevit_xxs", "nfnet_f0", "dla34",
    "inception_v3", "crossvit_9_240", "fastvit_t8",
)  # fmt: skip
# Networks that were not looked at before the guess was made.
OTHERS = (
    "davit_tiny", "hiera_tiny_224", "efficientvit_b0", "focalnet_tiny_srf", "gcvit_xxtiny", "mvitv2_tiny", "pit_xs_224",
    "tnt_s_patch16_224", "visformer_tiny", "convit_tiny", "volo_d1_224", "resnest14d", "repvgg_a0", "ghostnet_050",
    "mnasnet_small", "skresnet18", "cspresnet50", "ese_vovnet19b_dw", "xception41", "nest_tiny", "resmlp_12_224",
    "efficientformer_l1", "starnet_s1", "mambaout_femto", "rdnet_tiny", "inception_next_atto", "caformer_s18",
    "mobileone_s0", "hardcorenas_a", "selecsls42b", "dpn68", "inception_resnet_v2", "vit_base_patch32_clip_224",
    "vit_base_patch16_siglip_224", "beitv2_base_patch16_224", "naflexvit_base_patch16_gap", "mobilevitv2_050",
    "tiny_vit_5m_224", "repvit_m0_9", "sequencer2d_s", "res2net50_14w_8s",
)  # fmt: skip
_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8]}
_VIT = {"hidden_size": 16, "num_hidden_layers": 12, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32}
_SWIN = {"image_size": 64, "embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "window_size": 2}
_BACKBONE = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
TRANSFORMERS: dict[str, tuple[str, dict[str, object]]] = {
    "ViTForImageClassification": ("ViTConfig", {**_VIT, "patch_size": 4}),
    "Dinov2ForImageClassification": ("Dinov2Config", {**_VIT, "patch_size": 4}),
    "BeitForSemanticSegmentation": (
        "BeitConfig", {**_VIT, "patch_size": 4, "out_indices": [3, 5, 7, 11], "use_relative_position_bias": True},
    ),
    "SwinForImageClassification": ("SwinConfig", _SWIN),
    "Swinv2ForImageClassification": ("Swinv2Config", _SWIN),
    "ConvNextForImageClassification": ("ConvNextConfig", _STAGES),
    "SegformerForSemanticSegmentation": (
        "SegformerConfig", {**_STAGES, "num_attention_heads": [1, 1, 1, 1], "decoder_hidden_size": 8},
    ),
    "ResNetForImageClassification": ("ResNetConfig", {**_STAGES, "embedding_size": 8}),
    "RegNetForImageClassification": ("RegNetConfig", {**_STAGES, "embedding_size": 8, "groups_width": 8}),
    "MobileNetV2ForSemanticSegmentation": ("MobileNetV2Config", {}),
    "MobileViTForSemanticSegmentation": ("MobileViTConfig", {"image_size": 64}),
    "DPTForSemanticSegmentation": (
        "DPTConfig",
        {**_VIT, "patch_size": 4, "backbone_out_indices": [2, 5, 8, 11], "neck_hidden_sizes": [8, 8, 8, 8],
         "fusion_hidden_size": 8},
    ),
    "UperNetForSemanticSegmentation": ("UperNetConfig", {"hidden_size": 8}),
    "Mask2FormerForUniversalSegmentation": ("Mask2FormerConfig", {}),
    "DetrForObjectDetection": ("DetrConfig", {"encoder_layers": 2, "decoder_layers": 2}),
    "YolosForObjectDetection": ("YolosConfig", {**_VIT, "image_size": [32, 32], "patch_size": 4}),
    "GLPNForDepthEstimation": (
        "GLPNConfig", {**_STAGES, "num_attention_heads": [1, 1, 1, 1], "decoder_hidden_size": 8},
    ),
    "FocalNetForImageClassification": ("FocalNetConfig", {"image_size": 32, "embed_dim": 8}),
}  # fmt: skip


Order = Callable[[Iterable[str]], list[str]]


def of_timm(names: Iterable[str]) -> Iterator[tuple[str, nn.Module, int]]:
    """Yield the name of each network of timm, the network, and the side of the pictures that it takes."""
    for name in names:
        model = timm.create_model(name, pretrained=False)
        yield f"timm {name}", model, model.pretrained_cfg["input_size"][-1]


def of_transformers() -> Iterator[tuple[str, nn.Module, int]]:
    """Yield networks of transformers as `of_timm` does those of timm."""
    for name, (config_name, options) in TRANSFORMERS.items():
        config = getattr(transformers, config_name)(**options)
        size = getattr(config, "image_size", None) or 64
        yield name, getattr(transformers, name)(config), size if isinstance(size, int) else size[0]


def first_order(slots: Iterable[str]) -> list[str]:
    """Return slots in the order that 0.2.0 guessed."""
    keys = first_guessed_keys(slots)
    return sorted(keys, key=lambda slot: keys[slot])


def distances(uses: dict[str, int], order: Order) -> dict[str, int]:
    """Return how many places each tensor is off by a guess; of those of one operation any order is right."""
    rank = {name: place for place, name in enumerate(order(uses))}
    traced = sorted(uses, key=lambda name: (uses[name], rank[name]))
    return {name: abs(rank[name] - place) for place, name in enumerate(traced)}


def merits(off: dict[str, int]) -> tuple[float, float]:
    """Return the rank correlation (Spearman's), and the share of tensors off by more than a tenth of the depth."""
    count = len(off)
    correlation = 1 - 6 * sum(each**2 for each in off.values()) / (count * (count**2 - 1))
    return correlation, sum(each > count / 10 for each in off.values()) / count


def table(networks: Iterable[tuple[str, nn.Module, int]]) -> None:
    """Print a line for each network, and their means."""
    print("| network | tensors | correlation, 0.2.0 | misplaced | correlation | misplaced | furthest from its place |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for name, module, side in networks:
        first = first_uses(module.eval(), torch.rand(1, 3, side, side))
        state = module.state_dict(keep_vars=True)
        uses = {slot: first[id(tensor)] for slot, tensor in state.items() if id(tensor) in first}
        off = distances(uses, guessed_order)
        rows.append((*merits(distances(uses, first_order)), *merits(off)))
        furthest = f"`{max(off, key=lambda slot: off[slot])}`" if rows[-1][3] else ""
        print(f"| {name} | {len(uses)} | {_cells(rows[-1])} | {furthest} |", flush=True)
    print(f"| mean of {len(rows)} | | {_cells([sum(column) / len(rows) for column in zip(*rows, strict=True)])} | |\n")


def _cells(values: Iterable[float]) -> str:
    before, misplaced_before, now, misplaced = values
    return f"{before:.3f} | {misplaced_before:.1%} | {now:.3f} | {misplaced:.1%}"


def main() -> None:
    """Print the tables."""
    table([*of_timm(TIMM), *of_transformers()])
    table(of_timm(OTHERS))


if __name__ == "__main__":
    main()
