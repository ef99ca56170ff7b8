"""Make a network's configuration from the shapes of a checkpoint's slots, and check what shapes do not show.

In each function, `slot_map` has the checkpoint's slots, and `classes` are the names of the classifier's rows. A
LayoutError says what is missing, has another shape, or does not fit the classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel, SegformerConfig

from hf_lwmm.describing import network_fields
from hf_lwmm.describing.network_slots import misfits
from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import SlotMap
from hf_lwmm.networks.bottleneck import BottleneckConfig
from hf_lwmm.networks.daformer import DAFormerConfig, DAFormerForSemanticSegmentation
from hf_lwmm.networks.deeplab import DeepLabV2Config
from hf_lwmm.networks.edaps import EDAPSConfig, EDAPSForPanopticSegmentation
from hf_lwmm.networks.faster_rcnn import FasterRCNNConfig, FasterRCNNForObjectDetection
from hf_lwmm.networks.hrda import HRDAConfig, HRDAForSemanticSegmentation
from hf_lwmm.networks.module_slots import slots_of
from hf_lwmm.networks.segformer_mmseg import SegformerMMSegConfig, SegformerMMSegForSemanticSegmentation


def faster_rcnn_config(slot_map: SlotMap, classes: Sequence[str]) -> FasterRCNNConfig:
    """Return the configuration of MIC's detector, with the published thresholds."""
    config = FasterRCNNConfig(**network_fields.faster_rcnn_fields(slot_map, classes))
    _check_slots(FasterRCNNForObjectDetection, config, slot_map)
    return config


def _check_slots(model: type[PreTrainedModel], config: PreTrainedConfig, slot_map: SlotMap) -> None:
    with torch.device("meta"):  # no weights are allocated
        network = model(config)
    if faults := misfits(slots_of(network).shapes, slot_map.shapes):
        raise LayoutError(f"The checkpoint does not fit a {model.__name__}: {faults}.")


def daformer_config(slot_map: SlotMap, classes: Sequence[str]) -> DAFormerConfig:
    """Return the configuration of DAFormer."""
    config = DAFormerConfig(**network_fields.daformer_fields(slot_map, classes))
    _check_slots(DAFormerForSemanticSegmentation, config, slot_map)
    return config


def hrda_config(slot_map: SlotMap, classes: Sequence[str]) -> HRDAConfig:
    """Return the configuration of HRDA, with the published scales and crops."""
    config = HRDAConfig(**network_fields.hrda_fields(slot_map, classes))
    _check_slots(HRDAForSemanticSegmentation, config, slot_map)
    return config


def edaps_config(slot_map: SlotMap, classes: Sequence[str]) -> EDAPSConfig:
    """Return the configuration of EDAPS, with the published thresholds."""
    config = EDAPSConfig(**network_fields.edaps_fields(slot_map, classes))
    _check_slots(EDAPSForPanopticSegmentation, config, slot_map)
    return config


def segformer_mmseg_config(slot_map: SlotMap, classes: Sequence[str]) -> SegformerMMSegConfig:
    """Return the configuration of MMSegmentation's SegFormer."""
    config = SegformerMMSegConfig(**network_fields.segformer_mmseg_fields(slot_map, classes))
    _check_slots(SegformerMMSegForSemanticSegmentation, config, slot_map)
    return config


def segformer_config(slot_map: SlotMap, classes: Sequence[str]) -> SegformerConfig:
    """Return the configuration of SegFormer."""
    return SegformerConfig(**network_fields.segformer_fields(slot_map, classes))


def deeplab_config(slot_map: SlotMap, classes: Sequence[str], system: str | None) -> DeepLabV2Config:
    """Return the configuration of DeepLabV2 as the code base `system` has it; a probable one if it is None."""
    return DeepLabV2Config(**network_fields.deeplab_fields(slot_map, classes, system))


def bottleneck_config(slot_map: SlotMap, classes: Sequence[str]) -> BottleneckConfig:
    """Return the configuration of a bottleneck classifier."""
    return BottleneckConfig(**network_fields.bottleneck_fields(slot_map, classes))
