"""Swin and SwinV2 of timm, transformers, MMSegmentation and Microsoft: the same outputs from converted weights."""

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
from timm.models import swin_transformer, swin_transformer_v2
from torch import nn
from transformers import Swinv2Config, Swinv2ForImageClassification

from hf_lwmm.layouts import map_slots

_SIZES = {"window_size": 2, "embed_dim": 8, "num_heads": (1, 1, 2, 2)}
_DEPTHS = (1, 2, 1, 1)
_CONFIG = {"image_size": 64, "depths": list(_DEPTHS), "num_labels": 3, **_SIZES}
_STAGES = ["stage1", "stage2", "stage3", "stage4"]


def of_timm(name: str, **options: Any) -> nn.Module:
    """Return a small Swin of timm, `name` without its window and picture."""
    full = {"swin": "swin_tiny_patch4_window7_224", "swinv2": "swinv2_tiny_window8_256"}[name]
    return timm.create_model(full, img_size=64, depths=_DEPTHS, **_SIZES, **options)


def of_transformers(name: str) -> nn.Module:
    """Return a small image classifier of transformers."""
    if name == "swinv2":
        return Swinv2ForImageClassification(Swinv2Config(**_CONFIG)).eval()
    return transformers.SwinForImageClassification(transformers.SwinConfig(**_CONFIG)).eval()


@pytest.mark.parametrize(("name", "to"), [("swin", "transformers-runtime"), ("swinv2", "transformers")])
@torch.no_grad()
def test_timm_and_transformers_compute_the_same(name: str, to: str) -> None:
    ours, theirs = randomised(of_timm(name, num_classes=3)), of_transformers(name)
    load(theirs, converted(ours.state_dict(), to))
    assert_agree(ours(picture()), theirs(picture()).logits)
    back = converted(theirs.state_dict(), "timm")
    assert all(torch.equal(back[key], tensor) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("name", ["swin", "swinv2"])
def test_the_names_of_files_are_those_that_transformers_writes(name: str) -> None:
    tensors = converted(of_timm(name, num_classes=3).state_dict(), "transformers")
    assert sorted(tensors) == saved_names(of_transformers(name))


@pytest.mark.parametrize(("name", "module"), [("swin", swin_transformer), ("swinv2", swin_transformer_v2)])
def test_timm_reads_microsofts_names_as_the_same_weights(name: str, module: Any) -> None:
    ours = randomised(of_timm(name, num_classes=3))
    microsoft = converted(ours.state_dict(), "microsoft")
    assert map_slots({key: tuple(t.shape) for key, t in microsoft.items()}).layout.startswith(f"{name}/microsoft + ")
    assert "layers.0.downsample.reduction.weight" in microsoft
    read = module.checkpoint_filter_fn(dict(microsoft), ours)
    assert read.keys() == ours.state_dict().keys()
    assert all(torch.equal(read[key], tensor) for key, tensor in ours.state_dict().items())


@torch.no_grad()
def test_the_backbone_of_a_segmenter_has_norms_of_its_stages() -> None:
    config = transformers.SwinConfig(**_CONFIG, out_features=_STAGES)
    ours = randomised(transformers.SwinBackbone(config))
    theirs = transformers.SwinBackbone(config).eval()
    tensors = converted(ours.state_dict(), "mmseg", without="backbone.")
    assert {"norm0.weight", "stages.2.downsample.reduction.weight"} <= tensors.keys()
    back = converted(tensors, "transformers-backbone", without="backbone.")
    load(theirs, back, unused="^swin.layernorm")
    for one, other in zip(ours(picture()).feature_maps, theirs(picture()).feature_maps, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["swin", "swinv2"])
def test_timms_features_have_the_slots_of_its_classifier(name: str) -> None:
    features, whole = (map_slots(shapes(network)) for network in (of_timm(name, features_only=True), of_timm(name)))
    assert features.layout == f"{name}/timm-features"
    lacking = set(whole.shapes) - set(features.shapes)
    assert lacking == {
        f"{part}.{leaf}" for part in (f"{name}.norm", "imagenet.classifier") for leaf in ("weight", "bias")
    }
    assert all(whole.shapes[slot] == shape for slot, shape in features.shapes.items())


@pytest.mark.parametrize(
    "network",
    [of_timm("swin"), of_timm("swinv2"), of_transformers("swin"), of_transformers("swinv2")],
    ids=["swin-timm", "swinv2-timm", "swin-transformers", "swinv2-transformers"],
)
def test_tensors_are_in_the_order_of_registration(network: nn.Module) -> None:
    assert_in_registered_order(network)


@pytest.mark.parametrize("name", ["swin", "swinv2"])
def test_depth_is_the_order_of_a_forward_pass(name: str) -> None:
    assert_in_forward_order(of_timm(name))
