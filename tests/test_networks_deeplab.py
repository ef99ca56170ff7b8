"""The ResNet and VGG networks against the results of the systems' own code; the image processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from manifests import manifest, slot_map
from PIL import Image
from reference import assert_equals_reference, reference, seeded_image
from seeded import seeded
from torch import nn
from transformers import AutoImageProcessor

from hf_lwmm.describing.network_fields import SYSTEM_FIELDS as PARTICULAR
from hf_lwmm.errors import LayoutError, PlanError
from hf_lwmm.networks import BottleneckConfig, BottleneckForImageClassification, DeepLabV2Config
from hf_lwmm.networks import DeepLabV2ForSemanticSegmentation as DeepLabV2
from hf_lwmm.networks import SegmentationImageProcessor as Processor
from hf_lwmm.networks.families import family_of
from hf_lwmm.networks.from_slots import deeplab_config
from hf_lwmm.networks.image_processing import as_rgb
from hf_lwmm.networks.module_slots import slots_of
from hf_lwmm.planning.inputs import SYSTEMS as SYSTEM_NAMES
from hf_lwmm.planning.inputs import NetworkOptions

CITYSCAPES = [f"class {i}" for i in range(19)]


def filled(
    made: Callable[[Any], nn.Module], config: Any, system: str, scale: Callable[[str], float] = lambda name: 1.0
) -> Any:
    """A network with a system's seeded weights, drawn from the names inside the files if the system has several."""
    with torch.device("meta"):
        model = made(config)
    model = model.to_empty(device="cpu")
    source = slot_map(system)
    inner = [(name, name.split("::")[-1]) for name, _, _ in manifest(system)]
    if system.startswith("fada"):
        inner = [(name, name.split(".", 1)[1]) for name, _ in inner]
    drawn = dict(inner)
    arrays = {
        name: (seeded(drawn[name], shape, dtype).reshape(-1) * np.float32(scale(name))).astype(dtype)
        for name, shape, dtype in manifest(system)
    }
    state = model.state_dict()
    for name, atoms in slots_of(model).atoms.items():
        for atom in atoms:
            given = source.slots[atom.slot]
            size = int(np.prod(atom.shape))
            values = torch.from_numpy(arrays[given.tensor][given.start : given.start + size])
            state[name].view(-1)[atom.start : atom.start + size] = values
    return model.eval()


def times(factor: float, ending: str) -> Callable[[str], float]:
    return lambda name: factor if name.endswith(ending) else 1.0


SYSTEMS: dict[str, tuple[str, str | None, Callable[[str], float]]] = {
    "advent_deeplabv2_r101_multi": ("advent_deeplabv2_r101_multi", "minent", times(1, "")),
    "advent_deeplabv2_r101_multi_bn3x0.1": ("advent_deeplabv2_r101_multi", None, times(0.1, "bn3.weight")),
    "advent_deeplabv2_r101_single": ("advent_deeplabv2_r101_single", "advent", times(1, "")),
    "adaptsegnet_deeplab_multi_r101": ("adaptsegnet_deeplab_multi_r101", "adaptsegnet", times(1, "")),
    "maxsquare_deeplab_multi_r101": ("maxsquare_deeplab_multi_r101", "maxsquare", times(1, "")),
    "adaptsegnet_deeplab_vgg16_wx1.5": ("adaptsegnet_deeplab_vgg16", None, times(1.5, "weight")),
    "fada_r101": ("fada_r101", None, times(1, "")),
    "fada_r101_bn": ("fada_r101_bn", None, times(1, "")),
    "fada_vgg16_wx1.5": ("fada_vgg16", "fada", times(1.5, "weight")),
    "diga_segmodel_r101": ("diga_segmodel_r101", None, times(1, "")),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_network_computes_what_its_own_code_does(name: str) -> None:
    system, said, scale = SYSTEMS[name]
    config = deeplab_config(slot_map(system), CITYSCAPES, said)
    model = filled(DeepLabV2, config, system, scale)
    expected = reference(name)
    found: dict[str, Any] = {}
    for prefix, size in (("", (65, 97)), ("large_", (225, 257))):
        with torch.no_grad():
            output = model(seeded_image(*size), output_hidden_states=True)
        found |= {f"{prefix}logits": output.logits, f"{prefix}aux_logits": output.auxiliary_logits}
        if prefix:
            continue
        for stage, features in enumerate(output.hidden_states):
            for key in (f"features_{stage}", "features_out"):
                found |= {f"{key}_mean": features.mean(1), f"{key}_c8": features[:, :8]}
        if system.startswith("diga"):
            with torch.no_grad():
                features = torch.cat([branch(output.hidden_states[-1]) for branch in model.final.conv2d_list], dim=1)
                hidden = model.final.bottleneck(features)
            found |= {"features_head_mean": hidden.mean(1), "features_head_c8": hidden[:, :8]}
        for key, logits in (("logits", output.logits), ("aux_logits", output.auxiliary_logits)):
            if logits is not None:
                resized = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=config.align_corners)
                found[f"{key}_upsampled_sub"] = resized[:, :, ::4, ::4]
    for key, array in expected.items():
        assert_equals_reference(found[key], array, key)
    assert ("aux_logits" in expected) <= config.multi_level


@pytest.mark.parametrize(("system", "classes"), [("glc_sfunida_resnet50", 15), ("conmix_resnet50", 65)])
def test_bottleneck_classifiers_compute_what_their_own_code_does(system: str, classes: int) -> None:
    config = family_of(slot_map(system), system).config_for(slot_map(system), [f"c{i}" for i in range(classes)], None)
    assert isinstance(config, BottleneckConfig)
    model = filled(BottleneckForImageClassification, config, system)
    with torch.no_grad():
        output = model(seeded_image(64, 64), output_hidden_states=True)
    *stages, pooled, embedded = output.hidden_states
    found = {"pooled": pooled, "embed_feat": embedded, "bottleneck": embedded, "logits": output.logits}
    found |= {"softmax": output.logits.softmax(1), "features_3": stages[3]}
    found |= {f"features_{i}_mean": stage.mean(1) for i, stage in enumerate(stages)}
    for key, array in reference(system).items():
        assert_equals_reference(found[key], array, key)


SMALL = {"depths": [1, 1, 1, 1], "width": 8, "block": "basic", "id2label": {0: "a", 1: "b", 2: "c"}}


def assert_comes_back(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    again, info = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    ours, theirs = model.state_dict(), again.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"multi_level": True},
        {"block": "bottleneck"},
        {"backbone": "vgg16"},
        {"system": "fada", "batch_norm_eps": 0.0, **PARTICULAR["fada"]},
        {"system": "diga", **PARTICULAR["diga"]},
    ],
)
def test_a_saved_network_comes_back_and_its_configuration_follows_from_it(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    config = DeepLabV2Config(**{**SMALL, **fields})
    model = DeepLabV2(config).eval()
    for tensor in model.state_dict().values():  # so that what is stored differs from what a new network has
        tensor += torch.rand(tensor.shape).to(tensor.dtype)
    assert_comes_back(model, tmp_path)
    found = deeplab_config(slots_of(model), ["a", "b", "c"], config.system)
    names = ("backbone", "depths", "width", "block", "multi_level", "batch_norm_eps", "head", "dilations", "id2label")
    assert [getattr(found, n) for n in names if config.backbone == "resnet" or n == "backbone"] == [
        getattr(config, n) for n in names if config.backbone == "resnet" or n == "backbone"
    ]


def test_a_saved_classifier_comes_back_and_trains(tmp_path: Path) -> None:
    model = BottleneckForImageClassification(BottleneckConfig(**SMALL, bottleneck_size=8))
    model(torch.randn(4, 3, 64, 64), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert_comes_back(model, tmp_path)


def test_the_forward_pass_uses_the_modules_that_the_network_has_now() -> None:
    model = DeepLabV2(DeepLabV2Config(**SMALL)).eval()
    model.bn1 = nn.BatchNorm2d(8).eval()
    nn.init.zeros_(model.bn1.weight)
    dark, bright = (model(value * torch.ones(1, 3, 32, 32)).logits for value in (0.0, 1.0))
    assert torch.equal(dark, bright)


def test_unknown_arguments_are_refused() -> None:
    """A network that took them would seem to divide its loss by `num_items_in_batch`, and Trainer would not."""
    with pytest.raises(TypeError, match="num_items_in_batch"):
        DeepLabV2(DeepLabV2Config(**SMALL))(seeded_image(32, 32), num_items_in_batch=2)
    with pytest.raises(TypeError, match="num_items_in_batch"):
        BottleneckForImageClassification(BottleneckConfig(**SMALL))(seeded_image(32, 32), num_items_in_batch=2)


@pytest.mark.parametrize("system", ["advent", "adaptsegnet", "fada"])
def test_networks_train(system: str) -> None:
    model = DeepLabV2(DeepLabV2Config(system=system, multi_level=True, **SMALL, **PARTICULAR[system])).train()
    image, labels = torch.cat([seeded_image(48, 64)] * 2), torch.zeros(2, 48, 64, dtype=torch.long)
    labels[:, 24:] = 255
    model(image, labels=labels).loss.backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    summed = PARTICULAR[system].get("summed_branches", 4)
    expected = {
        f"layer{n}.conv2d_list.{i}.{leaf}" for n in (5, 6) for i in range(summed, 4) for leaf in ("weight", "bias")
    }
    assert set(silent) == expected


def test_what_does_not_fit_is_said() -> None:
    multi = slot_map("advent_deeplabv2_r101_multi")
    with pytest.raises(LayoutError, match="has 19 classes, but 3 labels were given"):
        deeplab_config(multi, ["a", "b", "c"], None)
    with pytest.raises(PlanError, match="--system cyclegan is not one of advent, minent"):
        NetworkOptions(system="cyclegan")
    assert list(PARTICULAR) == list(SYSTEM_NAMES)
    with pytest.raises(LayoutError, match="--system diga has another head"):
        deeplab_config(multi, CITYSCAPES, "diga")
    with pytest.raises(LayoutError, match=r"there is no network for PVTv2-B2, image classifier \(pvt/timm"):
        family_of(slot_map("timm_pvt_v2_b2"), "org/pvt")


def test_the_files_that_leave_no_trace_of_their_system_are_told_by_their_names() -> None:
    assert deeplab_config(slot_map("fada_r101"), CITYSCAPES, None).batch_norm_eps == 0
    assert deeplab_config(slot_map("fada_r101_bn"), CITYSCAPES, None).system == "fada"
    assert deeplab_config(slot_map("adaptsegnet_deeplab_vgg16"), CITYSCAPES, None).summed_branches == 2
    assert deeplab_config(slot_map("adaptsegnet_deeplab_multi_r101"), CITYSCAPES, None).system == "advent"


# Pictures


def pictures(width: int = 9, height: int = 6) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


GREY = pictures()[..., 0]


def test_an_image_processor_orders_channels_scales_and_normalises() -> None:
    values = pictures()
    processor = Processor(channel_order="BGR", rescale_factor=0.5, image_mean=(1, 2, 3), image_std=(4, 5, 6))
    expected = ((values[..., ::-1] * 0.5 - [1, 2, 3]) / [4, 5, 6]).transpose(2, 0, 1)
    kinds = [values, Image.fromarray(values), torch.from_numpy(values).permute(2, 0, 1)]
    found = processor(kinds, return_tensors="pt")["pixel_values"]
    assert found.dtype == torch.float32 and found.shape == (3, 3, 6, 9)
    for each in found:
        np.testing.assert_allclose(each, expected, atol=1e-5)


def test_tensors_arrays_and_lists_are_returned_as_asked_for(tmp_path: Path) -> None:
    Processor(size={"height": 4, "width": 5}).save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, Processor)
    tensor, array, plain = (processor([GREY, GREY], return_tensors=kind)["pixel_values"] for kind in ("pt", "np", None))
    assert isinstance(tensor, torch.Tensor) and tensor.shape == (2, 3, 4, 5) and tensor.dtype == torch.float32
    assert isinstance(array, np.ndarray) and array.dtype == np.float32 and np.array_equal(array, tensor.numpy())
    assert isinstance(plain, list) and all(type(each) is np.ndarray for each in plain)
    assert np.array_equal(np.stack(plain), array)
    with pytest.raises(ValueError, match="not a valid TensorType"):
        processor(GREY, return_tensors="tf")


def test_pictures_of_several_sizes_make_a_list_but_no_batch() -> None:
    several = [pictures(9, 6), pictures(4, 8)]
    assert [each.shape for each in Processor()(several)["pixel_values"]] == [(3, 6, 9), (3, 8, 4)]
    for kind in ("pt", "np"):
        with pytest.raises(ValueError, match=r"several sizes \(4x8, 9x6\) make no batch"):
            Processor()(several, return_tensors=kind)


@pytest.mark.parametrize(
    ("settings", "picture", "wanted"),
    [
        ({"size": {"height": 4, "width": 5}}, (9, 6), (4, 5)),
        ({"size": {"shortest_edge": 512}}, (960, 720), (512, 683)),
        ({"size": {"shortest_edge": 512, "longest_edge": 1024}}, (2048, 1024), (512, 1024)),
        ({"size": {"shortest_edge": 512, "longest_edge": 1024}}, (500, 2000), (1024, 256)),
        ({"size": {"height": 8, "width": 8}, "crop_size": {"height": 4, "width": 6}}, (9, 6), (4, 6)),
        ({}, (9, 6), (6, 9)),
    ],
)
def test_sizes_are_fixed_or_keep_proportions(
    settings: dict[str, Any], picture: tuple[int, int], wanted: tuple[int, int]
) -> None:
    found = Processor(**settings)(Image.new("RGB", picture), return_tensors="np")
    assert found["pixel_values"].shape == (1, 3, *wanted)


def test_the_centre_is_kept() -> None:
    values = pictures(8, 6)
    found = Processor(crop_size={"height": 2, "width": 4}, image_mean=(0, 0, 0), image_std=(1, 1, 1))(values)
    assert np.array_equal(found["pixel_values"][0], values[2:4, 2:6].transpose(2, 0, 1))


def test_settings_come_back_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    processor = Processor(
        size={"shortest_edge": 8}, resample=3, crop_size={"height": 8, "width": 8}, channel_order="BGR",
        align_corners=True, window=(4, 4), stride=(2, 2),
    )  # fmt: skip
    processor.save_pretrained(tmp_path)
    again = Processor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert np.array_equal(again(pictures())["pixel_values"], processor(pictures())["pixel_values"])
    for settings, fault in (
        ({"channel_order": "bgr"}, "channel_order is 'bgr'"),
        ({"size": {"height": 8}}, "size has height"),
        ({"crop_size": {"shortest_edge": 8}}, "crop_size has shortest_edge"),
    ):
        with pytest.raises(ValueError, match=fault):
            Processor(**settings)


@pytest.mark.parametrize("corners", [False, True])
def test_class_maps_have_the_sizes_asked_for(corners: bool) -> None:
    logits = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    maps = Processor(align_corners=corners).post_process_semantic_segmentation(
        SimpleNamespace(logits=logits), [(10, 12), (7, 20)]
    )
    for each, found, size in zip(logits, maps, [(10, 12), (7, 20)], strict=True):
        resized = nn.functional.interpolate(each[None], size, mode="bilinear", align_corners=corners)[0]
        assert found.dtype == torch.int64 and torch.equal(found, resized.argmax(0))
    plain = Processor().post_process_semantic_segmentation(SimpleNamespace(logits=logits))
    assert torch.equal(torch.stack(plain), logits.argmax(1))


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(GREY),
        Image.fromarray(GREY).convert("P"),
        Image.fromarray(GREY).convert("LA"),
        Image.fromarray(GREY).convert("RGBA"),
        Image.fromarray(GREY.astype(np.uint16) << 8),
        Image.fromarray(GREY.astype(np.int32)),
        GREY[..., None],
        GREY.astype(np.int64),
        GREY.astype(np.int32) * 256 + 255,
        (GREY.astype(np.uint16) << 8).astype(">u2"),
        GREY / 255,
        torch.from_numpy(GREY)[None],
        torch.from_numpy(GREY / 255).requires_grad_(),
    ],
)
def test_every_kind_of_grey_picture_is_the_same_in_rgb(picture: Any) -> None:
    found = as_rgb(picture)
    assert found.mode == "RGB" and np.array_equal(np.asarray(found), np.stack([GREY] * 3, axis=-1))


def test_a_dark_16_bit_picture_stays_dark() -> None:
    dark = np.full((2, 2), 200, np.uint16)
    assert np.asarray(as_rgb(dark)).max() == np.asarray(as_rgb(Image.fromarray(dark))).max() == 0


@pytest.mark.parametrize(
    ("picture", "fault"),
    [
        (np.full((2, 2), -1), "from -1 to -1"),
        (np.full((2, 2), 70000), "from 70000 to 70000"),
        (np.full((2, 2), np.nan), "from 0 to 1"),
        (Image.fromarray(np.full((2, 2), 300, np.float32)), "from 0 to 1"),
        (np.zeros((2, 2), complex), "complex128 is no picture"),
        (np.zeros((0, 2, 3), np.uint8), "is no picture"),
        (np.zeros((2, 2, 2), np.uint8), "is no picture"),
        ("street.png", "is no picture"),
    ],
)
def test_what_is_no_picture_is_refused(picture: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        as_rgb(picture)
