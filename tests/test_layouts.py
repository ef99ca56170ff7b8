"""Layouts against the names, shapes and order of the real implementations."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import FORWARD_ORDERS, NAMES, forward_order, manifest, slot_map, stored, to_slots

from hf_lwmm.alignment import depth_order
from hf_lwmm.layouts import LAYOUTS, map_slots, place_of, registration_order
from hf_lwmm.layouts.mit import MIT, MIT_NVIDIA
from hf_lwmm.layouts.table import Pattern, generic

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
    "edaps_mitb5": "mit/nvidia + daformer/daformer",
    "edaps_bottomup_mitb5": "mit/nvidia",
    "hrda_mitb5": "mit/nvidia + daformer/hrda + scale_attention/hrda",
    "mic_mitb5": "mit/nvidia + daformer/hrda + scale_attention/hrda",
    "pipa_hrda_mitb5": "mit/nvidia + daformer/hrda + scale_attention/hrda",
}
# Networks that only the identity layout knows.
EXPECTED |= {name: "identity" for name in NAMES if name not in EXPECTED}


@pytest.mark.parametrize("system", NAMES)
def test_each_file_is_recognised_and_no_other(system: str) -> None:
    assert slot_map(system).layout == EXPECTED[system]


@pytest.mark.parametrize("system", NAMES)
def test_atoms_tile_every_tensor(system: str) -> None:
    slots = slot_map(system)
    for name, shape, _ in manifest(system):
        end = 0
        for atom in slots.atoms[name]:
            assert (atom.tensor, atom.start) == (name, end)
            end += math.prod(atom.shape)
        assert end == math.prod(shape), name


@pytest.mark.parametrize("system", [name for name in NAMES if EXPECTED[name] != "identity"])
def test_slots_lead_back_to_the_stored_names(system: str) -> None:
    for match in slot_map(system).matches:
        for name, _, _ in manifest(system):
            inner = name.removeprefix(match.prefix)
            for part in match.layout.slots(inner) if name.startswith(match.prefix) else ():
                assert match.layout.stored(part.slot) == (inner, match.layout.slots(inner))


@pytest.mark.parametrize("system", [name for name in NAMES if "hub_legacy" not in name and name != "edaps_mitb5"])
def test_registration_order_is_the_codes_own(system: str) -> None:
    names = [name for name, _, _ in manifest(system)]
    slots = map_slots({name: shape for name, shape, _ in sorted(manifest(system))})
    if slots.layout == EXPECTED[system] and not any(atom.slot == name for name in names for atom in slots.atoms[name]):
        assert registration_order(slots) == names
    else:
        known = [name for name in names if slots.atoms[name][0].slot != name]
        assert registration_order(slots)[: len(known)] == known


@pytest.mark.parametrize("system", [name for name in FORWARD_ORDERS if EXPECTED[name] != "identity"])
def test_depth_order_is_the_order_of_a_forward_pass(system: str) -> None:
    slots = slot_map(system)
    rank = {module: i for i, module in enumerate(forward_order(system))}
    modules: dict[str, dict[str, int]] = {}
    for place, slot in enumerate(depth_order(slots.slots)):
        found, name = place_of(slot), slots.slots[slot].tensor
        module = name.rpartition(".")[0]
        # MultiheadAttention uses its output projection without entering it as a module.
        if found and module in rank:
            # A tensor that stacks q, k and v is used where the last of them is.
            modules.setdefault(found[0].name, {})[module] = place
    for component, order in modules.items():
        if component == "segformer":  # its projections run side by side, in either order
            order = {module: i for module, i in order.items() if "linear" not in module or "fuse" in module}
        ranks = [rank[module] for module in sorted(order, key=order.__getitem__)]
        assert ranks == sorted(ranks), component


def test_the_classifier_comes_last_and_the_patch_embedding_first() -> None:
    order = depth_order(slot_map("hrda_mitb5").slots)
    assert order[0] == "mit.stage0.embed.proj.weight"
    assert order[-1] == "daformer.classifier.bias"
    # Scale attention is seven modules deep, the head beside it twenty-one.
    assert order.index("scale_attention.classifier.bias") < order.index("daformer.bottleneck.conv.weight")


def test_key_and_value_share_a_position_and_query_does_not() -> None:
    query, key, value = (MIT.place(f"stage0.block0.attn.{x}.weight") for x in "qkv")
    assert key and value and query and key.key == value.key != query.key


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_slot_of_a_layout_is_in_the_outline(layout) -> None:  # type: ignore[no-untyped-def]
    for line in layout.lines:
        for pattern in line.right:
            numbers = dict.fromkeys("sbi", 1)
            assert layout.component.place(pattern.write(numbers, "weight")), pattern


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


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from(["weight", "bias", "running_var"]))
def test_patterns_read_what_they_write(stage: int, block: int, leaf: str) -> None:
    pattern = Pattern("block{s+1}.{b}.attn.kv")
    name = pattern.write({"s": stage, "b": block}, leaf)
    assert pattern.read(name) == ({"s": stage, "b": block}, leaf)
    assert generic(name) in set(pattern.generics())


@pytest.mark.parametrize("name", ["block0.1.attn.kv.weight", "block1.01.attn.kv.weight", "block1.1.attn.kvx.weight"])
def test_patterns_read_nothing_else(name: str) -> None:
    assert Pattern("block{s+1}.{b}.attn.kv").read(name) is None
