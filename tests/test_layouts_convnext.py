"""ConvNeXt and ConvNeXtV2 of timm, transformers and Meta: the same outputs from converted weights."""

from __future__ import annotations

from typing import Any

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
from timm.models.convnext import checkpoint_filter_fn
from torch import nn

from hf_lwmm.layouts import map_slots

NAMES = ("convnext", "convnextv2")


def of_timm(name: str, **options: Any) -> nn.Module:
    """Return a small ConvNeXt of timm."""
    return timm.create_model(f"{name}_tiny", depths=(1, 2, 1, 1), dims=(8, 16, 32, 64), **options)


def of_transformers(name: str) -> nn.Module:
    """Return a small image classifier of transformers."""
    sizes: dict[str, Any] = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 2, 1, 1], "num_labels": 3}
    if name == "convnext":
        return transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**sizes)).eval()
    return transformers.ConvNextV2ForImageClassification(transformers.ConvNextV2Config(**sizes)).eval()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_timm_and_transformers_compute_the_same(name: str) -> None:
    ours, theirs = randomised(of_timm(name, num_classes=3)), of_transformers(name)
    tensors = converted(ours.state_dict(), "transformers")
    load(theirs, tensors)
    assert_agree(ours(picture()), theirs(picture()).logits)
    assert sorted(tensors) == saved_names(theirs)
    back = converted(tensors, "timm")
    assert all(torch.equal(back[key], tensor) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_timm_reads_metas_names_as_the_same_weights(name: str) -> None:
    ours = randomised(of_timm(name, num_classes=3))
    meta = converted(ours.state_dict(), "meta")
    assert map_slots({key: tuple(t.shape) for key, t in meta.items()}).layout == f"{name}/meta + imagenet/{name}-meta"
    read = checkpoint_filter_fn(dict(meta), ours)
    assert read.keys() == ours.state_dict().keys()
    assert all(torch.equal(read[key], tensor) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_pointwise_convolutions_are_matrices(name: str) -> None:
    linear, convolutional = (map_slots(shapes(of_timm(name, conv_mlp=conv))) for conv in (False, True))
    assert linear.shapes == convolutional.shapes
    assert convolutional.shapes[f"{name}.stage0.block0.fc1.weight"] == (32, 8)


@pytest.mark.parametrize("name", NAMES)
def test_timms_features_have_the_slots_of_its_classifier(name: str) -> None:
    features, whole = (map_slots(shapes(network)) for network in (of_timm(name, features_only=True), of_timm(name)))
    assert features.layout == f"{name}/timm-features"
    assert {slot.split(".")[1] for slot in whole.shapes.keys() - features.shapes.keys()} == {"norm", "classifier"}
    assert all(whole.shapes[slot] == shape for slot, shape in features.shapes.items())


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_in_the_order_of_registration_and_of_a_forward_pass(name: str) -> None:
    for network in (of_timm(name), of_transformers(name)):
        assert_in_registered_order(network)
        assert_in_forward_order(network)


def test_each_size_is_named() -> None:
    with torch.device("meta"):
        for size in "atto", "tiny", "base":
            network = timm.create_model(f"convnextv2_{size}")
            assert map_slots(shapes(network)).architecture == f"ConvNeXtV2-{size[0].upper()}, image classifier"
