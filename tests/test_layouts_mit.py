"""Layouts of MiT and the heads on it: one backbone under five kinds of names, sizes, and the order in depth."""

from __future__ import annotations

import pytest
from manifests import (
    manifest,
    slot_map,
    stored,
    to_slots,
)

from hf_lwmm.layouts import depth_order, map_slots
from hf_lwmm.layouts.tables.mit import MIT, MIT_NVIDIA


def test_the_classifier_comes_last_and_the_patch_embedding_first() -> None:
    order = depth_order(slot_map("hrda_mitb5").slots)
    assert order[0] == "mit.stage0.embed.proj.weight"
    assert order[-1] == "daformer.classifier.bias"
    # Scale attention is 7 modules deep, the head beside it 21.
    assert order.index("scale_attention.classifier.bias") < order.index("daformer.bottleneck.conv.weight")


def test_key_and_value_share_a_position_and_query_does_not() -> None:
    query, key, value = (MIT.place(f"stage0.block0.attn.{x}.weight") for x in "qkv")
    assert key and value and query and key.key == value.key != query.key


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


def test_values_keep_their_slot_in_every_layout() -> None:
    nvidia, mmseg = to_slots(stored("nvlabs_segformer_b0")), to_slots(stored("mmseg1x_segformer_b0"))
    shared = [slot for slot in nvidia if slot.startswith("mit.")]
    assert len(shared) == 192 and all((nvidia[slot] == mmseg[slot]).all() for slot in shared)


def test_a_width_that_is_a_scalar_tells_no_size() -> None:
    shapes = {name: shape for name, shape, _ in manifest("nvlabs_segformer_b0")}
    told = map_slots(shapes)
    place = next(atom.tensor for slot, atom in told.slots.items() if slot == MIT.width_slot)
    assert told.architecture.startswith("MiT-B0") and "MiT-B0" not in map_slots({**shapes, place: ()}).architecture
