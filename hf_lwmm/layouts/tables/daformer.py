"""DAFormer's context-aware decode head, on its own (DAFormer, EDAPS) or inside HRDA's (HRDA, MIC, PiPa)."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout

DAFORMER_HEAD = Component(
    name="daformer",
    kind="head",
    title="DAFormer head",
    outline="""
for i:
    embed{i}.proj
for i:
    aspp{i}.conv
    aspp{i}.bn
    aspp{i}.depthwise.conv
    aspp{i}.depthwise.bn
    aspp{i}.pointwise.conv
    aspp{i}.pointwise.bn
bottleneck.conv
bottleneck.bn
classifier (classes)
""",
)

_TABLE = """
conv_seg = classifier
for i:
    embed_layers.{i}.proj = embed{i}.proj
for i:
    fuse_layer.aspp_modules.{i}.conv = aspp{i}.conv
    fuse_layer.aspp_modules.{i}.bn = aspp{i}.bn
    fuse_layer.aspp_modules.{i}.depthwise_conv.conv = aspp{i}.depthwise.conv
    fuse_layer.aspp_modules.{i}.depthwise_conv.bn = aspp{i}.depthwise.bn
    fuse_layer.aspp_modules.{i}.pointwise_conv.conv = aspp{i}.pointwise.conv
    fuse_layer.aspp_modules.{i}.pointwise_conv.bn = aspp{i}.pointwise.bn
fuse_layer.bottleneck.conv = bottleneck.conv
fuse_layer.bottleneck.bn = bottleneck.bn
"""

DAFORMER = Layout(
    name="daformer/daformer", component=DAFORMER_HEAD, prefixes=("decode_head.",), table=_TABLE, also=("edaps",)
)
DAFORMER_IN_HRDA = Layout(
    name="daformer/hrda", component=DAFORMER_HEAD, prefixes=("decode_head.head.",), table=_TABLE, also=("mic", "pipa")
)

SCALE_ATTENTION = Component(
    name="scale_attention",
    kind="head",
    title="HRDA scale attention",
    outline="""
for i:
    embed{i}.proj
fuse.conv
fuse.bn
classifier (classes)
""",
)

HRDA_SCALE_ATTENTION = Layout(
    name="scale_attention/hrda",
    component=SCALE_ATTENTION,
    prefixes=("decode_head.scale_attention.",),
    also=("mic", "pipa"),
    table="""
conv_seg = classifier
for i:
    embed_layers.{i}.proj = embed{i}.proj
fuse_layer.conv = fuse.conv
fuse_layer.bn = fuse.bn
""",
)

# PiPa trains with contrastive losses on these heads; the finished model does not use them.
CONTRAST_HEADS = Component(
    name="pipa",
    kind="head",
    title="PiPa training heads",
    outline="""
cls.conv (unused)
cls.bn (unused)
cls.classifier (unused)
proj.conv (unused)
proj.bn (unused)
proj.out (unused)
""",
)

PIPA_CONTRAST_HEADS = Layout(
    name="pipa/pipa",
    component=CONTRAST_HEADS,
    table="""
cls_head.0 = cls.conv
cls_head.1.0 = cls.bn
cls_head.3 = cls.classifier
proj_head.proj.0 = proj.conv
proj_head.proj.1.0 = proj.bn
proj_head.proj.2 = proj.out
""",
)

LAYOUTS = (DAFORMER, DAFORMER_IN_HRDA, HRDA_SCALE_ATTENTION, PIPA_CONTRAST_HEADS)
