"""Find the parts that a config.json promises and the weights beside it lack, without torch.

Transformers would fill them at random, with a warning that few read, or refuse those of another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.describing.kinds import KINDS
from hf_lwmm.describing.network_slots import is_counter, network_slots, some
from hf_lwmm.layouts import LAYOUTS, Shape, names_a_classifier, place_of

_HEADED = ("ForSemanticSegmentation", "ForImageClassification")  # classes that have a head beside their backbone


def class_name(model: Checkpoint) -> str:
    """Return the name of the class of transformers that a configuration states, empty if it states none."""
    stated = model.config.get("architectures")
    name = str(stated[0]) if isinstance(stated, list) and stated and "model_type" in model.config else ""
    return name if name.isidentifier() else ""


def is_bare(model: Checkpoint) -> bool:
    """Return True if a model has no tensor besides those of a known backbone."""
    backbone = model.slot_map.backbone
    return backbone is not None and all(slot.startswith(f"{backbone.name}.") for slot in model.slot_map.slots)


def lacking(model: Checkpoint) -> str:
    """Say what a model's weights lack of the network of its config.json; empty if nothing, or nothing can be known.

    Slots are known of the networks of this package and of SegFormer. Of other classes of transformers it is known that
    they have a head.
    """
    name, config = class_name(model), model.config
    if any((kind.model_type, kind.model) == (config.get("model_type"), name) for kind in KINDS):
        return _lacking_slots(model)
    headless = config.get("id2label") == {} or config.get("num_labels") == 0
    return "its head" if name.endswith(_HEADED) and not headless and is_bare(model) else ""


def lacking_warning(model: Checkpoint) -> tuple[str, ...]:
    """Return a warning if a model's weights lack something of the network of its config.json."""
    lacks = lacking(model)
    if not lacks:
        return ()
    return (
        f"{model.label}: its config.json describes a {class_name(model)}, of which its weights lack {lacks}. "
        "transformers would fill that at random, or refuse it, so the card states no task and no line that loads the "
        "merge.",
    )


def _lacking_slots(model: Checkpoint) -> str:
    config = model.config
    if _layers(config) > len(model.tensors):
        return "most layers"
    try:
        needed = network_slots(config["model_type"], dict(config))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # settings left out, or senseless
        return ""
    given = model.slot_map.slots
    if all(slot in given or is_counter(slot) for slot in needed):
        return _other_shapes(needed, model)
    named = _named_slots(model)  # a head is found as a whole alone; what there is of it is not missing
    missing = [slot for slot in needed if slot not in given and slot not in named and not is_counter(slot)]
    return f"{len(missing)} slots ({some(missing)})" if missing else ""


def _other_shapes(needed: Mapping[str, Shape], model: Checkpoint) -> str:
    """Say which slots have another shape than the network's, but for classifiers, whose rows the labels tell."""
    given = model.slot_map.shapes
    other = [slot for slot, shape in needed.items() if given.get(slot, shape) != shape and not names_a_classifier(slot)]
    return f"{len(other)} slots in its shapes ({some(other)})" if other else ""


def _named_slots(model: Checkpoint) -> set[str]:
    """The slots that single tensors of no component would hold by the names that some layout has for them."""
    unknown = [slot for slot in model.slot_map.slots if place_of(slot) is None]
    starts = [(name, layout, prefix) for name in unknown for layout in LAYOUTS for prefix in layout.prefixes]
    return {
        part.slot
        for name, layout, prefix in starts
        if name.startswith(prefix)
        for part in layout.slots(name.removeprefix(prefix))
    }


def _layers(config: Mapping[str, Any]) -> int:
    """The number of layers that a configuration asks for, which may be too many to list."""
    depths = config.get("depths")
    counts = [*(depths if isinstance(depths, list) else ()), config.get("mask_depth"), config.get("num_encoder_blocks")]
    return sum(each for each in counts if isinstance(each, int))
