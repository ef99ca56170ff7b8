"""PVTv2, as in timm and in transformers."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET
from hf_lwmm.layouts.tables.mit import MIT

PVT = Component(
    name="pvt",
    kind="backbone",
    title="PVTv2",
    variants=(
        Variant("PVTv2-B0", (2, 2, 2, 2), 32),
        Variant("PVTv2-B1", (2, 2, 2, 2), 64),
        Variant("PVTv2-B2", (3, 4, 6, 3), 64),
        Variant("PVTv2-B3", (3, 4, 18, 3), 64),
        Variant("PVTv2-B4", (3, 8, 27, 3), 64),
        Variant("PVTv2-B5", (3, 6, 40, 3), 64),
    ),
    width_slot="pvt.stage0.embed.proj.weight",
    outline=MIT.outline,  # PVTv2 and MiT have the same modules
)

PVT_TIMM = Layout(
    name="pvt/timm",
    component=PVT,
    table="""
patch_embed.proj = stage0.embed.proj
patch_embed.norm = stage0.embed.norm
for s:
    stages.{s}.downsample.proj = stage{s}.embed.proj
    stages.{s}.downsample.norm = stage{s}.embed.norm
    for b:
        stages.{s}.blocks.{b}.norm1 = stage{s}.block{b}.norm1
        stages.{s}.blocks.{b}.attn.q = stage{s}.block{b}.attn.q
        stages.{s}.blocks.{b}.attn.kv = stage{s}.block{b}.attn.k | stage{s}.block{b}.attn.v
        stages.{s}.blocks.{b}.attn.proj = stage{s}.block{b}.attn.proj
        ? stages.{s}.blocks.{b}.attn.sr = stage{s}.block{b}.attn.sr
        ? stages.{s}.blocks.{b}.attn.norm = stage{s}.block{b}.attn.norm
        stages.{s}.blocks.{b}.norm2 = stage{s}.block{b}.norm2
        stages.{s}.blocks.{b}.mlp.fc1 = stage{s}.block{b}.mlp.fc1
        stages.{s}.blocks.{b}.mlp.dwconv = stage{s}.block{b}.mlp.dwconv
        stages.{s}.blocks.{b}.mlp.fc2 = stage{s}.block{b}.mlp.fc2
    stages.{s}.norm = stage{s}.norm
""",
)

PVT_TRANSFORMERS = Layout(
    name="pvt/transformers",
    component=PVT,
    prefixes=("pvt_v2.encoder.", "encoder."),
    table="""
for s:
    layers.{s}.patch_embedding.proj = stage{s}.embed.proj
    layers.{s}.patch_embedding.layer_norm = stage{s}.embed.norm
    for b:
        layers.{s}.blocks.{b}.layer_norm_1 = stage{s}.block{b}.norm1
        layers.{s}.blocks.{b}.attention.query = stage{s}.block{b}.attn.q
        layers.{s}.blocks.{b}.attention.key = stage{s}.block{b}.attn.k
        layers.{s}.blocks.{b}.attention.value = stage{s}.block{b}.attn.v
        layers.{s}.blocks.{b}.attention.proj = stage{s}.block{b}.attn.proj
        ? layers.{s}.blocks.{b}.attention.spatial_reduction = stage{s}.block{b}.attn.sr
        ? layers.{s}.blocks.{b}.attention.layer_norm = stage{s}.block{b}.attn.norm
        layers.{s}.blocks.{b}.layer_norm_2 = stage{s}.block{b}.norm2
        layers.{s}.blocks.{b}.mlp.dense1 = stage{s}.block{b}.mlp.fc1
        layers.{s}.blocks.{b}.mlp.dwconv.dwconv = stage{s}.block{b}.mlp.dwconv
        layers.{s}.blocks.{b}.mlp.dense2 = stage{s}.block{b}.mlp.fc2
    layers.{s}.layer_norm = stage{s}.norm
""",
)

IMAGENET_TIMM = Layout(
    name="imagenet/pvt-timm", component=IMAGENET, beside=PVT, table="head = classifier", also=("timm",)
)

IMAGENET_TRANSFORMERS = Layout(
    name="imagenet/pvt-transformers",
    component=IMAGENET,
    beside=PVT,
    table="classifier = classifier",
    also=("transformers",),
)

LAYOUTS = (PVT_TIMM, PVT_TRANSFORMERS)
HEADS = (IMAGENET_TIMM, IMAGENET_TRANSFORMERS)
