"""EDAPS's instance decoders, and the names of its semantic decoder (DAFormer's head) in its bottom-up ablation."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout
from hf_lwmm.layouts.tables.daformer import DAFORMER, DAFORMER_HEAD

INSTANCE_DECODER = Component(
    name="edaps_instance",
    kind="head",
    title="EDAPS instance decoder",
    outline="""
for i:
    neck.lateral{i}
for i:
    neck.fpn{i}
rpn.conv
rpn.classifier
rpn.regression
for i:
    box.fc{i}
box.classifier
box.regression
for i:
    mask.conv{i}
mask.upsample
mask.classifier
""",
)

EDAPS_INSTANCE = Layout(
    name="edaps_instance/edaps",
    component=INSTANCE_DECODER,
    table="""
for i:
    neck.lateral_convs.{i}.conv = neck.lateral{i}
for i:
    neck.fpn_convs.{i}.conv = neck.fpn{i}
rpn_head.rpn_conv = rpn.conv
rpn_head.rpn_cls = rpn.classifier
rpn_head.rpn_reg = rpn.regression
roi_head.bbox_head.fc_cls = box.classifier
roi_head.bbox_head.fc_reg = box.regression
for i:
    roi_head.bbox_head.shared_fcs.{i} = box.fc{i}
for i:
    roi_head.mask_head.convs.{i}.conv = mask.conv{i}
roi_head.mask_head.upsample = mask.upsample
roi_head.mask_head.conv_logits = mask.classifier
""",
)

CENTER_DECODER = Component(
    name="edaps_center",
    kind="head",
    title="EDAPS centre and offset decoder",
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
center
offset
""",
)

DAFORMER_IN_BOTTOMUP = Layout(
    name="daformer/edaps-bottomup",
    component=DAFORMER_HEAD,
    prefixes=("decode_head.",),
    table=DAFORMER.table.replace("embed_layers.", "embed_layers_semantic.").replace(
        "fuse_layer.", "fuse_layer_semantic."
    ),
)

# The modules of both branches are registered in turn, so the table lists both, but has slots only for this branch.
EDAPS_CENTER = Layout(
    name="edaps_center/edaps-bottomup",
    component=CENTER_DECODER,
    prefixes=("decode_head.",),
    table="""
conv_seg
conv_center = center
conv_offset = offset
for i:
    embed_layers_semantic.{i}.proj
for i:
    fuse_layer_semantic.aspp_modules.{i}.conv
    fuse_layer_semantic.aspp_modules.{i}.bn
    fuse_layer_semantic.aspp_modules.{i}.depthwise_conv.conv
    fuse_layer_semantic.aspp_modules.{i}.depthwise_conv.bn
    fuse_layer_semantic.aspp_modules.{i}.pointwise_conv.conv
    fuse_layer_semantic.aspp_modules.{i}.pointwise_conv.bn
fuse_layer_semantic.bottleneck.conv
fuse_layer_semantic.bottleneck.bn
for i:
    embed_layers_instance.{i}.proj = embed{i}.proj
for i:
    fuse_layer_instance.aspp_modules.{i}.conv = aspp{i}.conv
    fuse_layer_instance.aspp_modules.{i}.bn = aspp{i}.bn
    fuse_layer_instance.aspp_modules.{i}.depthwise_conv.conv = aspp{i}.depthwise.conv
    fuse_layer_instance.aspp_modules.{i}.depthwise_conv.bn = aspp{i}.depthwise.bn
    fuse_layer_instance.aspp_modules.{i}.pointwise_conv.conv = aspp{i}.pointwise.conv
    fuse_layer_instance.aspp_modules.{i}.pointwise_conv.bn = aspp{i}.pointwise.bn
fuse_layer_instance.bottleneck.conv = bottleneck.conv
fuse_layer_instance.bottleneck.bn = bottleneck.bn
""",
)

# EDAPS registers its instance decoders before DAFormer's head.
INSTANCE_LAYOUTS = (EDAPS_INSTANCE, EDAPS_CENTER)
SEMANTIC_LAYOUTS = (DAFORMER_IN_BOTTOMUP,)
