"""Faster R-CNN with a feature pyramid as in maskrcnn-benchmark, which MIC's detectors are built on."""

from __future__ import annotations

from dataclasses import dataclass

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from .boxes import MASKRCNN_BENCHMARK
from .regions import FeaturePyramid, RegionHead, RegionProposals
from .resnet import ResNet

STRIDE = 4  # of the first pyramid level
MULTIPLE = 32  # of pixels, to which the sides of images are filled up with zeros


@strict
class FasterRCNNConfig(PreTrainedConfig):
    """Faster R-CNN on a ResNet with frozen batch normalisation, and the thresholds of the original evaluation.

    Args:
        depths, width, block: those of `ResNet`, whose `kind` is `block`.
        fpn_hidden_size, box_hidden_size, anchor_scale, anchor_ratios, proposals_per_level, max_proposals, proposal_iou,
            box_score, box_iou, max_boxes: as in `EDAPSConfig`.
    """

    model_type = "hf-lwmm-faster-rcnn"

    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    block: str = "bottleneck"
    fpn_hidden_size: int = 256
    box_hidden_size: int = 1024
    anchor_scale: float = 8.0
    anchor_ratios: list[float] | tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals_per_level: int = 1000
    max_proposals: int = 1000
    proposal_iou: float = 0.7
    box_score: float = 0.05
    box_iou: float = 0.5
    max_boxes: int = 100


@dataclass
class FasterRCNNOutput(ModelOutput):
    """The objects that the network found, by image, the best first.

    A box is x1, y1, x2, y2, its first and last pixels, and a score.

    Args:
        logits: (P, classes + 1) of the proposals, with the background first.
        box_deltas: (P, classes, 4), the moves of the proposals for every class.
        pred_boxes: (P, classes, 4), the proposals moved for every class.
        boxes: (K, 5).
        box_labels: (K,) class ids.
        input_size: (H, W) of the images in pixels.
        proposals: (P, 5).
        hidden_states: the backbone's stages.
        fpn_hidden_states: five levels (N, channels, H / 4, W / 4) to (..., H / 64, W / 64) of the filled up images.
        rpn_logits, rpn_deltas: (N, anchors, h, w) and (N, 4 * anchors, h, w) for each level.
    """

    logits: tuple[Tensor, ...] | None = None
    box_deltas: tuple[Tensor, ...] | None = None
    pred_boxes: tuple[Tensor, ...] | None = None
    boxes: tuple[Tensor, ...] | None = None
    box_labels: tuple[Tensor, ...] | None = None
    input_size: tuple[int, int] | None = None
    proposals: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    fpn_hidden_states: tuple[Tensor, ...] | None = None
    rpn_logits: tuple[Tensor, ...] | None = None
    rpn_deltas: tuple[Tensor, ...] | None = None


class FasterRCNNForObjectDetection(PreTrainedModel):
    """MIC's detector, for inference: it has no loss."""

    config: FasterRCNNConfig
    config_class = FasterRCNNConfig  # transformers does not resolve the annotation, a string here
    main_input_name = "pixel_values"

    def __init__(self, config: FasterRCNNConfig) -> None:
        super().__init__(config)
        self.backbone = ResNet(config.depths, config.width, config.block, stride_in_1x1=True, eps=None)
        self.neck = FeaturePyramid(self.backbone.channels, config.fpn_hidden_size)
        self.rpn_head = RegionProposals(config, STRIDE, MASKRCNN_BENCHMARK)
        levels, things = len(config.depths), len(config.id2label or ())
        self.roi_head = RegionHead(config, levels, STRIDE, MASKRCNN_BENCHMARK, things, background=0)
        self.post_init()

    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None) -> FasterRCNNOutput:
        """Return the objects in normalised BGR images (N, 3, H, W).

        Args:
            output_hidden_states: also return the backbone's stages.
        """
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        features = self.backbone(nn.functional.pad(pixel_values, (0, -size[1] % MULTIPLE, 0, -size[0] % MULTIPLE)))
        levels = self.neck(features)
        rpn_logits, rpn_deltas = self.rpn_head(levels)
        found = []
        for image in range(len(pixel_values)):
            own_logits, own_deltas = ([level[image] for level in each] for each in (rpn_logits, rpn_deltas))
            proposals = self.rpn_head.propose(own_logits, own_deltas, size)
            own_levels = [level[image : image + 1] for level in levels]
            logits, deltas, moved = self.roi_head.regions(own_levels, proposals, size)
            found.append((proposals, logits, deltas, moved, *self.roi_head.best(logits, moved)))
        proposals_of, logits_of, deltas_of, moved_of, boxes, labels = zip(*found, strict=True)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return FasterRCNNOutput(
            logits=logits_of,
            box_deltas=deltas_of,
            pred_boxes=moved_of,
            boxes=boxes,
            box_labels=labels,
            input_size=size,
            proposals=proposals_of,
            hidden_states=features if wanted else None,
            fpn_hidden_states=levels,
            rpn_logits=rpn_logits,
            rpn_deltas=rpn_deltas,
        )
