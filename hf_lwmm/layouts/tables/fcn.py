"""FCN's head of plain convolutions, also as the auxiliary head that helps other networks to train."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout
from hf_lwmm.layouts.tables.resnet import RESNET

_OUTLINE = """
for i:
    conv{i}.conv
    conv{i}.bn
joined.conv
joined.bn
classifier (classes)
"""

FCN = Component(name="fcn", kind="head", title="FCN head", outline=_OUTLINE)
AUXILIARY = Component(name="auxiliary", kind="head", title="auxiliary head", outline=_OUTLINE)

_MMSEG = """
conv_seg = classifier
for i:
    convs.{i}.conv = conv{i}.conv
    convs.{i}.bn = conv{i}.bn
? conv_cat.conv = joined.conv
? conv_cat.bn = joined.bn
"""

FCN_MMSEG = Layout(name="fcn/mmseg", component=FCN, prefixes=("decode_head.",), table=_MMSEG)

FCN_MICROSOFT = Layout(  # HRNet's segmenter, whose convolution has a bias
    name="fcn/microsoft",
    component=FCN,
    prefixes=("last_layer.",),
    table="0 = conv0.conv\n1 = conv0.bn\n3 = classifier",
)

FCN_TORCHVISION = Layout(
    name="fcn/torchvision",
    component=FCN,
    prefixes=("classifier.",),
    beside=RESNET,
    table="0 = conv0.conv\n1 = conv0.bn\n4 = classifier",
)

AUXILIARY_MMSEG = Layout(name="auxiliary/mmseg", component=AUXILIARY, prefixes=("auxiliary_head.",), table=_MMSEG)

AUXILIARY_TRANSFORMERS = Layout(
    name="auxiliary/transformers",
    component=AUXILIARY,
    prefixes=("auxiliary_head.",),
    also=("transformers-runtime", "transformers-backbone"),
    table="""
for i:
    convs.{i}.conv = conv{i}.conv
    convs.{i}.batch_norm = conv{i}.bn
classifier = classifier
""",
)

AUXILIARY_TORCHVISION = Layout(
    name="auxiliary/torchvision",
    component=AUXILIARY,
    prefixes=("aux_classifier.",),
    table="0 = conv0.conv\n1 = conv0.bn\n4 = classifier",
)

LAYOUTS = (FCN_MMSEG, FCN_MICROSOFT, FCN_TORCHVISION, AUXILIARY_MMSEG, AUXILIARY_TRANSFORMERS, AUXILIARY_TORCHVISION)
