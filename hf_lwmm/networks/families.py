"""Recognise the family of a checkpoint's network by its slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig, PreTrainedModel, SegformerForSemanticSegmentation

from hf_lwmm.describing.kinds import KINDS, check_no_system, kind_of
from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import SlotMap
from hf_lwmm.networks.bottleneck import BottleneckForImageClassification
from hf_lwmm.networks.daformer import DAFormerForSemanticSegmentation
from hf_lwmm.networks.deeplab import DeepLabV2ForSemanticSegmentation
from hf_lwmm.networks.edaps import EDAPSForPanopticSegmentation
from hf_lwmm.networks.faster_rcnn import FasterRCNNForObjectDetection
from hf_lwmm.networks.from_slots import (
    bottleneck_config,
    daformer_config,
    deeplab_config,
    edaps_config,
    faster_rcnn_config,
    hrda_config,
    segformer_config,
    segformer_mmseg_config,
)
from hf_lwmm.networks.hrda import HRDAForSemanticSegmentation
from hf_lwmm.networks.segformer_mmseg import SegformerMMSegForSemanticSegmentation


@dataclass(frozen=True)
class Family:
    """A kind of network.

    `needs` names the components of layouts by which its checkpoints are recognised. `config_for` makes a configuration
    from a slot map, class names and the name of a system, and raises LayoutError if they do not fit. `task` is
    "semantic", "panoptic", "classification" or "detection".
    """

    name: str
    model_class: type[PreTrainedModel]
    needs: tuple[str, ...]
    config_for: Callable[[SlotMap, Sequence[str], str | None], PreTrainedConfig]
    task: str = "semantic"


_CLASSES: Mapping[str, type[PreTrainedModel]] = {
    cls.__name__: cls
    for cls in (
        BottleneckForImageClassification,
        DAFormerForSemanticSegmentation,
        DeepLabV2ForSemanticSegmentation,
        EDAPSForPanopticSegmentation,
        FasterRCNNForObjectDetection,
        HRDAForSemanticSegmentation,
        SegformerForSemanticSegmentation,
        SegformerMMSegForSemanticSegmentation,
    )
}


def _without_system(
    config_for: Callable[[SlotMap, Sequence[str]], PreTrainedConfig],
) -> Callable[[SlotMap, Sequence[str], str | None], PreTrainedConfig]:
    def with_system(slot_map: SlotMap, classes: Sequence[str], system: str | None) -> PreTrainedConfig:
        check_no_system(system)
        return config_for(slot_map, classes)

    return with_system


_CONFIGS: Mapping[str, Callable[[SlotMap, Sequence[str], str | None], PreTrainedConfig]] = {
    "bottleneck": _without_system(bottleneck_config),
    "daformer": _without_system(daformer_config),
    "deeplab": deeplab_config,
    "edaps": _without_system(edaps_config),
    "faster_rcnn": _without_system(faster_rcnn_config),
    "hrda": _without_system(hrda_config),
    "segformer_mmseg": _without_system(segformer_mmseg_config),
    "": _without_system(segformer_config),
}
FAMILIES = tuple(
    Family(kind.name, _CLASSES[kind.model], kind.needs, _CONFIGS[kind.module], kind.task) for kind in KINDS
)


def is_known(slot_map: SlotMap) -> bool:
    """Return True if there is a network for a checkpoint with these slots."""
    return _family(slot_map) is not None


def _family(slot_map: SlotMap) -> Family | None:
    kind = kind_of(slot_map)
    return None if kind is None else FAMILIES[KINDS.index(kind)]


def family_of(slot_map: SlotMap, label: str) -> Family:
    """Return the family of a checkpoint.

    Args:
        slot_map: the checkpoint's slots.
        label: its name, for the message.

    Raises:
        LayoutError: if there is no network for it.
    """
    if (family := _family(slot_map)) is not None:
        return family
    if slot_map.backbone is not None and len(slot_map.matches) == 1:
        others = [slot for slot in slot_map.slots if not slot.startswith(slot_map.backbone.name + ".")]
        beside = f" beside {', '.join(others[:2])}{', ...' if len(others) > 2 else ''}" if others else ""
        raise LayoutError(
            f"{label}: has no head that is known, only a backbone ({slot_map.architecture}, {slot_map.layout})"
            f"{beside}. It can be merged with a model that has a head, and renamed (convert --to), but not run."
        )
    known = ", ".join(dict.fromkeys(family.name for family in FAMILIES))
    raise LayoutError(
        f"{label}: there is no network for {slot_map.architecture} ({slot_map.layout}). There are: {known}. Code of "
        "your own runs with --network."
    )
