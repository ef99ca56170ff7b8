"""MobileNetV3, in timm (also its features, in smp) and torchvision.

torchvision numbers the blocks in a single row, so that each depth has a table.
"""

from __future__ import annotations

from collections.abc import Sequence

from hf_lwmm.layouts.language import row
from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET
from hf_lwmm.layouts.tables.mbnet import MBNET, MBNET_TIMM

# The first stage does not expand, the last one is a convolution and its normalisation. `fc` follows the pooling.
MOBILENETV3 = Component(
    name="mobilenetv3",
    kind="backbone",
    title="MobileNetV3",
    variants=(Variant("MobileNetV3-L", (1, 2, 3, 4, 2, 3, 1)), Variant("MobileNetV3-S", (1, 2, 3, 2, 3, 1))),
    outline=MBNET.outline.replace("top.conv\ntop.bn", "fc").replace(
        "        stage{s}.block{b}.expand.bn", "        stage{s}.block{b}.conv\n        stage{s}.block{b}.expand.bn"
    ),
)

MOBILENETV3_TIMM = Layout(
    name="mobilenetv3/timm",
    component=MOBILENETV3,
    prefixes=MBNET_TIMM.prefixes,
    table=MBNET_TIMM.table.replace("? conv_head = top.conv (1x1)\n? bn2 = top.bn", "? conv_head = fc (1x1)").replace(
        "        blocks.{s+1}.{b}.bn1",
        "        blocks.{s+1}.{b}.conv = stage{s+1}.block{b}.conv\n        blocks.{s+1}.{b}.bn1",
    ),
)

_SQUEEZE = """
        NAME.squeeze.fc1 = stage{s}.block{b}.squeeze.reduce
        NAME.squeeze.fc2 = stage{s}.block{b}.squeeze.expand
"""
_EXPANDING = """
for s:
    for b:
        NAME.0.0 = stage{s}.block{b}.expand.conv
        NAME.0.1 = stage{s}.block{b}.expand.bn
        NAME.1.0 = stage{s}.block{b}.depthwise.conv
        NAME.1.1 = stage{s}.block{b}.depthwise.bn
"""
_PROJECT = """
        NAME.LAST.0 = stage{s}.block{b}.project.conv
        NAME.LAST.1 = stage{s}.block{b}.project.bn
"""


def _mobilenetv3(size: str, depths: Sequence[int], squeezing: Sequence[int], prefix: str = "features.") -> str:
    """The table of torchvision's network; blocks of the stages that are `squeezing` have another layer in them."""
    first = "FIRST.0.0 = stage0.block0.depthwise.conv\nFIRST.0.1 = stage0.block0.depthwise.bn\n"
    last = 1
    if 0 in squeezing:
        first += "FIRST.1.fc1 = stage0.block0.squeeze.reduce\nFIRST.1.fc2 = stage0.block0.squeeze.expand\n"
        last = 2
    first += f"FIRST.{last}.0 = stage0.block0.project.conv\nFIRST.{last}.1 = stage0.block0.project.bn\n"
    groups = []
    for stage in range(1, len(depths)):
        name = f"{prefix}{row(depths, [stage], 1)}.block"
        squeeze = _SQUEEZE.replace("squeeze.fc", "2.fc") if stage in squeezing else ""
        block = _EXPANDING + squeeze + _PROJECT.replace("LAST", "3" if squeeze else "2")
        groups.append(block.replace("NAME", name))
    end, stage = f"{prefix}{sum(depths) + 1}", len(depths)
    return f"""
{prefix}0.0 = stem.conv
{prefix}0.1 = stem.bn
{first.replace("FIRST", prefix + "1.block")}
{"".join(groups)}
{end}.0 = stage{stage}.block0.conv
{end}.1 = stage{stage}.block0.expand.bn
"""


_LARGE = ("large", (1, 2, 3, 4, 2, 3), (2, 4, 5))
_SMALL = ("small", (1, 2, 3, 2, 3), (0, 2, 3, 4))

MOBILENETV3_TORCHVISION = tuple(
    Layout(
        name=f"mobilenetv3/torchvision-{size[0]}",
        component=MOBILENETV3,
        also=("torchvision",),
        table=_mobilenetv3(*size) + "? classifier.0 = fc",
    )
    for size in (_LARGE, _SMALL)
)

MOBILENETV3_BACKBONE = Layout(  # in torchvision's segmenters
    name="mobilenetv3/torchvision-backbone",
    component=MOBILENETV3,
    prefixes=("backbone.",),
    table=_mobilenetv3(*_LARGE, prefix=""),
)

IMAGENET_TORCHVISION = Layout(
    name="imagenet/mobilenetv3-torchvision",
    component=IMAGENET,
    beside=MOBILENETV3,
    table="classifier.3 = classifier",
    also=("torchvision",),
)

IMAGENET_TIMM = Layout(
    name="imagenet/mobilenetv3-timm",
    component=IMAGENET,
    beside=MOBILENETV3,
    table="classifier = classifier",
    also=("timm",),
)

LAYOUTS = (MOBILENETV3_TIMM, *MOBILENETV3_TORCHVISION, MOBILENETV3_BACKBONE)
HEADS = (IMAGENET_TORCHVISION, IMAGENET_TIMM)
