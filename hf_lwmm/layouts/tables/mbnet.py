"""MobileNetV2, EfficientNet and their kin, in timm, torchvision, transformers and smp.

All are stages of inverted residual blocks, which timm calls by the same names in every network. The others number the
blocks of most networks in a single row, so that each depth has a table.
"""

from __future__ import annotations

from collections.abc import Sequence

from hf_lwmm.layouts.language import row
from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

_V2 = (1, 2, 3, 4, 3, 3, 1)
_B0 = (1, 2, 2, 3, 3, 4, 1)
_B1 = (2, 3, 3, 4, 4, 5, 2)
_EFFICIENTNETS = {
    "B0": _B0,
    "B1": _B1,
    "B3": (2, 3, 3, 5, 5, 6, 2),
    "B4": (2, 4, 4, 6, 6, 8, 2),
    "B5": (3, 5, 5, 7, 7, 9, 3),
    "B6": (3, 6, 6, 8, 8, 11, 3),
    "B7": (4, 7, 7, 10, 10, 13, 4),
}

# The blocks of the first stage do not expand.
MBNET = Component(
    name="mbnet",
    kind="backbone",
    title="MBConv network",
    variants=(
        Variant("MobileNetV2", _V2),
        Variant("EfficientNet-B2", _B1, 1408),
        *(Variant(f"EfficientNet-{name}", depths) for name, depths in _EFFICIENTNETS.items()),
    ),
    width_slot="mbnet.top.conv.weight",
    outline="""
stem.conv
stem.bn
for s:
    for b:
        stage{s}.block{b}.expand.conv
        stage{s}.block{b}.expand.bn
        stage{s}.block{b}.depthwise.conv
        stage{s}.block{b}.depthwise.bn
        stage{s}.block{b}.squeeze.reduce
        stage{s}.block{b}.squeeze.expand
        stage{s}.block{b}.project.conv
        stage{s}.block{b}.project.bn
top.conv
top.bn
""",
)

# Stages of whole blocks, which EfficientNetV2 has later, and what is behind them in timm.
TIMM_STAGES = """
for s:
    for b:
        blocks.{s+1}.{b}.conv_pw = stage{s+1}.block{b}.expand.conv
        blocks.{s+1}.{b}.bn1 = stage{s+1}.block{b}.expand.bn
        blocks.{s+1}.{b}.conv_dw = stage{s+1}.block{b}.depthwise.conv
        blocks.{s+1}.{b}.bn2 = stage{s+1}.block{b}.depthwise.bn
        ? blocks.{s+1}.{b}.se.conv_reduce = stage{s+1}.block{b}.squeeze.reduce
        ? blocks.{s+1}.{b}.se.conv_expand = stage{s+1}.block{b}.squeeze.expand
        blocks.{s+1}.{b}.conv_pwl = stage{s+1}.block{b}.project.conv
        blocks.{s+1}.{b}.bn3 = stage{s+1}.block{b}.project.bn
? conv_head = top.conv (1x1)
? bn2 = top.bn
"""
TORCHVISION_STAGES = """
for s:
    for b:
        features.{s+2}.{b}.block.0.0 = stage{s+1}.block{b}.expand.conv
        features.{s+2}.{b}.block.0.1 = stage{s+1}.block{b}.expand.bn
        features.{s+2}.{b}.block.1.0 = stage{s+1}.block{b}.depthwise.conv
        features.{s+2}.{b}.block.1.1 = stage{s+1}.block{b}.depthwise.bn
        features.{s+2}.{b}.block.2.fc1 = stage{s+1}.block{b}.squeeze.reduce
        features.{s+2}.{b}.block.2.fc2 = stage{s+1}.block{b}.squeeze.expand
        features.{s+2}.{b}.block.3.0 = stage{s+1}.block{b}.project.conv
        features.{s+2}.{b}.block.3.1 = stage{s+1}.block{b}.project.bn
"""

MBNET_TIMM = Layout(
    name="mbnet/timm",
    component=MBNET,
    prefixes=("", "encoder.model.", "encoder.", "backbone."),
    table="""
conv_stem = stem.conv
bn1 = stem.bn
for b:
    blocks.0.{b}.conv_dw = stage0.block{b}.depthwise.conv
    blocks.0.{b}.bn1 = stage0.block{b}.depthwise.bn
    ? blocks.0.{b}.se.conv_reduce = stage0.block{b}.squeeze.reduce
    ? blocks.0.{b}.se.conv_expand = stage0.block{b}.squeeze.expand
    blocks.0.{b}.conv_pw = stage0.block{b}.project.conv
    blocks.0.{b}.bn2 = stage0.block{b}.project.bn
"""
    + TIMM_STAGES,
)

MBNET_TORCHVISION = Layout(  # EfficientNet
    name="mbnet/torchvision",
    component=MBNET,
    table="""
features.0.0 = stem.conv
features.0.1 = stem.bn
for b:
    features.1.{b}.block.0.0 = stage0.block{b}.depthwise.conv
    features.1.{b}.block.0.1 = stage0.block{b}.depthwise.bn
    features.1.{b}.block.1.fc1 = stage0.block{b}.squeeze.reduce
    features.1.{b}.block.1.fc2 = stage0.block{b}.squeeze.expand
    features.1.{b}.block.2.0 = stage0.block{b}.project.conv
    features.1.{b}.block.2.1 = stage0.block{b}.project.bn
"""
    + TORCHVISION_STAGES
    + """
features.8.0 = top.conv (1x1)
features.8.1 = top.bn
""",
)


_LATER = row(_V2, range(1, 7), 1)

MOBILENETV2_TORCHVISION = Layout(
    name="mbnet/torchvision-mobilenetv2",
    component=MBNET,
    prefixes=("", "encoder."),  # smp has the longer one
    also=("torchvision", "smp"),
    table=f"""
features.0.0 = stem.conv
features.0.1 = stem.bn
features.1.conv.0.0 = stage0.block0.depthwise.conv
features.1.conv.0.1 = stage0.block0.depthwise.bn
features.1.conv.1 = stage0.block0.project.conv
features.1.conv.2 = stage0.block0.project.bn
for s:
    for b:
        features.{_LATER}.conv.0.0 = stage{{s}}.block{{b}}.expand.conv
        features.{_LATER}.conv.0.1 = stage{{s}}.block{{b}}.expand.bn
        features.{_LATER}.conv.1.0 = stage{{s}}.block{{b}}.depthwise.conv
        features.{_LATER}.conv.1.1 = stage{{s}}.block{{b}}.depthwise.bn
        features.{_LATER}.conv.2 = stage{{s}}.block{{b}}.project.conv
        features.{_LATER}.conv.3 = stage{{s}}.block{{b}}.project.bn
features.18.0 = top.conv (1x1)
features.18.1 = top.bn
""",
)

_LATER = row((0, *_V2[1:]), range(1, 7))

MOBILENETV2_TRANSFORMERS = Layout(
    name="mbnet/transformers-mobilenetv2",
    component=MBNET,
    prefixes=("mobilenet_v2.", ""),
    also=("transformers",),
    table=f"""
conv_stem.first_conv.convolution = stem.conv
conv_stem.first_conv.normalization = stem.bn
conv_stem.conv_3x3.convolution = stage0.block0.depthwise.conv
conv_stem.conv_3x3.normalization = stage0.block0.depthwise.bn
conv_stem.reduce_1x1.convolution = stage0.block0.project.conv
conv_stem.reduce_1x1.normalization = stage0.block0.project.bn
for s:
    for b:
        layer.{_LATER}.expand_1x1.convolution = stage{{s}}.block{{b}}.expand.conv
        layer.{_LATER}.expand_1x1.normalization = stage{{s}}.block{{b}}.expand.bn
        layer.{_LATER}.conv_3x3.convolution = stage{{s}}.block{{b}}.depthwise.conv
        layer.{_LATER}.conv_3x3.normalization = stage{{s}}.block{{b}}.depthwise.bn
        layer.{_LATER}.reduce_1x1.convolution = stage{{s}}.block{{b}}.project.conv
        layer.{_LATER}.reduce_1x1.normalization = stage{{s}}.block{{b}}.project.bn
? conv_1x1.convolution = top.conv (1x1)
? conv_1x1.normalization = top.bn
""",
)

_TRANSFORMERS = """
embeddings.convolution = stem.conv
embeddings.batchnorm = stem.bn
for s:
    for b:
        encoder.blocks.LATER.expansion.expand_conv = stage{s}.block{b}.expand.conv
        encoder.blocks.LATER.expansion.expand_bn = stage{s}.block{b}.expand.bn
        encoder.blocks.ANY.depthwise_conv.depthwise_conv = stage{s}.block{b}.depthwise.conv
        encoder.blocks.ANY.depthwise_conv.depthwise_norm = stage{s}.block{b}.depthwise.bn
        encoder.blocks.ANY.squeeze_excite.reduce = stage{s}.block{b}.squeeze.reduce
        encoder.blocks.ANY.squeeze_excite.expand = stage{s}.block{b}.squeeze.expand
        encoder.blocks.ANY.projection.project_conv = stage{s}.block{b}.project.conv
        encoder.blocks.ANY.projection.project_bn = stage{s}.block{b}.project.bn
encoder.blocks.LAST.projection.project_conv  # required, since the tables of smaller networks fit, too
encoder.top_conv = top.conv (1x1)
encoder.top_bn = top.bn
"""

_SMP = """
_conv_stem = stem.conv
_bn0 = stem.bn
for s:
    for b:
        _blocks.LATER._expand_conv = stage{s}.block{b}.expand.conv
        _blocks.LATER._bn0 = stage{s}.block{b}.expand.bn
        _blocks.ANY._depthwise_conv = stage{s}.block{b}.depthwise.conv
        _blocks.ANY._bn1 = stage{s}.block{b}.depthwise.bn
        _blocks.ANY._se_reduce = stage{s}.block{b}.squeeze.reduce
        _blocks.ANY._se_expand = stage{s}.block{b}.squeeze.expand
        _blocks.ANY._project_conv = stage{s}.block{b}.project.conv
        _blocks.ANY._bn2 = stage{s}.block{b}.project.bn
_blocks.LAST._project_conv  # required, since the tables of smaller networks fit, too
? _conv_head = top.conv (1x1)
? _bn1 = top.bn
"""


def _efficientnet(table: str, depths: Sequence[int]) -> str:
    later, every, last = row(depths, range(1, 7)), row(depths, range(7)), sum(depths) - 1
    return table.replace("LATER", later).replace("ANY", every).replace("LAST", str(last))


EFFICIENTNET_TRANSFORMERS, EFFICIENTNET_SMP = (
    tuple(
        Layout(
            name=f"mbnet/{code_base}-{name.lower()}",
            component=MBNET,
            prefixes=prefixes,
            also=(code_base,),
            table=_efficientnet(table, depths),
        )
        for name, depths in _EFFICIENTNETS.items()
    )
    for code_base, prefixes, table in (
        ("transformers", ("efficientnet.", ""), _TRANSFORMERS),
        ("smp", ("encoder.", ""), _SMP),
    )
)

IMAGENET_TORCHVISION = Layout(
    name="imagenet/mbnet-torchvision",
    component=IMAGENET,
    beside=MBNET,
    table="classifier.1 = classifier",
    also=("torchvision",),
)

IMAGENET_TIMM = Layout(
    name="imagenet/mbnet-timm",
    component=IMAGENET,
    beside=MBNET,
    table="classifier = classifier",
    also=("timm", "transformers"),
)

LAYOUTS = (
    MBNET_TIMM,
    MBNET_TORCHVISION,
    MOBILENETV2_TORCHVISION,
    MOBILENETV2_TRANSFORMERS,
    *EFFICIENTNET_TRANSFORMERS,
    *EFFICIENTNET_SMP,
)
HEADS = (IMAGENET_TORCHVISION, IMAGENET_TIMM)
