"""EfficientNetV2, in timm and torchvision: plain convolutions, then fused blocks, then inverted residual blocks."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET
from hf_lwmm.layouts.tables.mbnet import MBNET, MBNET_TIMM, TIMM_STAGES, TORCHVISION_STAGES

EFFICIENTNETV2 = Component(
    name="efficientnetv2",
    kind="backbone",
    title="EfficientNetV2",
    variants=(
        Variant("EfficientNetV2-B0", (1, 2, 2, 3, 5, 8)),
        Variant("EfficientNetV2-S", (2, 4, 4, 6, 9, 15)),
        Variant("EfficientNetV2-M", (3, 5, 5, 7, 14, 18, 5)),
        Variant("EfficientNetV2-L", (4, 7, 7, 10, 19, 25, 7)),
    ),
    outline=MBNET.outline,
)

EFFICIENTNETV2_TIMM = Layout(
    name="efficientnetv2/timm",
    component=EFFICIENTNETV2,
    prefixes=MBNET_TIMM.prefixes,
    table="""
conv_stem = stem.conv
bn1 = stem.bn
for b:
    blocks.0.{b}.conv = stage0.block{b}.expand.conv
    blocks.0.{b}.bn1 = stage0.block{b}.expand.bn
for b:
    blocks.1.{b}.conv_exp = stage1.block{b}.expand.conv
    blocks.1.{b}.bn1 = stage1.block{b}.expand.bn
    blocks.1.{b}.conv_pwl = stage1.block{b}.project.conv
    blocks.1.{b}.bn2 = stage1.block{b}.project.bn
for b:
    blocks.2.{b}.conv_exp = stage2.block{b}.expand.conv
    blocks.2.{b}.bn1 = stage2.block{b}.expand.bn
    blocks.2.{b}.conv_pwl = stage2.block{b}.project.conv
    blocks.2.{b}.bn2 = stage2.block{b}.project.bn
"""
    + TIMM_STAGES.replace("s+1", "s+3").replace("? blocks", "blocks"),
)

_TORCHVISION = (
    """
features.0.0 = stem.conv
features.0.1 = stem.bn
for b:
    features.1.{b}.block.0.0 = stage0.block{b}.expand.conv
    features.1.{b}.block.0.1 = stage0.block{b}.expand.bn
for b:
    features.2.{b}.block.0.0 = stage1.block{b}.expand.conv
    features.2.{b}.block.0.1 = stage1.block{b}.expand.bn
    features.2.{b}.block.1.0 = stage1.block{b}.project.conv
    features.2.{b}.block.1.1 = stage1.block{b}.project.bn
for b:
    features.3.{b}.block.0.0 = stage2.block{b}.expand.conv
    features.3.{b}.block.0.1 = stage2.block{b}.expand.bn
    features.3.{b}.block.1.0 = stage2.block{b}.project.conv
    features.3.{b}.block.1.1 = stage2.block{b}.project.bn
"""
    + TORCHVISION_STAGES.replace("s+2", "s+4").replace("s+1", "s+3")
    + """
features.TOP.0 = top.conv (1x1)
features.TOP.1 = top.bn
"""
)

# The small network has a stage less, so that the top has another number.
EFFICIENTNETV2_TORCHVISION = tuple(
    Layout(
        name=f"efficientnetv2/torchvision-{size}",
        component=EFFICIENTNETV2,
        also=("torchvision",),
        table=_TORCHVISION.replace("TOP", top),
    )
    for size, top in (("s", "7"), ("m", "8"))
)

IMAGENET_TIMM = Layout(
    name="imagenet/efficientnetv2-timm",
    component=IMAGENET,
    beside=EFFICIENTNETV2,
    table="classifier = classifier",
    also=("timm",),
)

IMAGENET_TORCHVISION = Layout(
    name="imagenet/efficientnetv2-torchvision",
    component=IMAGENET,
    beside=EFFICIENTNETV2,
    table="classifier.1 = classifier",
    also=("torchvision",),
)

LAYOUTS = (EFFICIENTNETV2_TIMM, *EFFICIENTNETV2_TORCHVISION)
HEADS = (IMAGENET_TIMM, IMAGENET_TORCHVISION)
