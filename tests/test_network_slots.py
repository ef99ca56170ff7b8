"""Merges know the slots of every network without torch; these are those that the network itself has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from manifests import NAMES, slot_map
from small_networks import LABELS, MIT

from hf_lwmm.checkpoints.checkpoint import classifier_rows
from hf_lwmm.checkpoints.companions import placeholders
from hf_lwmm.describing.kinds import KINDS, kind_of
from hf_lwmm.describing.network_fields import SYSTEM_FIELDS
from hf_lwmm.describing.network_slots import _NETWORKS, is_counter, misfits, network_slots, surplus
from hf_lwmm.labels import label_sets
from hf_lwmm.layouts import place_of
from hf_lwmm.networks.families import FAMILIES
from hf_lwmm.networks.module_slots import slots_of

DEEP = {
    **MIT,
    "depths": [2, 1, 3, 1],
    "patch_sizes": [7, 3, 3, 3],
    "sr_ratios": [8, 4, 2, 1],
    "mlp_ratios": [4, 2, 4, 1],
}
B5: dict[str, Any] = {
    "depths": [3, 6, 40, 3], "hidden_sizes": [64, 128, 320, 512], "num_attention_heads": [1, 2, 5, 8],
    "patch_sizes": [7, 3, 3, 3], "sr_ratios": [8, 4, 2, 1], "mlp_ratios": [4, 4, 4, 4],
    "id2label": {row: f"class {row}" for row in range(19)},
}  # fmt: skip
DAFORMER = {"embedding_size": 8, "decoder_hidden_size": 12}
BOXES = {"instance_decoder": "boxes", "fpn_hidden_size": 8, "box_hidden_size": 16, "mask_hidden_size": 12}
RESNET = {"width": 8, "depths": [1, 2, 1, 1], **LABELS}
BY_TYPE = {kind.model_type: family.model_class for kind, family in zip(KINDS, FAMILIES, strict=True)}


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("segformer", {"decoder_hidden_size": 16, **DEEP}),
        ("hf-lwmm-segformer-mmseg", {"decoder_hidden_size": 16, **DEEP}),
        ("hf-lwmm-daformer", {**DAFORMER, **B5}),
        ("hf-lwmm-hrda", {**DAFORMER, "attention_hidden_size": 10, **DEEP}),
        ("hf-lwmm-edaps", {**DAFORMER, **BOXES, "mask_depth": 3, "thing_ids": [0, 2], **DEEP}),
        ("hf-lwmm-edaps", {**DAFORMER, "instance_decoder": "centers", "thing_ids": [2], **DEEP}),
        *(
            ("hf-lwmm-deeplabv2", {**SYSTEM_FIELDS[system], "multi_level": multi, "block": block, **RESNET})
            for system, multi, block in (
                ("advent", True, "bottleneck"),
                ("fada", False, "basic"),
                ("diga", False, "bottleneck"),
            )
        ),
        ("hf-lwmm-deeplabv2", {"system": "adaptsegnet", "backbone": "vgg16", **LABELS}),
        *(
            ("hf-lwmm-bottleneck", {"bottleneck_size": 6, "normalised": normalised, "block": block, **RESNET})
            for normalised, block in ((True, "bottleneck"), (False, "basic"))
        ),
        ("hf-lwmm-faster-rcnn", {"block": "bottleneck", "fpn_hidden_size": 8, "box_hidden_size": 16, **RESNET}),
    ],
)  # fmt: skip
def test_the_slots_that_follow_from_a_configuration_are_the_networks(model_type: str, fields: dict[str, Any]) -> None:
    expected = network_slots(model_type, {"num_channels": 3, **fields})
    model_class: Any = BY_TYPE[model_type]
    with torch.device("meta"):
        own = slots_of(model_class(model_class.config_class(**fields)))
    assert expected == {slot: shape for slot, shape in own.shapes.items() if not is_counter(slot)}


def test_what_is_missing_misshapen_or_too_much_is_named() -> None:
    needed = network_slots("hf-lwmm-deeplabv2", {"backbone": "vgg16", **LABELS})
    first, bias = next(iter(needed)), "deeplab.branch0.bias"
    assert misfits(needed, needed) == "" and surplus(needed, {**needed, "x": (1,), "x.num_batches_tracked": ()}) == [
        "x"
    ]
    assert misfits(needed, {**needed, first: (2,)}) == f"1 have another shape ({first} is (2,), not {needed[first]})"
    assert "1 slots are missing (deeplab.branch0.bias)" in misfits(
        needed, {slot: shape for slot, shape in needed.items() if slot != bias}
    )


@pytest.mark.parametrize("system", [system for system in NAMES if kind_of(slot_map(system)) is not None])
def test_checkpoints_of_the_original_code_have_the_slots_of_their_networks(system: str) -> None:
    slots = slot_map(system)
    kind, rows = kind_of(slots), classifier_rows(slots) or 0
    assert kind is not None
    city = label_sets()["cityscapes19"].classes
    fields = kind.fields(slots, city if rows == len(city) else placeholders(rows), None)
    places = {slot: place_of(slot) for slot in slots.shapes}
    used = {slot: each[0].name for slot, each in places.items() if each and "unused" not in each[1].flags}
    given = {slot: shape for slot, shape in slots.shapes.items() if used.get(slot) in kind.layouts}
    needed = network_slots(kind.model_type, fields)
    assert misfits(needed, given) == "" and surplus(needed, given) == []


def test_the_slots_of_every_kind_are_known() -> None:
    assert {kind.model_type for kind in KINDS} == {*_NETWORKS}
