"""ResNet-C and ResNet-D: ResNets whose stem is three convolutions, as in MMSegmentation 1.x (V1c, V1d) and timm.

ResNet-D also pools before the convolution of a shortcut, so that this has another stride.
"""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET
from hf_lwmm.layouts.tables.resnet import RESNET, STAGES

_STEM = """
stem.conv0
stem.bn0
stem.conv1
stem.bn1
stem.conv2
stem.bn2
"""


def _component(letter: str) -> Component:
    return Component(
        name=f"resnet_{letter.lower()}",
        kind="backbone",
        title=f"ResNet-{letter}",
        variants=tuple(Variant(each.name + letter, each.depths, each.width) for each in RESNET.variants),
        width_slot=f"resnet_{letter.lower()}.stage3.block0.downsample.conv.weight",
        outline=_STEM
        + "\n".join(line for line in RESNET.outline.splitlines() if "stem" not in line and "aux" not in line).replace(
            "    for i:", ""
        ),
    )


RESNET_C, RESNET_D = _component("C"), _component("D")

_POOLED = STAGES.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1")

_MMSEG = """
stem.0 = stem.conv0
stem.1 = stem.bn0
stem.3 = stem.conv1
stem.4 = stem.bn1
stem.6 = stem.conv2
stem.7 = stem.bn2
"""

_TIMM = """
conv1.0 = stem.conv0
conv1.1 = stem.bn0
conv1.3 = stem.conv1
conv1.4 = stem.bn1
conv1.6 = stem.conv2
bn1 = stem.bn2
"""

_CODE_BASES = {"timm": (("", "encoder.model.", "backbone."), _TIMM), "mmseg": (("backbone.", ""), _MMSEG)}

LAYOUTS = tuple(
    Layout(name=f"{component.name}/{code_base}", component=component, prefixes=prefixes, table=stem + stages)
    for component, stages in ((RESNET_C, STAGES), (RESNET_D, _POOLED))
    for code_base, (prefixes, stem) in _CODE_BASES.items()
)
HEADS = tuple(
    Layout(
        name=f"imagenet/{component.name}-timm",
        component=IMAGENET,
        beside=component,
        table="fc = classifier",
        also=("timm",),
    )
    for component in (RESNET_C, RESNET_D)
)
