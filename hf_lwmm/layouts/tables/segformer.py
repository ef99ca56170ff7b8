"""SegFormer's all-MLP decode head, and MMSegmentation 1.x's variant of it."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout

# The four projections run side by side; some implementations call them in ascending order, some in descending.
SEGFORMER_HEAD = Component(
    name="segformer",
    kind="head",
    title="SegFormer head",
    outline="""
for i together:
    proj{i}
fuse.conv
fuse.bn
classifier (classes)
unused_classifier (unused)
""",
)

SEGFORMER_TRANSFORMERS = Layout(
    name="segformer/transformers",
    component=SEGFORMER_HEAD,
    prefixes=("decode_head.",),
    table="""
for i:
    linear_c.{i}.proj = proj{i}
linear_fuse = fuse.conv
batch_norm = fuse.bn
classifier = classifier
""",
)

SEGFORMER_TRANSFORMERS_RUNTIME = Layout(
    name="segformer/transformers-runtime",
    component=SEGFORMER_HEAD,
    prefixes=("decode_head.",),
    table="""
for i:
    linear_projections.{i}.proj = proj{i}
linear_fuse = fuse.conv
batch_norm = fuse.bn
classifier = classifier
""",
)

SEGFORMER_NVIDIA = Layout(
    name="segformer/nvidia",
    component=SEGFORMER_HEAD,
    prefixes=("decode_head.",),
    table="""
? conv_seg = unused_classifier
for i reversed:
    linear_c{i+1}.proj = proj{i}
linear_fuse.conv = fuse.conv
linear_fuse.bn = fuse.bn
linear_pred = classifier
""",
)

SEGFORMER_SMP = Layout(
    name="segformer/smp",
    component=SEGFORMER_HEAD,
    table="""
for i reversed:
    decoder.mlp_stage.{3-i}.linear = proj{i}
decoder.fuse_stage.0 = fuse.conv
decoder.fuse_stage.1 = fuse.bn
segmentation_head.0 = classifier
""",
)

MMSEG_HEAD = Component(
    name="segformer_mmseg",
    kind="head",
    title="MMSegmentation SegFormer head",
    outline="""
for i:
    proj{i}.conv
    proj{i}.bn
fuse.conv
fuse.bn
classifier (classes)
""",
)

SEGFORMER_MMSEG = Layout(
    name="segformer/mmseg",
    component=MMSEG_HEAD,
    prefixes=("decode_head.",),
    table="""
conv_seg = classifier
for i:
    convs.{i}.conv = proj{i}.conv
    convs.{i}.bn = proj{i}.bn
fusion_conv.conv = fuse.conv
fusion_conv.bn = fuse.bn
""",
)

LAYOUTS = (
    SEGFORMER_TRANSFORMERS,
    SEGFORMER_TRANSFORMERS_RUNTIME,
    SEGFORMER_NVIDIA,
    SEGFORMER_SMP,
    SEGFORMER_MMSEG,
)
