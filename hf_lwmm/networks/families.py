"""Recognise the family of a checkpoint's network by its slots, and list how each family prepares images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, SegformerForSemanticSegmentation

from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import SlotMap
from hf_lwmm.networks.bottleneck import BottleneckConfig, BottleneckForImageClassification
from hf_lwmm.networks.daformer import DAFormerForSemanticSegmentation
from hf_lwmm.networks.deeplab import DeepLabV2Config, DeepLabV2ForSemanticSegmentation
from hf_lwmm.networks.edaps import EDAPSForPanopticSegmentation
from hf_lwmm.networks.from_slots import (
    bottleneck_config,
    daformer_config,
    deeplab_config,
    edaps_config,
    hrda_config,
    segformer_config,
    segformer_mmseg_config,
)
from hf_lwmm.networks.hrda import HRDAForSemanticSegmentation
from hf_lwmm.networks.segformer_mmseg import SegformerMMSegForSemanticSegmentation

Settings = Mapping[str, Any]  # arguments of `SegmentationImageProcessor`

_CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)
_CITY = {"height": 512, "width": 1024}
_CAFFE: Settings = {
    "size": _CITY,
    "resample": 3,
    "channel_order": "BGR",
    "image_mean": _CAFFE_MEAN,
    "image_std": (1, 1, 1),
    "align_corners": True,
}

# Image settings of the original evaluations by system or model type; what is not named here is the processor's default.
IMAGE_SETTINGS: Mapping[str, Settings] = {
    "hf-lwmm-daformer": {"size": {"shortest_edge": 512, "longest_edge": 1024}},
    "hf-lwmm-hrda": {"window": (1024, 1024), "stride": (512, 512)},
    "hf-lwmm-segformer-mmseg": {"window": (1024, 1024), "stride": (768, 768)},
    "advent": _CAFFE,
    "minent": _CAFFE,
    "adaptsegnet": _CAFFE,
    "maxsquare": _CAFFE,
    "fada": {"size": _CITY, "resample": 3, "align_corners": True},
    "fada-vgg16": {
        "size": _CITY,
        "resample": 3,
        "channel_order": "BGR",
        "image_mean": (103.939, 116.779, 123.68),
        "image_std": (1, 1, 1),
        "align_corners": True,
    },
    "diga": {
        "channel_order": "BGR",
        "image_mean": _CAFFE_MEAN,
        "image_std": (128, 128, 128),
        "align_corners": True,
    },
    "bottleneck": {"size": {"height": 256, "width": 256}, "crop_size": {"height": 224, "width": 224}},
}


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


def _without_system(
    config_for: Callable[[SlotMap, Sequence[str]], PreTrainedConfig],
) -> Callable[[SlotMap, Sequence[str], str | None], PreTrainedConfig]:
    def with_system(slot_map: SlotMap, classes: Sequence[str], system: str | None) -> PreTrainedConfig:
        if system is not None:
            raise LayoutError(f"--system {system} does not apply: the tensors alone decide which network this is.")
        return config_for(slot_map, classes)

    return with_system


# A checkpoint's family is the first whose components it all has, so that those with more parts come first.
FAMILIES: tuple[Family, ...] = (
    Family(
        "EDAPS", EDAPSForPanopticSegmentation, ("mit", "daformer", "edaps_instance"),
        _without_system(edaps_config), "panoptic",
    ),
    Family(
        "EDAPS bottom-up", EDAPSForPanopticSegmentation, ("mit", "daformer", "edaps_center"),
        _without_system(edaps_config), "panoptic",
    ),
    Family("HRDA", HRDAForSemanticSegmentation, ("mit", "daformer", "scale_attention"), _without_system(hrda_config)),
    Family("DAFormer", DAFormerForSemanticSegmentation, ("mit", "daformer"), _without_system(daformer_config)),
    Family(
        "MMSegmentation SegFormer", SegformerMMSegForSemanticSegmentation, ("mit", "segformer_mmseg"),
        _without_system(segformer_mmseg_config),
    ),
    Family("SegFormer", SegformerForSemanticSegmentation, ("mit", "segformer"), _without_system(segformer_config)),
    Family("DeepLabV2", DeepLabV2ForSemanticSegmentation, ("resnet", "deeplab"), deeplab_config),
    Family("DeepLabV2", DeepLabV2ForSemanticSegmentation, ("resnet", "diga"), deeplab_config),
    Family("DeepLabV2", DeepLabV2ForSemanticSegmentation, ("vgg", "deeplab"), deeplab_config),
    Family(
        "bottleneck classifier", BottleneckForImageClassification, ("resnet", "bottleneck"),
        _without_system(bottleneck_config), "classification",
    ),
)  # fmt: skip


def is_known(slot_map: SlotMap) -> bool:
    """Return True if there is a network for a checkpoint with these slots."""
    return _family(slot_map) is not None


def _family(slot_map: SlotMap) -> Family | None:
    found = {match.layout.component.name for match in slot_map.matches}
    return next((family for family in FAMILIES if set(family.needs) <= found), None)


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


def image_settings(config: PreTrainedConfig) -> Settings:
    """Return the settings with which the original evaluation of a network prepares images."""
    if isinstance(config, BottleneckConfig):
        return IMAGE_SETTINGS["bottleneck"]
    if not isinstance(config, DeepLabV2Config):
        return IMAGE_SETTINGS.get(config.model_type, {})
    vgg = f"{config.system}-{config.backbone}"
    return IMAGE_SETTINGS.get(vgg, IMAGE_SETTINGS[config.system])
