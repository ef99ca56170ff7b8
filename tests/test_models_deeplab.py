"""The ResNet and VGG networks against what the systems' own code computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from manifests import manifest, slot_map
from reference import assert_equals_reference, reference, seeded_image
from seeded import seeded
from torch import nn

from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import SlotMap, map_slots
from hf_lwmm.models import BottleneckConfig, BottleneckForImageClassification, DeepLabV2Config
from hf_lwmm.models import DeepLabV2ForSemanticSegmentation as DeepLabV2
from hf_lwmm.models.families import family_of
from hf_lwmm.models.from_slots import deeplab_config

CITYSCAPES = [f"class {i}" for i in range(19)]


def filled(model: nn.Module, system: str, scale: Callable[[str], float] = lambda name: 1.0) -> nn.Module:
    """A network with a system's seeded weights; drawn from the names inside the files of systems that have several."""
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
    for name, atoms in map_slots({name: tuple(tensor.shape) for name, tensor in state.items()}).atoms.items():
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
    model = filled(DeepLabV2(config), system, scale)
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
    model = filled(BottleneckForImageClassification(config), system)
    with torch.no_grad():
        output = model(seeded_image(64, 64), output_hidden_states=True)
    *stages, pooled, embedded = output.hidden_states
    found = {"pooled": pooled, "embed_feat": embedded, "bottleneck": embedded, "logits": output.logits}
    found |= {"softmax": output.logits.softmax(1), "features_3": stages[3]}
    found |= {f"features_{i}_mean": stage.mean(1) for i, stage in enumerate(stages)}
    for key, array in reference(system).items():
        assert_equals_reference(found[key], array, key)


def shapes(model: nn.Module) -> SlotMap:
    return map_slots({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})


SMALL = {"depths": [1, 1, 1, 1], "width": 8, "block": "basic", "id2label": {0: "a", 1: "b", 2: "c"}}


@pytest.mark.parametrize("fields", [{}, {"multi_level": True}, {"block": "bottleneck"}, {"backbone": "vgg16"}])
def test_a_saved_network_comes_back_and_its_configuration_follows_from_it(fields: dict[str, Any], tmp_path) -> None:
    config = DeepLabV2Config(**{**SMALL, **fields})
    model = DeepLabV2(config).eval()
    model.save_pretrained(tmp_path)
    again, info = DeepLabV2.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())
    found = deeplab_config(shapes(model), ["a", "b", "c"], "advent")
    names = ("backbone", "depths", "width", "block", "multi_level", "id2label")
    assert [getattr(found, n) for n in names if config.backbone == "resnet" or n == "backbone"] == [
        getattr(config, n) for n in names if config.backbone == "resnet" or n == "backbone"
    ]


@pytest.mark.parametrize("system", ["advent", "adaptsegnet", "fada"])
def test_networks_train(system: str) -> None:
    from hf_lwmm.models.deeplab import SYSTEMS as PARTICULAR

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
    with pytest.raises(LayoutError, match="tells 19 classes apart, but 3 labels were given"):
        deeplab_config(multi, ["a", "b", "c"], None)
    with pytest.raises(LayoutError, match="--system cyclegan is none of advent, minent"):
        deeplab_config(multi, CITYSCAPES, "cyclegan")
    with pytest.raises(LayoutError, match="--system diga has another head"):
        deeplab_config(multi, CITYSCAPES, "diga")
    with pytest.raises(LayoutError, match=r"there is no network for PVTv2-B2, image classifier \(pvt/timm"):
        family_of(slot_map("timm_pvt_v2_b2"), "org/pvt")


def test_the_files_that_leave_no_trace_of_their_system_are_told_by_their_names() -> None:
    assert deeplab_config(slot_map("fada_r101"), CITYSCAPES, None).batch_norm_eps == 0
    assert deeplab_config(slot_map("fada_r101_bn"), CITYSCAPES, None).system == "fada"
    assert deeplab_config(slot_map("adaptsegnet_deeplab_vgg16"), CITYSCAPES, None).summed_branches == 2
    assert deeplab_config(slot_map("adaptsegnet_deeplab_multi_r101"), CITYSCAPES, None).system == "advent"
