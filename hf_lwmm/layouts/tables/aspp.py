"""DeepLabV3's and V3+'s heads: MMSegmentation's, and those that torchvision and segmentation_models.pytorch share.

They are different networks: kernels, the order of the joined branches and normalisations between convolutions differ.
"""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout

# Branches of V3+ are a depthwise and a pointwise convolution.
ASPP_MMSEG = Component(
    name="aspp_mmseg",
    kind="head",
    title="DeepLabV3 head of MMSegmentation",
    outline="""
pool.conv
pool.bn
for i:
    branch{i}.conv
    branch{i}.bn
    branch{i}.depthwise.conv
    branch{i}.depthwise.bn
    branch{i}.pointwise.conv
    branch{i}.pointwise.bn
bottleneck.conv
bottleneck.bn
low.conv
low.bn
for i:
    fuse{i}.depthwise.conv
    fuse{i}.depthwise.bn
    fuse{i}.pointwise.conv
    fuse{i}.pointwise.bn
classifier (classes)
""",
)

ASPP_IN_MMSEG = Layout(
    name="aspp_mmseg/mmseg",
    component=ASPP_MMSEG,
    prefixes=("decode_head.",),
    table="""
conv_seg = classifier
image_pool.1.conv = pool.conv
image_pool.1.bn = pool.bn
for i:
    aspp_modules.{i}.conv = branch{i}.conv
    aspp_modules.{i}.bn = branch{i}.bn
    ? aspp_modules.{i}.depthwise_conv.conv = branch{i}.depthwise.conv
    ? aspp_modules.{i}.depthwise_conv.bn = branch{i}.depthwise.bn
    ? aspp_modules.{i}.pointwise_conv.conv = branch{i}.pointwise.conv
    ? aspp_modules.{i}.pointwise_conv.bn = branch{i}.pointwise.bn
bottleneck.conv = bottleneck.conv
bottleneck.bn = bottleneck.bn
? c1_bottleneck.conv = low.conv
? c1_bottleneck.bn = low.bn
for i:
    ? sep_bottleneck.{i}.depthwise_conv.conv = fuse{i}.depthwise.conv
    ? sep_bottleneck.{i}.depthwise_conv.bn = fuse{i}.depthwise.bn
    ? sep_bottleneck.{i}.pointwise_conv.conv = fuse{i}.pointwise.conv
    ? sep_bottleneck.{i}.pointwise_conv.bn = fuse{i}.pointwise.bn
""",
)

_BRANCHES = """
for i:
    branch{i}.depthwise
    branch{i}.conv
    branch{i}.bn
pool.conv
pool.bn
project.conv
project.bn
"""

DEEPLABV3 = Component(
    name="deeplabv3",
    kind="head",
    title="DeepLabV3 head",
    outline=_BRANCHES + "conv\nbn\nclassifier (classes)",
)

DEEPLABV3_PLUS = Component(
    name="deeplabv3plus",
    kind="head",
    title="DeepLabV3+ head",
    outline=_BRANCHES
    + """
up.depthwise
up.conv
up.bn
low.conv
low.bn
fuse.depthwise
fuse.conv
fuse.bn
classifier (classes)
""",
)


def _pyramid(separable: bool) -> str:
    """The four branches, the pooling and their projection; all branches but the first may be separable."""
    lines = []
    for i in range(4):
        if separable and i:
            lines += [f"convs.{i}.0.0 = branch{i}.depthwise", f"convs.{i}.0.1 = branch{i}.conv"]
        else:
            lines.append(f"convs.{i}.0 = branch{i}.conv")
        lines.append(f"convs.{i}.1 = branch{i}.bn")
    rest = ("convs.4.1 = pool.conv", "convs.4.2 = pool.bn", "project.0 = project.conv", "project.1 = project.bn")
    return "\n".join(f"PYRAMID.{line}" for line in (*lines, *rest))


DEEPLABV3_TORCHVISION = Layout(
    name="deeplabv3/torchvision",
    component=DEEPLABV3,
    table=_pyramid(separable=False).replace("PYRAMID", "classifier.0")
    + "\nclassifier.1 = conv\nclassifier.2 = bn\nclassifier.4 = classifier",
)

DEEPLABV3_SMP = Layout(
    name="deeplabv3/smp",
    component=DEEPLABV3,
    table=_pyramid(separable=False).replace("PYRAMID", "decoder.aspp")
    + "\ndecoder.conv = conv\ndecoder.bn = bn\nsegmentation_head.0 = classifier",
)

DEEPLABV3_PLUS_SMP = Layout(
    name="deeplabv3plus/smp",
    component=DEEPLABV3_PLUS,
    table=_pyramid(separable=True).replace("PYRAMID", "decoder.aspp.0")
    + """
decoder.aspp.1.0 = up.depthwise
decoder.aspp.1.1 = up.conv
decoder.aspp.2 = up.bn
decoder.block1.0 = low.conv
decoder.block1.1 = low.bn
decoder.block2.0.0 = fuse.depthwise
decoder.block2.0.1 = fuse.conv
decoder.block2.1 = fuse.bn
segmentation_head.0 = classifier
""",
)

LAYOUTS = (ASPP_IN_MMSEG, DEEPLABV3_TORCHVISION, DEEPLABV3_SMP, DEEPLABV3_PLUS_SMP)
