"""Layouts against the names, shapes and order of tensors in real implementations."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import calls
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from manifests import FORWARD_ORDERS, NAMES, forward_order, manifest, shrunk, slot_map, stored, to_slots, write
from seeded import seeded

import hf_lwmm
from hf_lwmm.layouts import LAYOUTS, Form, SlotMap, depth_order, map_slots, place_of, registration_order
from hf_lwmm.layouts.language import Pattern, generic, read_table
from hf_lwmm.layouts.tables.mit import MIT, MIT_NVIDIA

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


def known(slots: SlotMap) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the slots that a layout knows."""
    return {slot: atom.shape for slot, atom in slots.slots.items() if place_of(slot)}


def on_meta(make: Callable[[], torch.nn.Module]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's tensors, without their values."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


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


def test_the_classifier_comes_last_and_the_patch_embedding_first() -> None:
    order = depth_order(slot_map("hrda_mitb5").slots)
    assert order[0] == "mit.stage0.embed.proj.weight"
    assert order[-1] == "daformer.classifier.bias"
    # Scale attention is 7 modules deep, the head beside it 21.
    assert order.index("scale_attention.classifier.bias") < order.index("daformer.bottleneck.conv.weight")


def test_the_auxiliary_classifier_comes_before_the_stage_after_it() -> None:
    order = depth_order(slot_map("maxsquare_deeplab_multi_r101").slots)
    aux = order.index("resnet.stage2.aux.branch0.weight")
    assert order.index("resnet.stage2.block22.bn3.running_var") < aux < order.index("resnet.stage3.block0.conv1.weight")
    assert order[0] == "resnet.stem.conv.weight" and order[-1] == "deeplab.branch3.bias"


def test_key_and_value_share_a_position_and_query_does_not() -> None:
    query, key, value = (MIT.place(f"stage0.block0.attn.{x}.weight") for x in "qkv")
    assert key and value and query and key.key == value.key != query.key


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_slot_of_a_layout_is_in_the_outline_and_leads_back(layout) -> None:  # type: ignore[no-untyped-def]
    for line in layout.lines:
        for pattern in line.right:
            every = (dict.fromkeys("bijkmn", 1) | {"s": stage} for stage in (1, 2, 3, 4, 5, 0))
            numbers = next(each for each in every if line.left[0].fits(each))
            assert layout.component.place(pattern.write(numbers, "weight")), pattern
            found = layout.stored(f"{layout.component.name}.{pattern.write(numbers, 'weight')}")
            assert found and found[0] == line.left[0].write(numbers, "weight")


def test_all_five_layouts_hold_the_same_backbone() -> None:
    systems = ("transformers_segformer_b5_hub_legacy", "transformers_segformer_b5_runtime", "nvlabs_segformer_b5")
    systems += ("mmseg1x_segformer_b5", "smp_segformer_mit_b5", "daformer_mitb5", "hrda_mitb5", "edaps_mitb5")
    backbones = [{s: a.shape for s, a in slot_map(x).slots.items() if s.startswith("mit.")} for x in systems]
    assert all(backbone == backbones[0] for backbone in backbones) and len(backbones[0]) == 1156


def test_hrda_holds_a_whole_daformer_head() -> None:
    heads = [
        {s: a.shape for s, a in slot_map(system).slots.items() if s.startswith("daformer.")}
        for system in ("daformer_mitb5", "hrda_mitb5", "edaps_mitb5")
    ]
    assert heads[0] == heads[1] == heads[2] and len(heads[0]) == 58


@pytest.mark.parametrize(
    ("name", "depths", "width"),
    [(variant.name, variant.depths, variant.width) for variant in MIT.variants],
)
def test_each_size_is_named(name: str, depths: tuple[int, ...], width: int) -> None:
    tensors = {}
    for line in MIT_NVIDIA.lines:
        for stage, depth in enumerate(depths):
            for block in range(depth):
                rows = width * len(line.right)
                tensors["backbone." + line.left[0].write({"s": stage, "b": block}, "weight")] = (rows, 4)
    assert map_slots(tensors).architecture == name


def test_the_hub_names_are_those_of_transformers_own_conversion() -> None:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    renames = get_checkpoint_conversion_mapping("SegformerModel")
    runtime = {slot: atom.tensor for slot, atom in slot_map("transformers_segformer_b0_runtime").slots.items()}
    for slot, atom in slot_map("transformers_segformer_b0_hub_legacy").slots.items():
        if not slot.startswith("mit."):
            continue
        name = atom.tensor
        for rename in renames:
            name = rename.rename_source_key(name)[0]
        assert name == runtime[slot]


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


def test_every_vit_holds_the_same_slots() -> None:
    import timm
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    runtime = on_meta(lambda: ViTForImageClassification(ViTConfig(num_labels=1000)))
    expected = known(map_slots(runtime))
    assert len(expected) == 5 + 12 * 16 + 4 and map_slots(runtime).architecture == "ViT-B, image classifier"
    slots = map_slots(on_meta(lambda: timm.create_model("vit_base_patch16_224")))
    assert slots.layout == "vit/timm + imagenet/vit-timm" and known(slots) == expected

    # Names as in files on the Hub, which transformers renames to those in memory.
    layout = next(layout for layout in LAYOUTS if layout.name == "vit/transformers")
    hub = {slot: layout.stored(slot) for slot in expected if slot.startswith("vit.")}
    names = {slot: "vit." + found[0] for slot, found in hub.items() if found}
    assert len(names) == len(hub)
    in_memory = {slot: atom.tensor for slot, atom in map_slots(runtime).slots.items()}
    renames = get_checkpoint_conversion_mapping("ViTModel")
    for slot, name in names.items():
        renamed = name
        for rename in renames:
            renamed = rename.rename_source_key(renamed)[0]
        assert renamed == in_memory[slot]
    assert map_slots({name: expected[slot] for slot, name in names.items()}).layout == "vit/transformers"


def test_conmix_shares_its_transformer_with_timms_hybrid() -> None:
    import timm

    hybrid = known(map_slots(on_meta(lambda: timm.create_model("vit_base_r50_s16_224"))))
    conmix = known(slot_map("conmix_vit"))
    lacking = {slot for slot in conmix if slot.startswith("vit.") and hybrid.get(slot) != conmix[slot]}
    assert lacking == {"vit.projection.weight", "vit.projection.bias"}


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


def test_values_keep_their_slot_in_every_layout() -> None:
    nvidia, mmseg = to_slots(stored("nvlabs_segformer_b0")), to_slots(stored("mmseg1x_segformer_b0"))
    shared = [slot for slot in nvidia if slot.startswith("mit.")]
    assert len(shared) == 192 and all((nvidia[slot] == mmseg[slot]).all() for slot in shared)


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from(["weight", "bias", "running_var"]))
def test_patterns_read_what_they_write(stage: int, block: int, leaf: str) -> None:
    pattern = Pattern("block{s+1}.{b}.attn.kv")
    name = pattern.write({"s": stage, "b": block}, leaf)
    assert pattern.read(name) == ({"s": stage, "b": block}, leaf)
    assert generic(name) in set(pattern.generics())


@pytest.mark.parametrize("name", ["block0.1.attn.kv.weight", "block1.01.attn.kv.weight", "block1.1.attn.kvx.weight"])
def test_patterns_read_nothing_else(name: str) -> None:
    assert Pattern("block{s+1}.{b}.attn.kv").read(name) is None


def test_a_line_with_no_rules_a_layout_out() -> None:
    (line,) = read_table("no blocks.{b}.attn.q_bias!")
    assert line.absent and not line.optional and line.left[0].read("blocks.1.attn.q_bias") == ({"b": 1}, "")
    blocks = {"blocks.0.attn.qkv.weight": (24, 8), "cls_token": (1, 1, 8), "pos_embed": (1, 5, 8)}
    names = ("patch_embed.proj", "blocks.0.norm1", "blocks.0.attn.proj", "blocks.0.norm2", "blocks.0.mlp.fc1")
    blocks |= {f"{name}.weight": (8, 8) for name in (*names, "blocks.0.mlp.fc2")}
    assert map_slots(blocks).layout == "vit/timm"
    assert map_slots(blocks | {"blocks.0.attn.q_bias": (8,)}).layout == "identity"


def test_flags_of_a_line_are_read() -> None:
    (line,) = read_table("positional_embedding! = embed.token_position! | embed.position! (-1d) (tokens?)")
    assert line.form("") == Form(ones=-1, tokens=True, bare=True)
    (line,) = read_table("embed.class! (with embed.token_position) (pretraining)")
    assert line.companion == "embed.token_position" and "pretraining" in line.flags


def test_what_follows_from_the_size_is_neither_merged_nor_converted(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{i}.safetensors", stored("beit_base_finetuned", i, shrink=16)) for i in (0, 1)]
    reasons = {entry.slot: entry.reason for entry in calls.plan(files).alignment.unshared}
    assert len(reasons) == 12 and all("relative_index" in slot for slot in reasons)
    conversion = hf_lwmm.convert(files[0], tmp_path / "transformers.safetensors", to="transformers")
    assert any("Left out 12 tensors that are computed when the network is built" in note for note in conversion.notes)
    assert map_slots({t.name: t.info.shape for t in conversion.tensors}).layout.startswith("beit/transformers")


def test_a_width_that_is_a_scalar_tells_no_size() -> None:
    shapes = {name: shape for name, shape, _ in manifest("nvlabs_segformer_b0")}
    told = map_slots(shapes)
    place = next(atom.tensor for slot, atom in told.slots.items() if slot == MIT.width_slot)
    assert told.architecture.startswith("MiT-B0") and "MiT-B0" not in map_slots({**shapes, place: ()}).architecture
