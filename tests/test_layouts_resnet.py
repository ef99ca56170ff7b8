"""Layouts of ResNets and VGG: sizes, detectors, DeepLabV2 heads, and networks that only look alike."""

from __future__ import annotations

import pytest
from manifests import (
    known,
    manifest,
    on_meta,
    slot_map,
)

from hf_lwmm.layouts import depth_order, map_slots


def test_the_auxiliary_classifier_comes_before_the_stage_after_it() -> None:
    order = depth_order(slot_map("maxsquare_deeplab_multi_r101").slots)
    aux = order.index("resnet.stage2.aux.branch0.weight")
    assert order.index("resnet.stage2.block22.bn3.running_var") < aux < order.index("resnet.stage3.block0.conv1.weight")
    assert order[0] == "resnet.stem.conv.weight" and order[-1] == "deeplab.branch3.bias"


@pytest.mark.parametrize(("depth", "last"), [(18, 512), (34, 512), (50, 2048), (101, 2048), (152, 2048)])
def test_each_resnet_is_named(depth: int, last: int) -> None:
    import torchvision

    tensors = on_meta(lambda: torchvision.models.get_model(f"resnet{depth}"))
    slots = map_slots(tensors)
    assert slots.architecture == f"ResNet-{depth}, image classifier"
    assert slots.slots["resnet.stage3.block0.downsample.conv.weight"].shape[0] == last


def test_a_lone_layer5_is_the_main_classifier() -> None:
    tensors = {name: shape for name, shape, _ in manifest("advent_deeplabv2_r101_single")}
    renamed = {name.replace("layer6.", "layer5."): shape for name, shape in tensors.items()}
    slots = map_slots(renamed)
    assert slots.layout == "resnet/torchvision + deeplab/single-layer5"
    assert known(slots) == known(slot_map("advent_deeplabv2_r101_single"))


def test_a_detector_has_the_backbone_whose_last_stage_is_in_its_box_head() -> None:
    tensors = {
        name.removeprefix("netF::"): shape for name, shape, _ in manifest("conmix_resnet50") if name.startswith("netF")
    }
    names = {
        name: "roi_heads.box.feature_extractor.head." + name
        if name.startswith("layer4")
        else "backbone.body." + name
        if name.startswith("layer")
        else "backbone.body.stem." + name
        for name in tensors
    }
    slots = map_slots({names[name]: shape for name, shape in tensors.items()} | {"rpn.head.conv.weight": (4, 4, 3, 3)})
    assert slots.layout == "resnet/maskrcnn-c4"
    assert slots.atoms["rpn.head.conv.weight"][0].slot == "rpn.head.conv.weight"
    backbone = {s: shape for s, shape in known(slot_map("conmix_resnet50")).items() if s.startswith("resnet.")}
    assert known(slots) == backbone


@pytest.mark.parametrize(
    "name",
    [
        *("resnest50d", "res2net50_26w_4s", "vgg19", "vgg16_bn", "eva02_tiny_patch14_224"),
        *("seresnet50", "ecaresnet50d", "resnetrs50", "senet154", "edgenext_xx_small"),
    ],
)
def test_a_network_with_some_of_the_names_is_left_alone(name: str) -> None:
    import timm

    slots = map_slots(on_meta(lambda: timm.create_model(name)))
    assert slots.layout == "identity" and set(slots.slots) == set(slots.atoms)


def test_torchvisions_vgg_is_timms_and_shares_its_convolutions_with_deeplabs() -> None:
    import timm
    import torchvision

    plain = map_slots(on_meta(torchvision.models.vgg16))
    other = map_slots(on_meta(lambda: timm.create_model("vgg16")))
    assert (plain.layout, other.layout) == ("vgg/torchvision + vgg_head/torchvision", "vgg/torchvision + vgg_head/timm")
    assert known(plain) == known(other) and len(known(plain)) == len(plain.atoms) == len(other.atoms) == 32
    dilated = known(slot_map("fada_vgg16"))
    assert sum(dilated.get(slot) == shape for slot, shape in known(plain).items()) == 26
