"""VGG-16: the original (torchvision, timm, smp), and DeepLab's without the last pooling layer (AdaptSegNet, FADA)."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant

# DeepLab's dilated layers replace the two fully connected ones; they share no weights with them.
VGG = Component(
    name="vgg",
    kind="backbone",
    title="VGG",
    variants=(Variant("VGG-16", ()),),
    outline="""
for s:
    for i:
        stage{s}.conv{i}
for i:
    dilated{i}
""",
)

# The numbers also count the ReLU and pooling layers.
_FOUR_STAGES = """
0 = stage0.conv0
2 = stage0.conv1
5 = stage1.conv0
7 = stage1.conv1
10 = stage2.conv0
12 = stage2.conv1
14 = stage2.conv2
17 = stage3.conv0
19 = stage3.conv1
21 = stage3.conv2
"""

_PLAIN = f"""{_FOUR_STAGES}
24 = stage4.conv0
26 = stage4.conv1
28 = stage4.conv2
"""

_DILATED = f"""{_FOUR_STAGES}
23 = stage4.conv0
25 = stage4.conv1
27 = stage4.conv2
29 = dilated0
31 = dilated1
"""

VGG_TORCHVISION = Layout(name="vgg/torchvision", component=VGG, prefixes=("features.",), table=_PLAIN, also=("timm",))
VGG_SMP = Layout(name="vgg/smp", component=VGG, prefixes=("encoder.features.",), table=_PLAIN)
VGG_ADAPTSEGNET = Layout(name="vgg/adaptsegnet-vgg", component=VGG, prefixes=("features.",), table=_DILATED)
VGG_FADA = Layout(  # its feature extractor in its own file has the shorter prefix
    name="vgg/fada", component=VGG, prefixes=("feature_extractor.backbone.", "backbone."), table=_DILATED
)

VGG_HEAD = Component(
    name="vgg_head",
    kind="head",
    title="VGG classifier",
    outline="""
fc1
fc2
classifier (classes)
""",
)

VGG_HEAD_TORCHVISION = Layout(
    name="vgg_head/torchvision",
    component=VGG_HEAD,
    beside=VGG,
    table="""
classifier.0 = fc1
classifier.3 = fc2
classifier.6 = classifier
""",
)

VGG_HEAD_TIMM = Layout(
    name="vgg_head/timm",
    component=VGG_HEAD,
    beside=VGG,
    table="""
pre_logits.fc1 = fc1 (7x7)
pre_logits.fc2 = fc2 (1x1)
head.fc = classifier
""",
)

LAYOUTS = (VGG_TORCHVISION, VGG_SMP, VGG_ADAPTSEGNET, VGG_FADA)
HEADS = (VGG_HEAD_TORCHVISION, VGG_HEAD_TIMM)
