"""RegNetX and RegNetY, in timm, torchvision and transformers. RegNetY squeezes and excites channels in its blocks."""

from __future__ import annotations

from collections.abc import Callable

from hf_lwmm.layouts.forms import Shape
from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

REGNET = Component(
    name="regnet",
    kind="backbone",
    title="RegNet",
    variants=(  # X and Y have the same blocks and widths where no letter is named
        Variant("RegNet-200MF", (1, 1, 4, 7), 368),
        Variant("RegNetX-400MF", (1, 2, 7, 12), 384),
        Variant("RegNetX-600MF", (1, 3, 5, 7), 528),
        Variant("RegNetX-800MF", (1, 3, 7, 5), 672),
        Variant("RegNetX-1.6GF", (2, 4, 10, 2), 912),
        Variant("RegNetX-3.2GF", (2, 6, 15, 2), 1008),
        Variant("RegNetX-4GF", (2, 5, 14, 2), 1360),
        Variant("RegNetX-6.4GF", (2, 4, 10, 1), 1624),
        Variant("RegNetX-8GF", (2, 5, 15, 1), 1920),
        Variant("RegNet-12GF", (2, 5, 11, 1), 2240),
        Variant("RegNetX-16GF", (2, 6, 13, 1), 2048),
        Variant("RegNetX-32GF", (2, 7, 13, 1), 2520),
        Variant("RegNetY-400MF", (1, 3, 6, 6), 440),
        Variant("RegNetY-600MF", (1, 3, 7, 4), 608),
        Variant("RegNetY-800MF", (1, 3, 8, 2), 768),
        Variant("RegNetY-1.6GF", (2, 6, 17, 2), 888),
        Variant("RegNetY-3.2GF", (2, 5, 13, 1), 1512),
        Variant("RegNetY-4GF", (2, 6, 12, 2), 1088),
        Variant("RegNetY-6.4GF", (2, 7, 14, 2), 1296),
        Variant("RegNetY-8GF", (2, 4, 10, 1), 2016),
        Variant("RegNetY-16GF", (2, 4, 11, 1), 3024),
        Variant("RegNetY-32GF", (2, 5, 12, 1), 3712),
    ),
    width_slot="regnet.stage3.block0.downsample.conv.weight",
    outline="""
stem.conv
stem.bn
for s:
    for b:
        stage{s}.block{b}.conv1
        stage{s}.block{b}.bn1
        stage{s}.block{b}.conv2
        stage{s}.block{b}.bn2
        stage{s}.block{b}.squeeze.reduce
        stage{s}.block{b}.squeeze.expand
        stage{s}.block{b}.conv3
        stage{s}.block{b}.bn3
        stage{s}.block{b}.downsample.conv
        stage{s}.block{b}.downsample.bn
""",
)

REGNET_TIMM = Layout(
    name="regnet/timm",
    component=REGNET,
    prefixes=("", "encoder.model.", "backbone."),
    table="""
stem.conv = stem.conv
stem.bn = stem.bn
for s:
    for b:
        s{s+1}.b{b+1}.conv1.conv = stage{s}.block{b}.conv1
        s{s+1}.b{b+1}.conv1.bn = stage{s}.block{b}.bn1
        s{s+1}.b{b+1}.conv2.conv = stage{s}.block{b}.conv2
        s{s+1}.b{b+1}.conv2.bn = stage{s}.block{b}.bn2
        ? s{s+1}.b{b+1}.se.fc1 = stage{s}.block{b}.squeeze.reduce
        ? s{s+1}.b{b+1}.se.fc2 = stage{s}.block{b}.squeeze.expand
        s{s+1}.b{b+1}.conv3.conv = stage{s}.block{b}.conv3
        s{s+1}.b{b+1}.conv3.bn = stage{s}.block{b}.bn3
        s{s+1}.b{b+1}.downsample.conv = stage{s}.block{b}.downsample.conv
        s{s+1}.b{b+1}.downsample.bn = stage{s}.block{b}.downsample.bn
""",
)

REGNET_TORCHVISION = Layout(
    name="regnet/torchvision",
    component=REGNET,
    table="""
stem.0 = stem.conv
stem.1 = stem.bn
for s:
    for b:
        trunk_output.block{s+1}.block{s+1}-{b}.proj.0 = stage{s}.block{b}.downsample.conv
        trunk_output.block{s+1}.block{s+1}-{b}.proj.1 = stage{s}.block{b}.downsample.bn
        trunk_output.block{s+1}.block{s+1}-{b}.f.a.0 = stage{s}.block{b}.conv1
        trunk_output.block{s+1}.block{s+1}-{b}.f.a.1 = stage{s}.block{b}.bn1
        trunk_output.block{s+1}.block{s+1}-{b}.f.b.0 = stage{s}.block{b}.conv2
        trunk_output.block{s+1}.block{s+1}-{b}.f.b.1 = stage{s}.block{b}.bn2
        ? trunk_output.block{s+1}.block{s+1}-{b}.f.se.fc1 = stage{s}.block{b}.squeeze.reduce
        ? trunk_output.block{s+1}.block{s+1}-{b}.f.se.fc2 = stage{s}.block{b}.squeeze.expand
        trunk_output.block{s+1}.block{s+1}-{b}.f.c.0 = stage{s}.block{b}.conv3
        trunk_output.block{s+1}.block{s+1}-{b}.f.c.1 = stage{s}.block{b}.bn3
""",
)

_TRANSFORMERS = """
embedder.embedder.convolution = stem.conv
embedder.embedder.normalization = stem.bn
for s:
    for b:
        encoder.stages.{s}.layers.{b}.shortcut.convolution = stage{s}.block{b}.downsample.conv
        encoder.stages.{s}.layers.{b}.shortcut.normalization = stage{s}.block{b}.downsample.bn
        encoder.stages.{s}.layers.{b}.layer.0.convolution = stage{s}.block{b}.conv1
        encoder.stages.{s}.layers.{b}.layer.0.normalization = stage{s}.block{b}.bn1
        encoder.stages.{s}.layers.{b}.layer.1.convolution = stage{s}.block{b}.conv2
        encoder.stages.{s}.layers.{b}.layer.1.normalization = stage{s}.block{b}.bn2
"""

REGNETY_TRANSFORMERS = Layout(
    name="regnet/transformers-y",
    component=REGNET,
    prefixes=("regnet.", ""),
    also=("transformers",),
    table=_TRANSFORMERS
    + """
        encoder.stages.{s}.layers.{b}.layer.2.attention.0 = stage{s}.block{b}.squeeze.reduce
        encoder.stages.{s}.layers.{b}.layer.2.attention.2 = stage{s}.block{b}.squeeze.expand
        encoder.stages.{s}.layers.{b}.layer.3.convolution = stage{s}.block{b}.conv3
        encoder.stages.{s}.layers.{b}.layer.3.normalization = stage{s}.block{b}.bn3
""",
)


def _has_regnets_stem(shape_of: Callable[[str], Shape]) -> bool:
    return shape_of("stem.conv.weight")[2:] == (3, 3)


REGNETX_TRANSFORMERS = Layout(  # ResNets have the same names
    name="regnet/transformers-x",
    component=REGNET,
    prefixes=("regnet.", ""),
    told_by=_has_regnets_stem,
    also=("transformers",),
    table=_TRANSFORMERS
    + """
        encoder.stages.{s}.layers.{b}.layer.2.convolution = stage{s}.block{b}.conv3
        encoder.stages.{s}.layers.{b}.layer.2.normalization = stage{s}.block{b}.bn3
""",
)

_CLASSIFIERS = {"timm": "head.fc", "torchvision": "fc", "transformers": "classifier.1"}

LAYOUTS = (REGNET_TIMM, REGNET_TORCHVISION, REGNETY_TRANSFORMERS, REGNETX_TRANSFORMERS)
HEADS = tuple(
    Layout(
        name=f"imagenet/regnet-{code_base}",
        component=IMAGENET,
        beside=REGNET,
        table=f"{name} = classifier",
        also=(code_base,),
    )
    for code_base, name in _CLASSIFIERS.items()
)
