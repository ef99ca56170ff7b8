"""UperNet's decode head, as in MMSegmentation 1.x, transformers and segmentation_models.pytorch."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout

# Norms of the stages' features are the head's in smp, the backbone's elsewhere.
UPERNET = Component(
    name="upernet",
    kind="head",
    title="UperNet head",
    outline="""
for i:
    norm{i}
for i:
    lateral{i}.conv
    lateral{i}.bn
for i:
    pool{i}.conv
    pool{i}.bn
pooled.conv
pooled.bn
for i:
    fpn{i}.conv
    fpn{i}.bn
fuse.conv
fuse.bn
classifier (classes)
""",
)

_TABLE = """
CLASSIFIER = classifier
for i:
    psp_modules.{i}.1.conv = pool{i}.conv
    psp_modules.{i}.1.BN = pool{i}.bn
bottleneck.conv = pooled.conv
bottleneck.BN = pooled.bn
for i:
    lateral_convs.{i}.conv = lateral{i}.conv
    lateral_convs.{i}.BN = lateral{i}.bn
for i:
    fpn_convs.{i}.conv = fpn{i}.conv
    fpn_convs.{i}.BN = fpn{i}.bn
fpn_bottleneck.conv = fuse.conv
fpn_bottleneck.BN = fuse.bn
"""

UPERNET_MMSEG = Layout(
    name="upernet/mmseg",
    component=UPERNET,
    prefixes=("decode_head.",),
    table=_TABLE.replace("CLASSIFIER", "conv_seg").replace("BN", "bn"),
)

UPERNET_TRANSFORMERS = Layout(
    name="upernet/transformers",
    component=UPERNET,
    prefixes=("decode_head.",),
    also=("transformers-runtime", "transformers-backbone"),
    table=_TABLE.replace("CLASSIFIER", "classifier").replace("BN", "batch_norm"),
)

UPERNET_SMP = Layout(
    name="upernet/smp",
    component=UPERNET,
    table="""
for i:
    decoder.feature_norms.{i} = norm{i}
for i:
    decoder.psp.blocks.{i}.1.0 = pool{i}.conv
    decoder.psp.blocks.{i}.1.1 = pool{i}.bn
decoder.psp.out_conv.0 = pooled.conv
decoder.psp.out_conv.1 = pooled.bn
for i reversed:
    decoder.fpn_lateral_blocks.{2-i}.conv_norm_relu.0 = lateral{i}.conv
    decoder.fpn_lateral_blocks.{2-i}.conv_norm_relu.1 = lateral{i}.bn
for i reversed:
    decoder.fpn_conv_blocks.{2-i}.0 = fpn{i}.conv
    decoder.fpn_conv_blocks.{2-i}.1 = fpn{i}.bn
decoder.fusion_block.0 = fuse.conv
decoder.fusion_block.1 = fuse.bn
segmentation_head.0 = classifier
""",
)

LAYOUTS = (UPERNET_MMSEG, UPERNET_TRANSFORMERS, UPERNET_SMP)
