"""Faster R-CNN's feature pyramid and heads on a ResNet, as in MIC's detectors, which are maskrcnn-benchmark's."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout
from hf_lwmm.layouts.tables.resnet import RESNET

FASTER_RCNN = Component(
    name="faster_rcnn",
    kind="head",
    title="Faster R-CNN head",
    outline="""
for i reversed:
    neck.lateral{i}
    neck.fpn{i}
rpn.conv
rpn.classifier
rpn.regression
for i:
    rpn.anchors{i}! (unused)
for i:
    box.fc{i}
box.classifier (classes) (background)
box.regression (classes) (background) (boxes)
for i:
    for b:
        domain.instance{i}.fc{b} (unused)
for i:
    for b:
        domain.image{i}.conv{b} (unused)
""",
)

FASTER_RCNN_MASKRCNN = Layout(
    name="faster_rcnn/maskrcnn-fpn",
    component=FASTER_RCNN,
    beside=RESNET,
    also=("mic",),
    table="""
for i:
    backbone.fpn.fpn_inner{i+1} = neck.lateral{i}
    backbone.fpn.fpn_layer{i+1} = neck.fpn{i}
for i:
    ? rpn.anchor_generator.cell_anchors.{i}! = rpn.anchors{i}!
rpn.head.conv = rpn.conv
rpn.head.cls_logits = rpn.classifier
rpn.head.bbox_pred = rpn.regression
for i:
    roi_heads.box.feature_extractor.fc{i+6} = box.fc{i}
roi_heads.box.predictor.cls_score = box.classifier
roi_heads.box.predictor.bbox_pred = box.regression
for i:
    for b:
        ? da_heads.imghead.da_img_conv{b+1}_level{i} = domain.image{i}.conv{b}
for i:
    for b:
        ? da_heads.inshead.da_ins_fc{b+1}_level{i} = domain.instance{i}.fc{b}
""",
)

FASTER_RCNN_OWN = Layout(  # of `FasterRCNNForObjectDetection`, which has the modules of EDAPS
    name="faster_rcnn/hf-lwmm",
    component=FASTER_RCNN,
    beside=RESNET,
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
""",
)

LAYOUTS = (FASTER_RCNN_MASKRCNN, FASTER_RCNN_OWN)
