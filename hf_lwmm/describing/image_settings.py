"""List how the original evaluation of each network prepares images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    "hf-lwmm-faster-rcnn": {
        "size": {"shortest_edge": 800, "longest_edge": 1600},
        "channel_order": "BGR",
        "image_mean": (102.9801, 115.9465, 122.7717),
        "image_std": (1, 1, 1),
    },
    "hf-lwmm-bottleneck": {"size": {"height": 256, "width": 256}, "crop_size": {"height": 224, "width": 224}},
}


def image_settings(model_type: str, system: str = "", backbone: str = "") -> Settings:
    """Return the settings with which the original evaluation of a network prepares images.

    Args:
        model_type: the network's, as its configuration has it.
        system: the code base of a DeepLabV2.
        backbone: the backbone of a DeepLabV2.
    """
    found = (IMAGE_SETTINGS.get(name) for name in (f"{system}-{backbone}", system, model_type))
    return next((settings for settings in found if settings is not None), {})
