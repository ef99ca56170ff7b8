"""MMSegmentation's backbones and heads: other code bases compute, from converted weights, what its own code computed.

The golden files are of narrow networks, with weights that depend on names and shapes alone (`seeded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from code_bases import Tensors, assert_agree, converted, load, randomised, shapes
from manifests import manifest, slot_map
from reference import reference, seeded_image
from seeded import seeded
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3Decoder
from segmentation_models_pytorch.decoders.upernet.decoder import PSPModule, UPerNetDecoder
from timm.models.hrnet import HighResolutionNetFeatures
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.segmentation import deeplabv3_resnet50, fcn_resnet50
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from hf_lwmm.layouts import depth_order, map_slots, place_of

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_SWIN = {"image_size": 64, "window_size": 2, "embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 1, 2, 2]}
_CONVNEXT = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 2, 1, 1]}


def weights(system: str) -> Tensors:
    """Return the seeded weights of a golden network of MMSegmentation."""
    return {name: torch.from_numpy(seeded(name, shape, dtype)) for name, shape, dtype in manifest(system)}


def upernet(backbone: Any) -> nn.Module:
    """Return a narrow UperNet of transformers."""
    config = transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=8,
        pool_scales=[1, 2],
        auxiliary_channels=8,
        auxiliary_in_channels=32,
        num_labels=3,
    )
    return transformers.UperNetForSemanticSegmentation(config).eval()


def assert_equal_golden(features: Sequence[torch.Tensor], system: str) -> None:
    """Compare the features of all stages with those of MMSegmentation."""
    for index, feature in enumerate(features):
        assert_agree(feature, torch.from_numpy(reference(system)[f"features_{index}"]))


@pytest.mark.parametrize(
    ("system", "backbone", "to"),
    [
        ("mmseg1x_upernet_swin", transformers.SwinConfig(**_SWIN, out_features=_STAGES), "transformers-backbone"),
        ("mmseg1x_upernet_convnext", transformers.ConvNextConfig(**_CONVNEXT, out_features=_STAGES), "transformers"),
    ],
)
@torch.no_grad()
def test_an_upernet_of_transformers_computes_what_mmsegmentations_does(system: str, backbone: Any, to: str) -> None:
    network = upernet(backbone)
    load(network, converted(weights(system), to), unused="swin.layernorm")
    features = network.backbone(seeded_image(64, 64)).feature_maps
    assert_equal_golden(features, system)
    assert_agree(network.decode_head(features), torch.from_numpy(reference(system)["logits"]))
    assert_agree(network.auxiliary_head(features), torch.from_numpy(reference(system)["auxiliary"]))


@pytest.mark.parametrize("system", ["mmseg1x_upernet_swin", "mmseg1x_upernet_convnext"])
def test_weights_come_back_from_transformers_names(system: str) -> None:
    tensors = weights(system)
    back = converted(converted(tensors, "transformers"), "mmseg")
    lacking = {name for name in tensors if name not in back}
    assert all("relative_position_index" in name for name in lacking)
    assert all(torch.equal(back[name], tensors[name]) for name in back)


@pytest.mark.parametrize(
    ("system", "pooled"),
    [("mmseg1x_deeplabv3plus_r18c", False), ("mmseg1x_pspnet_r18c", False), ("mmseg1x_deeplabv3_r18d", True)],
)
@torch.no_grad()
def test_a_resnet_with_a_deep_stem_of_timm_computes_what_mmsegmentations_does(system: str, pooled: bool) -> None:
    network = ResNet(
        BasicBlock, (2, 2, 2, 2), channels=(8, 16, 32, 64), stem_width=4, stem_type="deep", avg_down=pooled
    ).eval()
    tensors = converted(weights(system), "timm", backbone_only=True)
    load(network, tensors, unused="^fc")
    _, features = network.forward_intermediates(seeded_image(64, 64), indices=[1, 2, 3, 4])
    assert_equal_golden(features, system)


@torch.no_grad()
def test_a_vit_of_timm_computes_what_that_of_setr_and_segmenter_does() -> None:
    network = VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=0).eval()
    tensors = converted(weights("mmseg1x_vit"), "timm")
    load(network, tensors)
    features = network.forward_intermediates(seeded_image(32, 32), indices=[0], intermediates_only=True)
    last = network.forward_features(seeded_image(32, 32))[:, 1:].transpose(1, 2).reshape(1, 16, 4, 4)
    assert_equal_golden([*features, last], "mmseg1x_vit")
    back = converted(tensors, "mmseg")
    assert back.keys() == weights("mmseg1x_vit").keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights("mmseg1x_vit").items())


@pytest.mark.parametrize("head", ["setr_pup", "setr_mla", "segmenter"])
def test_a_vit_and_its_head_are_found_in_one_file(head: str) -> None:
    systems = ("mmseg1x_vit", f"mmseg1x_{head}_head")
    found = map_slots({name: shape for system in systems for name, shape, _ in manifest(system)})
    assert found.layout == f"vit/mmseg + {head}/mmseg" and all(place_of(slot) for slot in found.slots)


@torch.no_grad()
def test_an_hrnet_of_timm_computes_what_mmsegmentations_does() -> None:
    def stage(block: str, channels: tuple[int, ...]) -> dict[str, Any]:
        blocks, number = (1,) * len(channels), len(channels)
        return {"num_modules": 1, "num_branches": number, "block_type": block, "num_blocks": blocks,
                "num_channels": channels, "fuse_method": "SUM"}  # fmt: skip

    widths = (4, 8, 16, 32)
    stages = {f"stage{i}": stage("BASIC", widths[:i]) for i in (2, 3, 4)}
    config = {"stem_width": 64, "stage1": stage("BOTTLENECK", widths[:1]), **stages}
    network = HighResolutionNetFeatures(config, feature_location="", out_indices=(1, 2, 3, 4)).eval()
    for module in network.modules():  # timm resizes features as HRNet's image classifiers do, by nearest pixels
        if isinstance(module, nn.Upsample):
            module.mode = "bilinear"
    load(network, converted(weights("mmseg1x_fcn_hrnet"), "timm", backbone_only=True))
    assert_equal_golden(network(seeded_image(64, 64)), "mmseg1x_fcn_hrnet")


@pytest.mark.parametrize(
    ("system", "last"),
    [
        ("mmseg1x_upernet_swin", "upernet.classifier.bias"),
        ("mmseg1x_deeplabv3plus_r18c", "aspp_mmseg.classifier.bias"),
        ("mmseg1x_pspnet_r18c", "psp.classifier.bias"),
        ("mmseg1x_fcn_hrnet", "fcn.classifier.bias"),
        ("mmseg1x_setr_pup_head", "setr_pup.classifier.bias"),
        ("mmseg1x_setr_mla_head", "setr_mla.classifier.bias"),
        ("mmseg1x_segmenter_head", "segmenter.mask_norm.bias"),
    ],
)
def test_conv_seg_is_registered_first_and_runs_last(system: str, last: str) -> None:
    assert depth_order(slot_map(system).slots)[-1] == last


def test_embeddings_of_classes_are_rows_of_segmenter() -> None:
    slots = slot_map("mmseg1x_segmenter_head")
    assert slots.shapes["segmenter.classes"] == (3, 8)
    found = place_of("segmenter.classes")
    assert found and "classes" in found[1].flags


def test_heads_of_torchvision_have_slots() -> None:
    with torch.device("meta"):
        deeplab = map_slots(shapes(deeplabv3_resnet50(weights_backbone=None, num_classes=3, aux_loss=True)))
        fcn = map_slots(shapes(fcn_resnet50(weights_backbone=None, num_classes=3, aux_loss=True)))
    assert deeplab.layout == "resnet/backbone + deeplabv3/torchvision + auxiliary/torchvision"
    assert fcn.layout == "resnet/backbone + fcn/torchvision + auxiliary/torchvision"
    assert all(place_of(slot) for slot in (*deeplab.slots, *fcn.slots))


def test_a_resnet_of_timm_with_a_deep_stem_is_not_a_plain_one() -> None:
    import timm

    with torch.device("meta"):
        found = {name: map_slots(shapes(timm.create_model(name))) for name in ("resnet50", "resnet50c", "resnet50d")}
    assert [each.architecture.split(",")[0] for each in found.values()] == ["ResNet-50", "ResNet-50C", "ResNet-50D"]


def test_swins_merged_patches_are_transposed_by_mmsegmentation() -> None:
    ours = randomised(transformers.SwinBackbone(transformers.SwinConfig(**_SWIN, out_features=_STAGES)))
    name = "stages.0.downsample.reduction.weight"
    theirs = converted(ours.state_dict(), "mmseg", without="backbone.")[name]
    own = ours.state_dict()["swin.encoder.layers.0.downsample.reduction.weight"]
    # Pixels of a column come one after the other in Microsoft's order, those of a row in MMSegmentation's.
    assert torch.equal(theirs, own.reshape(16, 2, 2, 8).permute(0, 3, 2, 1).reshape(16, 32))


@torch.no_grad()
def test_upernets_of_smp_and_transformers_compute_the_same() -> None:
    ours = upernet(transformers.SwinConfig(**_SWIN, out_features=_STAGES)).decode_head
    randomised(ours)
    tensors = converted({f"decode_head.{name}": tensor for name, tensor in ours.state_dict().items()}, "smp")
    decoder = UPerNetDecoder([3, 8, 8, 16, 32, 64], decoder_channels=8)
    decoder.psp = PSPModule(64, 8, sizes=(1, 2))
    decoder.feature_norms = nn.ModuleList(nn.Identity() for _ in range(4))  # in transformers the backbone's
    load(decoder.eval(), {name[8:]: tensor for name, tensor in tensors.items() if name.startswith("decoder.")})
    features = [torch.randn(1, width, 128 // width, 128 // width) for width in (8, 16, 32, 64)]
    weight, bias = (tensors[f"segmentation_head.0.{leaf}"] for leaf in ("weight", "bias"))
    theirs = nn.functional.conv2d(decoder([torch.empty(0), torch.empty(0), *features]), weight, bias)
    assert_agree(ours(features), theirs)


@torch.no_grad()
def test_heads_of_deeplabv3_of_smp_and_torchvision_compute_the_same() -> None:
    ours = randomised(DeepLabHead(16, 3))
    tensors = converted({f"classifier.{name}": tensor for name, tensor in ours.state_dict().items()}, "smp")
    decoder = DeepLabV3Decoder(16, 256, (12, 24, 36), aspp_separable=False, aspp_dropout=0.5)
    load(decoder.eval(), {name[8:]: tensor for name, tensor in tensors.items() if name.startswith("decoder.")})
    features = torch.randn(1, 16, 8, 8)
    weight, bias = (tensors[f"segmentation_head.0.{leaf}"] for leaf in ("weight", "bias"))
    assert_agree(ours(features), nn.functional.conv2d(decoder([features]), weight, bias))
