"""Networks of the UDA literature as transformers models; importing this package registers them with the Auto classes.

Modules that define networks import each other relatively and nothing else of this package, so that their code can
travel with a repository (`trust_remote_code=True`). timm and segmentation_models.pytorch are imported inside functions,
only for repositories of theirs.
"""

from __future__ import annotations

from hf_lwmm.errors import naming_extras

with naming_extras("hf_lwmm.networks"):
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForImageClassification,
        AutoModelForObjectDetection,
        AutoModelForSemanticSegmentation,
        AutoModelForUniversalSegmentation,
    )

from .bottleneck import BottleneckConfig, BottleneckForImageClassification
from .daformer import DAFormerConfig, DAFormerForSemanticSegmentation
from .deeplab import DeepLabV2Config, DeepLabV2ForSemanticSegmentation
from .edaps import EDAPSConfig, EDAPSForPanopticSegmentation
from .faster_rcnn import FasterRCNNConfig, FasterRCNNForObjectDetection
from .hrda import HRDAConfig, HRDAForSemanticSegmentation
from .image_processing import SegmentationImageProcessor
from .segformer_mmseg import SegformerMMSegConfig, SegformerMMSegForSemanticSegmentation

__all__ = [
    "BottleneckConfig",
    "BottleneckForImageClassification",
    "DAFormerConfig",
    "DAFormerForSemanticSegmentation",
    "DeepLabV2Config",
    "DeepLabV2ForSemanticSegmentation",
    "EDAPSConfig",
    "EDAPSForPanopticSegmentation",
    "FasterRCNNConfig",
    "FasterRCNNForObjectDetection",
    "HRDAConfig",
    "HRDAForSemanticSegmentation",
    "SegformerMMSegConfig",
    "SegformerMMSegForSemanticSegmentation",
    "SegmentationImageProcessor",
]

for _auto, _config, _model in (
    (AutoModelForSemanticSegmentation, DAFormerConfig, DAFormerForSemanticSegmentation),
    (AutoModelForSemanticSegmentation, HRDAConfig, HRDAForSemanticSegmentation),
    (AutoModelForSemanticSegmentation, SegformerMMSegConfig, SegformerMMSegForSemanticSegmentation),
    (AutoModelForSemanticSegmentation, DeepLabV2Config, DeepLabV2ForSemanticSegmentation),
    (AutoModelForSemanticSegmentation, EDAPSConfig, EDAPSForPanopticSegmentation),
    (AutoModelForUniversalSegmentation, EDAPSConfig, EDAPSForPanopticSegmentation),
    (AutoModelForObjectDetection, FasterRCNNConfig, FasterRCNNForObjectDetection),
    (AutoModelForImageClassification, BottleneckConfig, BottleneckForImageClassification),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    _auto.register(_config, _model, exist_ok=True)
    AutoImageProcessor.register(_config, slow_image_processor_class=SegmentationImageProcessor, exist_ok=True)
