"""DeepLabV2's classifier of parallel dilated convolutions, and DIGA's larger one.

The auxiliary classifier of the multi-level models runs in the middle of the backbone, so ResNet's tables have it.
"""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout

DEEPLAB_HEAD = Component(
    name="deeplab",
    kind="head",
    title="DeepLabV2 head",
    outline="""
for i:
    branch{i} (classes)
""",
)

DEEPLAB_LAYER6 = Layout(  # ADVENT, MinEnt, AdaptSegNet, MaxSquare
    name="deeplab/layer6",
    component=DEEPLAB_HEAD,
    table="for i:\n    layer6.conv2d_list.{i} = branch{i}",
    also=("advent", "minent", "adaptsegnet", "maxsquare"),
)

# In a file with both, layer5 is the auxiliary classifier. Both layouts know equally many names there, and the first
# one listed is chosen.
DEEPLAB_SINGLE_LAYER5 = Layout(
    name="deeplab/single-layer5", component=DEEPLAB_HEAD, table="for i:\n    layer5.conv2d_list.{i} = branch{i}"
)

DEEPLAB_CLASSIFIER = Layout(  # FADA, which keeps its classifier in a separate file, and AdaptSegNet on VGG-16
    name="deeplab/classifier",
    component=DEEPLAB_HEAD,
    prefixes=("classifier.", ""),
    also=("fada", "adaptsegnet-vgg"),
    table="for i:\n    conv2d_list.{i} = branch{i}",
)

DIGA_HEAD = Component(
    name="diga",
    kind="head",
    title="DIGA head",
    outline="""
for i:
    branch{i}.conv
    branch{i}.norm
squeeze.fc1
squeeze.fc2
bottleneck.conv
bottleneck.norm
classifier (classes)
""",
)

DIGA = Layout(
    name="diga/diga",
    component=DIGA_HEAD,
    prefixes=("final.",),
    table="""
for i:
    conv2d_list.{i}.0 = branch{i}.conv
    conv2d_list.{i}.1 = branch{i}.norm
bottleneck.0.se.0 = squeeze.fc1
bottleneck.0.se.2 = squeeze.fc2
bottleneck.1 = bottleneck.conv
bottleneck.2 = bottleneck.norm
head.1 = classifier
""",
)

LAYOUTS = (DEEPLAB_LAYER6, DEEPLAB_SINGLE_LAYER5, DEEPLAB_CLASSIFIER, DIGA)
