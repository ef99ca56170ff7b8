"""The known layouts, and the components that they store."""

from __future__ import annotations

from collections.abc import Mapping

from hf_lwmm.layouts.layout import Component, Layout
from hf_lwmm.layouts.tables import (
    aspp,
    beit,
    classifiers,
    clip,
    convnext,
    daformer,
    deeplab,
    dinov2,
    dinov3,
    edaps,
    efficientnetv2,
    faster_rcnn,
    fcn,
    hrnet,
    mbnet,
    mit,
    mobilenetv3,
    psp,
    pvt,
    regnet,
    resnet,
    resnet_deep,
    segformer,
    segmenter,
    setr,
    swin,
    swinv2,
    upernet,
    vgg,
    vit,
)

# Backbones before heads; heads in the order in which networks that have several register them.
LAYOUTS: tuple[Layout, ...] = (
    *mit.LAYOUTS,
    *resnet.LAYOUTS,
    *vgg.LAYOUTS,
    *vit.LAYOUTS,
    *clip.LAYOUTS,
    *dinov2.LAYOUTS,
    *dinov3.LAYOUTS,
    *beit.LAYOUTS,
    *pvt.LAYOUTS,
    *swin.LAYOUTS,
    *swinv2.LAYOUTS,
    *convnext.LAYOUTS,
    *mobilenetv3.LAYOUTS,  # before mbnet, whose names in timm it has and more
    *mbnet.LAYOUTS,
    *efficientnetv2.LAYOUTS,
    *regnet.LAYOUTS,
    *hrnet.LAYOUTS,
    *resnet_deep.LAYOUTS,
    *segformer.LAYOUTS,
    *edaps.INSTANCE_LAYOUTS,
    *faster_rcnn.LAYOUTS,
    *daformer.LAYOUTS,
    *edaps.SEMANTIC_LAYOUTS,
    *deeplab.LAYOUTS,
    *upernet.LAYOUTS,
    *psp.LAYOUTS,
    *aspp.LAYOUTS,
    *setr.LAYOUTS,
    *segmenter.LAYOUTS,
    *fcn.LAYOUTS,
    *classifiers.LAYOUTS,
    *(
        head
        for family in (
            *(resnet, vgg, vit, pvt, swin, swinv2, convnext, mobilenetv3, mbnet, efficientnetv2, regnet, hrnet),
            *(resnet_deep, beit, dinov3),
        )
        for head in family.HEADS
    ),
)
COMPONENTS: Mapping[str, Component] = {layout.component.name: layout.component for layout in LAYOUTS}
