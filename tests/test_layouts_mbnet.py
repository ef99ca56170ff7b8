"""MobileNets and EfficientNets of timm, torchvision and transformers: the same outputs from converted weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
import transformers
from code_bases import (
    assert_agree,
    assert_in_forward_order,
    assert_in_registered_order,
    converted,
    load,
    picture,
    randomised,
    saved_names,
    shapes,
)
from torch import nn

from hf_lwmm.layouts import map_slots, place_of

tv = torchvision.models


def mobilenetv2_of_transformers() -> nn.Module:
    """Return a narrow MobileNetV2 with torchvision's padding."""
    config = transformers.MobileNetV2Config(
        depth_multiplier=0.35, num_labels=3, tf_padding=False, layer_norm_eps=1e-5, finegrained_output=True
    )
    return transformers.MobileNetV2ForImageClassification(config)


def efficientnet_of_transformers(depth: float) -> nn.Module:
    """Return an EfficientNet-B0, or a deeper one."""
    config = transformers.EfficientNetConfig(
        width_coefficient=1.0, depth_coefficient=depth, hidden_dim=1280, num_labels=3
    )
    return transformers.EfficientNetForImageClassification(config)


# A network of timm, another of a code base, and their titles.
PAIRS: dict[str, tuple[str, Callable[[], nn.Module], str, str]] = {
    "v2-torchvision": (
        "mobilenetv2_035", lambda: tv.mobilenet_v2(num_classes=3, width_mult=0.35), "torchvision", "MobileNetV2"
    ),
    "v2-transformers": ("mobilenetv2_035", mobilenetv2_of_transformers, "transformers", "MobileNetV2"),
    "v3-small": (
        "mobilenetv3_small_100", lambda: tv.mobilenet_v3_small(num_classes=3), "torchvision", "MobileNetV3-S"
    ),
    "v3-large": (
        "mobilenetv3_large_100", lambda: tv.mobilenet_v3_large(num_classes=3), "torchvision", "MobileNetV3-L"
    ),
    "b0-torchvision": (
        "efficientnet_b0", lambda: tv.efficientnet_b0(num_classes=3), "torchvision", "EfficientNet-B0"
    ),
    "b0-transformers": (
        "tf_efficientnet_b0", lambda: efficientnet_of_transformers(1.0), "transformers", "EfficientNet-B0"
    ),
    "b1-transformers": (
        "tf_efficientnet_b1", lambda: efficientnet_of_transformers(1.1), "transformers", "EfficientNet-B1"
    ),
}  # fmt: skip


def with_one_epsilon(network: nn.Module) -> nn.Module:
    """Give every normalisation the same epsilon, which code bases choose differently; return the network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    return network


@pytest.mark.parametrize("pair", PAIRS)
@torch.no_grad()
def test_two_code_bases_compute_the_same(pair: str) -> None:
    name, make, to, title = PAIRS[pair]
    ours = with_one_epsilon(randomised(timm.create_model(name, num_classes=3)))
    theirs = with_one_epsilon(make()).eval()
    tensors = converted(ours.state_dict(), to)
    load(theirs, tensors)
    output = theirs(picture())
    assert_agree(ours(picture()), output if to == "torchvision" else output.logits)
    assert (
        map_slots(shapes(ours)).architecture == map_slots(shapes(theirs)).architecture == f"{title}, image classifier"
    )
    if to == "transformers":
        assert sorted(tensors) == saved_names(theirs)
    back = converted(tensors, "timm")
    assert all(torch.equal(back[key], tensor) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("pair", ["v2-torchvision", "v2-transformers", "v3-small", "b0-torchvision", "b1-transformers"])
def test_tensors_are_in_the_order_of_registration_and_of_a_forward_pass(pair: str) -> None:
    name, make, *_ = PAIRS[pair]
    for network in (timm.create_model(name), make()):
        assert_in_registered_order(network)
        assert_in_forward_order(network)


@pytest.mark.parametrize(
    ("name", "other", "title"),
    [
        ("efficientnetv2_s", tv.efficientnet_v2_s, "EfficientNetV2-S"),
        ("efficientnet_b3", tv.efficientnet_b3, "EfficientNet-B3"),
    ],
)
def test_networks_of_timm_and_torchvision_have_the_same_slots(
    name: str, other: Callable[[], nn.Module], title: str
) -> None:
    with torch.device("meta"):
        networks = timm.create_model(name), other()
    one, two = (map_slots(shapes(network)) for network in networks)
    assert one.shapes == two.shapes
    assert one.architecture == two.architecture == f"{title}, image classifier"
    for network in networks:
        assert_in_registered_order(network)


@torch.no_grad()
def test_efficientnetv2_computes_the_same_in_torchvision() -> None:
    ours, theirs = (with_one_epsilon(randomised(make(num_classes=3))) for make in (of_timm, tv.efficientnet_v2_s))
    load(theirs, converted(ours.state_dict(), "torchvision"))
    assert_agree(ours(picture(32)), theirs(picture(32)))


def of_timm(num_classes: int) -> nn.Module:
    """Return an EfficientNetV2-S of timm."""
    return timm.create_model("efficientnetv2_s", num_classes=num_classes)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_b0", "efficientnetv2_s"])
def test_timms_features_have_the_slots_of_its_classifier(name: str) -> None:
    with torch.device("meta"):
        features, whole = (map_slots(shapes(timm.create_model(name, features_only=only))) for only in (True, False))
    assert all(whole.shapes[slot] == shape for slot, shape in features.shapes.items())
    assert {slot.split(".")[1] for slot in whole.shapes.keys() - features.shapes.keys()} <= {"top", "fc", "classifier"}


def test_a_segmenter_of_torchvision_has_the_backbone_of_its_classifier() -> None:
    with torch.device("meta"):
        segmenter = tv.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None)
        classifier = tv.mobilenet_v3_large()
    backbone = {slot: shape for slot, shape in map_slots(shapes(segmenter)).shapes.items() if place_of(slot)}
    assert map_slots(shapes(segmenter)).architecture == "MobileNetV3-L"
    assert backbone.items() <= map_slots(shapes(classifier)).shapes.items()
    assert len(backbone) == 308


@pytest.mark.parametrize("name", ["mnasnet_100", "ghostnet_100", "lcnet_050", "mobilenetv4_conv_small"])
def test_kin_is_named_by_its_blocks_or_left_alone(name: str) -> None:
    with torch.device("meta"):
        found = map_slots(shapes(timm.create_model(name)))
    assert found.architecture.startswith("MBConv network with") or found.layout == "identity"
