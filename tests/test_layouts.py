"""Layouts against the names, shapes and order of tensors in real implementations: every file that is listed."""

from __future__ import annotations

import math
import pickle
from itertools import combinations

import numpy as np
import pytest
from manifests import (
    FORWARD_ORDERS,
    NAMES,
    forward_order,
    known,
    manifest,
    shrunk,
    slot_map,
)
from seeded import seeded

from hf_lwmm.layouts import depth_order, map_slots, place_of, registration_order

EXPECTED = {
    "transformers_segformer_b0_hub_legacy": "mit/transformers + segformer/transformers",
    "transformers_segformer_b5_hub_legacy": "mit/transformers + segformer/transformers",
    "transformers_segformer_b0_runtime": "mit/transformers-runtime + segformer/transformers-runtime",
    "transformers_segformer_b5_runtime": "mit/transformers-runtime + segformer/transformers-runtime",
    "nvlabs_segformer_b0": "mit/nvidia + segformer/nvidia",
    "nvlabs_segformer_b5": "mit/nvidia + segformer/nvidia",
    "mmseg1x_segformer_b0": "mit/mmseg + segformer/mmseg",
    "mmseg1x_segformer_b5": "mit/mmseg + segformer/mmseg",
    "smp_segformer_mit_b0": "mit/smp + segformer/smp",
    "smp_segformer_mit_b5": "mit/smp + segformer/smp",
    "smp_fpn_mit_b0": "mit/smp",
    "daformer_mitb5": "mit/nvidia + daformer/daformer",
    "cdac_mitb5": "mit/nvidia + daformer/daformer",
    "edaps_mitb5": "mit/nvidia + edaps_instance/edaps + daformer/daformer",
    "edaps_bottomup_mitb5": "mit/nvidia + edaps_center/edaps-bottomup + daformer/edaps-bottomup",
    "hrda_mitb5": "mit/nvidia + daformer/hrda + scale_attention/hrda",
    "mic_mitb5": "mit/nvidia + daformer/hrda + scale_attention/hrda",
    "pipa_hrda_mitb5": "mit/nvidia + daformer/hrda + scale_attention/hrda + pipa/pipa",
    "advent_deeplabv2_r101_multi": "resnet/deeplab-multi + deeplab/layer6",
    "advent_deeplabv2_r101_single": "resnet/torchvision + deeplab/layer6",
    "adaptsegnet_deeplab_multi_r101": "resnet/deeplab-multi + deeplab/layer6",
    "maxsquare_deeplab_multi_r101": "resnet/deeplab-multi + deeplab/layer6",
    "diga_segmodel_r101": "resnet/diga + diga/diga",
    "fada_r101": "resnet/fada + deeplab/classifier",
    "fada_r101_bn": "resnet/fada + deeplab/classifier",
    "smp_deeplabv3plus_resnet101": "resnet/smp + deeplabv3plus/smp",
    "timm_resnet101": "resnet/torchvision + imagenet/resnet-torchvision",
    "torchvision_resnet101": "resnet/torchvision + imagenet/resnet-torchvision",
    "transformers_resnet101_runtime": "resnet/transformers",
    "conmix_resnet50": "resnet/conmix-parts + bottleneck/conmix-parts",
    "mic_detector_r50_fpn": "resnet/maskrcnn-fpn + faster_rcnn/maskrcnn-fpn",
    "cvrn_psn_deeplab_r101": "resnet/deeplab-multi + deeplab/layer6",
    "cvrn_psn_maskrcnn_r101": "resnet/cvrn",
    "cvrn_upsnet_r101": "resnet/cvrn",
    "glc_sfunida_resnet50": "resnet/glc + bottleneck/glc",
    "adaptsegnet_deeplab_vgg16": "vgg/adaptsegnet-vgg + deeplab/classifier",
    "fada_vgg16": "vgg/fada + deeplab/classifier",
    "conmix_vit": "vit/conmix + bottleneck/conmix-parts",
    "open_clip_vit_b32": "vit/openai",
    "dinov2_vits14": "vit/dinov2",
    "dinov2_vits14_reg4": "vit/dinov2",
    "dinov3_vits16": "dinov3/dinov3",
    "beit_base_finetuned": "beit/timm + imagenet/beit-timm",
    "beit_base_pretrained": "beit/timm",
    "mmseg1x_upernet_swin": "swin/mmseg + upernet/mmseg + auxiliary/mmseg",
    "mmseg1x_upernet_convnext": "convnext/mmseg + upernet/mmseg + auxiliary/mmseg",
    "mmseg1x_deeplabv3plus_r18c": "resnet_c/mmseg + aspp_mmseg/mmseg + auxiliary/mmseg",
    "mmseg1x_deeplabv3_r18d": "resnet_d/mmseg + aspp_mmseg/mmseg + auxiliary/mmseg",
    "mmseg1x_pspnet_r18c": "resnet_c/mmseg + psp/mmseg + auxiliary/mmseg",
    "mmseg1x_fcn_hrnet": "hrnet/timm + fcn/mmseg",
    "mmseg1x_setr_pup_head": "setr_pup/mmseg",
    "mmseg1x_setr_mla_head": "setr_mla/mmseg",
    "mmseg1x_segmenter_head": "segmenter/mmseg",
    "mmseg1x_vit": "vit/mmseg",
    "timm_pvt_v2_b2": "pvt/timm + imagenet/pvt-timm",
    "transformers_pvt_v2_b2": "pvt/transformers",
}
# The number of tensors that no layout knows: heads of other networks, and weights that only training needs.
UNKNOWN = {"smp_fpn_mit_b0": 31, "conmix_vit": 48, "cvrn_psn_maskrcnn_r101": 42, "cvrn_upsnet_r101": 52,
           "open_clip_vit_b32": 151, "beit_base_pretrained": 2}  # fmt: skip

# The number of slots in each part, and the parts in each file.
PARTS = {
    "mit-b5": 1156, "mit-b0": 192, "daformer": 58, "attention": 16, "pipa": 17, "center": 60, "instance": 42,
    "segformer-256": 16, "segformer-768": 16, "unused": 2, "mmseg-b0": 32, "mmseg-b5": 32,
    "r101": 520, "r101-counters": 104, "aux": 8, "deeplab": 8, "diga": 29, "imagenet": 2, "deeplabv3plus": 61,
    "r50": 265, "r50-counters": 53, "faster-rcnn": 79, "aux-16": 8, "deeplab-16": 8,
    "vgg": 30, "dilated": 8, "pvt": 364, "bottleneck": 7, "office-65": 3, "office-15": 3, "vit": 354,
    "dinov2": 224, "registers": 1, "beit": 207, "beit-own": 26, "beit-shared": 5,
}  # fmt: skip
FAMILIES = {
    "MiT-B5": {
        "daformer_mitb5": "mit-b5 daformer",
        "cdac_mitb5": "mit-b5 daformer",
        "hrda_mitb5": "mit-b5 daformer attention",
        "mic_mitb5": "mit-b5 daformer attention",
        "pipa_hrda_mitb5": "mit-b5 daformer attention pipa",
        "edaps_mitb5": "mit-b5 daformer instance",
        "edaps_bottomup_mitb5": "mit-b5 daformer center",
        "nvlabs_segformer_b5": "mit-b5 segformer-768 unused",
        "transformers_segformer_b5_hub_legacy": "mit-b5 segformer-768",
        "transformers_segformer_b5_runtime": "mit-b5 segformer-768",
        "mmseg1x_segformer_b5": "mit-b5 mmseg-b5",
    },
    "MiT-B0": {
        "nvlabs_segformer_b0": "mit-b0 segformer-256 unused",
        "transformers_segformer_b0_hub_legacy": "mit-b0 segformer-256",
        "transformers_segformer_b0_runtime": "mit-b0 segformer-256",
        "smp_segformer_mit_b0": "mit-b0 segformer-256",
        "smp_fpn_mit_b0": "mit-b0",
        "mmseg1x_segformer_b0": "mit-b0 mmseg-b0",
    },
    "ResNet-101": {
        "advent_deeplabv2_r101_multi": "r101 r101-counters aux deeplab",
        "adaptsegnet_deeplab_multi_r101": "r101 r101-counters aux deeplab",
        "maxsquare_deeplab_multi_r101": "r101 r101-counters aux deeplab",
        "advent_deeplabv2_r101_single": "r101 r101-counters deeplab",
        "fada_r101": "r101 deeplab",
        "fada_r101_bn": "r101 r101-counters deeplab",
        "cvrn_psn_deeplab_r101": "r101 r101-counters aux-16 deeplab-16",
        "cvrn_psn_maskrcnn_r101": "r101 r101-counters",
        "cvrn_upsnet_r101": "r101 r101-counters",
        "diga_segmodel_r101": "r101 r101-counters diga",
        "smp_deeplabv3plus_resnet101": "r101 r101-counters deeplabv3plus",
        "timm_resnet101": "r101 r101-counters imagenet",
        "torchvision_resnet101": "r101 r101-counters imagenet",
        "transformers_resnet101_runtime": "r101 r101-counters",
    },
    "ResNet-50": {
        "glc_sfunida_resnet50": "r50 r50-counters bottleneck office-15",
        "conmix_resnet50": "r50 r50-counters bottleneck office-65",
        "mic_detector_r50_fpn": "r50 faster-rcnn",
    },
    "VGG-16": {"adaptsegnet_deeplab_vgg16": "vgg dilated", "fada_vgg16": "vgg dilated"},
    "PVTv2-B2": {"timm_pvt_v2_b2": "pvt imagenet", "transformers_pvt_v2_b2": "pvt"},
    "DINOv2-S": {"dinov2_vits14": "dinov2", "dinov2_vits14_reg4": "dinov2 registers"},
    "BEiT-B": {"beit_base_finetuned": "beit beit-own imagenet", "beit_base_pretrained": "beit beit-shared"},
    "ViT-B": {"conmix_vit": "vit bottleneck office-65"},
}
PAIRS = [(family, *pair) for family, systems in FAMILIES.items() for pair in combinations(systems, 2)]


@pytest.mark.parametrize("system", NAMES)
def test_each_file_has_its_layouts_and_no_others(system: str) -> None:
    slots = slot_map(system)
    assert slots.layout == EXPECTED[system]
    assert sum(place_of(slot) is None for slot in slots.slots) == UNKNOWN.get(system, 0)


@pytest.mark.parametrize(("family", "one", "other"), PAIRS, ids=lambda name: name)
def test_two_systems_share_the_parts_that_both_have(family: str, one: str, other: str) -> None:
    mine, theirs = (known(slot_map(system)) for system in (one, other))
    parts, others = (set(FAMILIES[family][system].split()) for system in (one, other))
    assert len(mine) == sum(PARTS[part] for part in parts)
    shared = [slot for slot, shape in mine.items() if theirs.get(slot) == shape]
    assert len(shared) == sum(PARTS[part] for part in parts & others)


@pytest.mark.parametrize("system", NAMES)
def test_atoms_tile_every_tensor(system: str) -> None:
    slots = slot_map(system)
    for name, shape, _ in manifest(system):
        end = 0
        for atom in slots.atoms[name]:
            assert (atom.tensor, atom.start) == (name, end)
            end += math.prod(atom.shape)
        assert end == math.prod(shape), name


@pytest.mark.parametrize("system", NAMES)
def test_slots_lead_back_to_the_stored_names(system: str) -> None:
    for match in slot_map(system).matches:
        for name, _, _ in manifest(system):
            inner = name.removeprefix(match.prefix)
            for part in match.layout.slots(inner) if name.startswith(match.prefix) else ():
                assert match.layout.stored(part.slot) == (inner, match.layout.slots(inner))


@pytest.mark.parametrize("system", NAMES)
def test_to_slots_and_back_is_the_same_bytes(system: str) -> None:
    factor = 1 if "_b0" in system or "_b2" in system else 16  # large networks with narrow layers
    slots = slot_map(system, factor)
    assert slots.layout == EXPECTED[system]
    prefixes = {match.layout.component.name: match for match in slots.matches}
    for name, shape, dtype in shrunk(system, factor):
        array = seeded(name, shape, dtype)
        atoms = slots.atoms[name]
        pieces = [array.reshape(-1)[a.start : a.start + math.prod(a.shape)] for a in atoms]
        if match := prefixes.get(atoms[0].slot.partition(".")[0]):
            assert {match.prefix + match.layout.stored(a.slot)[0] for a in atoms} == {name}  # type: ignore[index]
        assert np.concatenate(pieces).reshape(shape).tobytes() == array.tobytes()


# Except files on the Hub, which list names in alphabetical order.
@pytest.mark.parametrize("system", [name for name in NAMES if "hub_legacy" not in name])
def test_registration_order_is_that_of_the_code_base(system: str) -> None:
    names = [name for name, _, _ in manifest(system)]
    slots = map_slots({name: shape for name, shape, _ in sorted(manifest(system))})
    found = [name for name in names if place_of(slots.atoms[name][0].slot)]
    order = registration_order(slots)
    assert order[: len(found)] == found and sorted(order) == sorted(names)


@pytest.mark.parametrize("system", FORWARD_ORDERS)
def test_depth_order_is_the_order_of_a_forward_pass(system: str) -> None:
    slots = slot_map(system)
    rank = {module: i for i, module in enumerate(forward_order(system))}
    modules: dict[str, dict[str, int]] = {}
    for place, slot in enumerate(depth_order(slots.slots)):
        found, name = place_of(slot), slots.slots[slot].tensor
        module = name.rpartition(".")[0]
        # MultiheadAttention uses its output projection without calling it as a module.
        if found and module in rank:
            # A tensor that stacks q, k and v counts where the last of the three does.
            modules.setdefault(found[0].name, {})[module] = place
    for component, order in modules.items():
        if component == "segformer":  # its projections run side by side, and implementations differ in their order
            order = {module: i for module, i in order.items() if "linear" not in module or "fuse" in module}
        ranks = [rank[module] for module in sorted(order, key=order.__getitem__)]
        assert ranks == sorted(ranks), component


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.weight", (-0.375998646, -0.649078846)),
        ("a.bias", (0.001992865, -0.037736662)),
        ("n.running_var", (0.690492511, 1.235070825)),
        ("n.running_mean", (0.029271895, 0.04479845)),
    ],
)
def test_seeded_weights_equal_those_drawn_elsewhere(name: str, values: tuple[float, float]) -> None:
    shape = (2, 3) if name == "a.weight" else (2,)
    assert seeded(name, shape).reshape(-1)[:2] == pytest.approx(values, abs=1e-8)


def test_what_was_found_can_be_sent_to_another_process() -> None:
    found = slot_map("nvlabs_segformer_b0")
    order = registration_order(found)
    sent = pickle.loads(pickle.dumps(found))
    assert sent.atoms == found.atoms and registration_order(sent) == order
