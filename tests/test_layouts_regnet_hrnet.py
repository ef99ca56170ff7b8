"""RegNet of timm, torchvision and transformers: the same outputs from converted weights. HRNet of timm."""

from __future__ import annotations

import pytest
import timm
import torch
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
from torchvision.models.regnet import BlockParams, RegNet

from hf_lwmm.layouts import map_slots

_WIDTHS, _DEPTHS = [24, 56, 152, 368], [1, 1, 4, 7]


def of_timm(kind: str) -> nn.Module:
    """Return timm's RegNetX or RegNetY of 200 million operations."""
    return timm.create_model(f"regnet{kind}_002", num_classes=3)


def of_torchvision(kind: str) -> nn.Module:
    """Return torchvision's network of the same sizes."""
    squeeze = {"x": None, "y": 0.25}[kind]
    return RegNet(BlockParams(_DEPTHS, _WIDTHS, [8] * 4, [1.0] * 4, [2] * 4, squeeze), num_classes=3)


def regnet_config(kind: str) -> transformers.RegNetConfig:
    """Return the configuration of the network in transformers."""
    return transformers.RegNetConfig(
        embedding_size=32, hidden_sizes=_WIDTHS, depths=_DEPTHS, groups_width=8, layer_type=kind, num_labels=3
    )


@pytest.mark.parametrize("kind", ["x", "y"])
@torch.no_grad()
def test_three_code_bases_compute_the_same(kind: str) -> None:
    ours, vision = randomised(of_timm(kind)), of_torchvision(kind).eval()
    hub = transformers.RegNetForImageClassification(regnet_config(kind)).eval()
    load(vision, converted(ours.state_dict(), "torchvision"))
    tensors = converted(vision.state_dict(), "transformers")
    load(hub, tensors)
    assert sorted(tensors) == saved_names(hub)
    output = ours(picture())
    assert_agree(output, vision(picture()))
    assert_agree(output, hub(picture()).logits)
    back = converted(tensors, "timm")
    assert all(torch.equal(back[key], tensor) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("kind", ["x", "y"])
def test_regnets_are_in_the_order_of_registration_and_of_a_forward_pass(kind: str) -> None:
    networks = of_timm(kind), transformers.RegNetForImageClassification(regnet_config(kind))
    for network in networks:
        assert_in_forward_order(network)
    for network in (*networks, of_torchvision(kind)):
        assert_in_registered_order(network)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_regnet_of_transformers_is_told_from_a_resnet_by_its_stem(prefix: str) -> None:
    with torch.device("meta"):
        resnet = transformers.ResNetForImageClassification(transformers.ResNetConfig())
        regnet = transformers.RegNetForImageClassification(regnet_config("x"))
        bare = {
            family: {prefix + name: shape for name, shape in shapes(network).items()}
            for family, network in (
                ("resnet", transformers.ResNetModel(transformers.ResNetConfig())),
                ("regnet", transformers.RegNetModel(regnet_config("x"))),
            )
        }
    assert map_slots(shapes(resnet)).layout == "resnet/transformers + imagenet/resnet-transformers"
    assert map_slots(shapes(regnet)).layout == "regnet/transformers-x + imagenet/regnet-transformers"
    assert map_slots(bare["regnet"]).layout == "regnet/transformers-x"
    assert map_slots(bare["resnet"]).layout == "resnet/transformers"


@pytest.mark.parametrize(
    ("name", "title"),
    [("hrnet_w18_small", "HRNet-W18-Small"), ("hrnet_w18_small_v2", "HRNet-W18-Small-v2"), ("hrnet_w32", "HRNet-W32")],
)
def test_an_hrnet_is_known_and_in_order(name: str, title: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    assert map_slots(shapes(network)).architecture == f"{title}, image classifier"
    assert_in_registered_order(network)


def test_depth_of_an_hrnet_is_the_order_of_a_forward_pass() -> None:
    assert_in_forward_order(timm.create_model("hrnet_w18_small"))


def test_features_of_timm_have_the_slots_of_its_classifiers() -> None:
    with torch.device("meta"):
        for name in "regnety_002", "hrnet_w18_small":
            features, whole = (map_slots(shapes(timm.create_model(name, features_only=only))) for only in (True, False))
            assert features.shapes.items() <= whole.shapes.items()
