"""EDAPS: a MiT backbone shared by DAFormer's head and an instance decoder (Saha et al., ICCV 2023).

The instance decoder is that of Mask R-CNN; the paper's bottom-up ablation has one of centres and offsets instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from .boxes import MMDETECTION
from .daformer import DAFormerConfig, context_fusion, daformer_head, embeddings, fuse
from .layers import resize, semantic_loss
from .mit import MitPreTrainedModel
from .panoptic import centers_of, instances_of_boxes, instances_of_centers, panoptic_map
from .regions import FeaturePyramid, RegionHead, RegionProposals, named_conv


@strict
class EDAPSConfig(DAFormerConfig):
    """DAFormer's configuration, the instance decoder's, and the thresholds of the original evaluation.

    Args:
        instance_decoder: `boxes` (EDAPS) or `centers` (its bottom-up ablation).
        thing_ids: class ids of the countable classes, in the order of the box classifier's rows.
        fpn_hidden_size: channels of the feature pyramid and of the region proposal network.
        box_hidden_size: channels of the box head.
        mask_hidden_size, mask_depth: channels and number of the mask head's convolutions.
        anchor_scale, anchor_ratios: side of the square anchor in strides; ratios of height to width of all anchors.
        proposals_per_level, max_proposals, proposal_iou: number of best boxes that are kept of each pyramid level
            before non-maximum suppression, number kept after it, and the overlap above which a box is suppressed.
        box_score, box_iou, max_boxes: lowest score of a box, overlap above which it is suppressed, and most boxes.
        mask_threshold: lowest probability of a pixel in a mask.
        instance_score: lowest score of a box that becomes an instance of the panoptic map.
        center_score, center_kernel, max_centers: lowest value of a centre, side of its neighbourhood in pixels, and
            most centres.
        stuff_area: fewest pixels of a stuff class in the panoptic map.
        label_divisor: the panoptic map has `class * label_divisor + number`, and `255 * label_divisor` where void.
    """

    model_type = "hf-lwmm-edaps"

    instance_decoder: Literal["boxes", "centers"] = "boxes"
    thing_ids: list[int] | tuple[int, ...] = (11, 12, 13, 14, 15, 16, 17, 18)
    fpn_hidden_size: int = 256
    box_hidden_size: int = 1024
    mask_hidden_size: int = 256
    mask_depth: int = 4
    anchor_scale: float = 8.0
    anchor_ratios: list[float] | tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals_per_level: int = 1000
    max_proposals: int = 1000
    proposal_iou: float = 0.7
    box_score: float = 0.05
    box_iou: float = 0.5
    max_boxes: int = 100
    mask_threshold: float = 0.5
    instance_score: float = 0.95
    center_score: float = 0.1
    center_kernel: int = 7
    max_centers: int = 200
    stuff_area: int = 2048
    label_divisor: int = 1000


@dataclass
class EDAPSOutput(SemanticSegmenterOutput):
    """Semantic logits (N, C, H / 4, W / 4), and in evaluation the instances that the decoder found.

    Boxes are x1, y1, x2, y2 in pixels of the input and a score, best first. Tuples have a tensor for each image, unless
    they are said to have one for each level.

    Args:
        input_size: (H, W) of the images in pixels.
        fpn_hidden_states: five levels (N, channels, H / 4, W / 4) to (..., H / 64, W / 64).
        rpn_logits, rpn_deltas: (N, anchors, h, w) and (N, 4 * anchors, h, w) for each level.
        proposals: (P, 5).
        box_logits: (P, things + 1) of the proposals, with the background last.
        box_deltas: (P, things, 4), the moves of the proposals for every class.
        boxes: (K, 5).
        box_labels: (K,) class ids.
        mask_logits: (K, 28, 28).
        center_heatmap: (N, 1, H / 4, W / 4), bottom-up only.
        center_offsets: (N, 2, H / 4, W / 4) dy, dx in pixels of the input, bottom-up only.
    """

    input_size: tuple[int, int] | None = None
    fpn_hidden_states: tuple[Tensor, ...] | None = None
    rpn_logits: tuple[Tensor, ...] | None = None
    rpn_deltas: tuple[Tensor, ...] | None = None
    proposals: tuple[Tensor, ...] | None = None
    box_logits: tuple[Tensor, ...] | None = None
    box_deltas: tuple[Tensor, ...] | None = None
    boxes: tuple[Tensor, ...] | None = None
    box_labels: tuple[Tensor, ...] | None = None
    mask_logits: tuple[Tensor, ...] | None = None
    center_heatmap: Tensor | None = None
    center_offsets: Tensor | None = None


class MaskHead(nn.Module):
    """The mask of the thing in a region, for every class."""

    def __init__(self, config: EDAPSConfig) -> None:
        super().__init__()
        width = config.mask_hidden_size
        inputs = [config.fpn_hidden_size, *[width] * (config.mask_depth - 1)]
        self.convs = nn.ModuleList(named_conv(channels, width, 3) for channels in inputs)
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.conv_logits = nn.Conv2d(width, len(config.thing_ids), 1)

    def forward(self, regions: Tensor) -> Tensor:
        """Return (R, things, 28, 28) logits of regions (R, channels, 14, 14)."""
        for conv in self.convs:
            regions = nn.functional.relu(conv(regions))
        logits: Tensor = self.conv_logits(nn.functional.relu(self.upsample(regions)))
        return logits


class RoIHead(RegionHead):
    """Boxes and masks of the proposed regions."""

    mask_size = 14

    def __init__(self, config: EDAPSConfig) -> None:
        things = len(config.thing_ids)
        levels = len(config.hidden_sizes)
        super().__init__(config, levels, config.strides[0], MMDETECTION, things, background=things)
        self.thing_ids = config.thing_ids
        self.mask_head = MaskHead(config)

    def detect(self, levels: Sequence[Tensor], proposals: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
        """Return logits and deltas of one image, then boxes (K, 5), classes (K,) and mask logits (K, 28, 28).

        Args:
            levels: the levels of the feature pyramid, (1, channels, h, w) each.
            proposals: (P, 5) boxes with scores.
            size: (H, W) of the image.
        """
        logits, deltas, moved = self.regions(levels, proposals, size)
        boxes, rows = self.best(logits, moved)
        masks = self.mask_head(self.pool(levels, boxes[:, :4], self.mask_size))
        labels = torch.tensor(self.thing_ids, device=rows.device)[rows]
        return logits, deltas, boxes, labels, masks[torch.arange(len(rows)), rows]


class BottomUpHead(nn.Module):
    """DAFormer's head twice: for classes, and for centres of things and the offsets to them."""

    def __init__(self, config: EDAPSConfig) -> None:
        super().__init__()
        size, channels = config.embedding_size, config.decoder_hidden_size
        self.conv_seg = nn.Conv2d(channels, config.classes, 1)
        self.conv_center = nn.Conv2d(channels, 1, 1)
        self.conv_offset = nn.Conv2d(channels, 2, 1)
        self.dropout = nn.Dropout2d(config.classifier_dropout_prob)
        self.embed_layers_semantic = embeddings(config.hidden_sizes, size)
        self.fuse_layer_semantic = context_fusion(config)
        self.embed_layers_instance = embeddings(config.hidden_sizes, size)
        self.fuse_layer_instance = context_fusion(config)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (N, C, h, w), a heatmap (N, 1, h, w) and offsets (N, 2, h, w)."""
        semantic = self.dropout(fuse(features, self.embed_layers_semantic, self.fuse_layer_semantic))
        instance = self.dropout(fuse(features, self.embed_layers_instance, self.fuse_layer_instance))
        return self.conv_seg(semantic), self.conv_center(instance), self.conv_offset(instance)


class EDAPSForPanopticSegmentation(MitPreTrainedModel):
    """EDAPS; its loss here is the semantic one alone, and the instance decoder is for inference."""

    config: EDAPSConfig
    config_class = EDAPSConfig  # transformers does not resolve the annotation, a string here

    def __init__(self, config: EDAPSConfig) -> None:
        super().__init__(config)
        if config.instance_decoder == "boxes":
            self.neck = FeaturePyramid(config.hidden_sizes, config.fpn_hidden_size)
            self.rpn_head = RegionProposals(config, config.strides[0], MMDETECTION)
            self.roi_head = RoIHead(config)
            self.decode_head: nn.Module = daformer_head(config)
        else:
            self.decode_head = BottomUpHead(config)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> EDAPSOutput:
        """Return semantic logits and, in evaluation, instances of normalised RGB images (N, 3, H, W).

        Args:
            labels: (N, H, W) class ids; given these, the output has the cross-entropy of the semantic logits as `loss`.
            output_hidden_states: also return the backbone's stages.
        """
        features = self.features(pixel_values)
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        found: dict[str, Any] = {}
        if self.config.instance_decoder == "centers":
            logits, found["center_heatmap"], found["center_offsets"] = self.decode_head(features)
        else:
            logits = self.decode_head(features)
            if not self.training:
                found = self._find_instances(features, size)
        return EDAPSOutput(
            loss=None if labels is None else semantic_loss(logits, labels, self.config.semantic_loss_ignore_index),
            logits=logits,
            hidden_states=features if self.wants_hidden_states(output_hidden_states) else None,
            input_size=size,
            **found,
        )

    def _find_instances(self, features: Sequence[Tensor], size: tuple[int, int]) -> dict[str, Any]:
        levels = self.neck(features)
        logits, deltas = self.rpn_head(levels)
        images = range(len(features[0]))
        proposals = [self.rpn_head.propose([x[i] for x in logits], [x[i] for x in deltas], size) for i in images]
        found = [self.roi_head.detect([x[i : i + 1] for x in levels], proposals[i], size) for i in images]
        box_logits, box_deltas, boxes, labels, masks = zip(*found, strict=True)
        return {
            "fpn_hidden_states": levels,
            "rpn_logits": logits,
            "rpn_deltas": deltas,
            "proposals": tuple(proposals),
            "box_logits": box_logits,
            "box_deltas": box_deltas,
            "boxes": boxes,
            "box_labels": labels,
            "mask_logits": masks,
        }

    def post_process_panoptic(
        self, outputs: EDAPSOutput, target_sizes: Sequence[Sequence[int]] | None = None
    ) -> list[Tensor]:
        """Return a panoptic map (height, width) int64 of each image, by the configuration's thresholds.

        The value of a pixel is `class * label_divisor + number`, with number 0 for stuff and from 1 for things; that of
        a void pixel is `255 * label_divisor`.

        Args:
            outputs: the output of `forward` in evaluation.
            target_sizes: (height, width) of each map; the input's size if None.

        Raises:
            ValueError: if the network was in training mode, in which it looks for no instances.
        """
        assert outputs.logits is not None and outputs.input_size is not None
        config, maps = self.config, []
        sizes = target_sizes or [outputs.input_size] * len(outputs.logits)
        for image, size in enumerate(sizes):
            semantic = self._at(outputs, outputs.logits, image, size).argmax(dim=0)
            maps.append(
                panoptic_map(
                    semantic,
                    self._instances(outputs, semantic, image, size),
                    config.thing_ids,
                    stuff_area=config.stuff_area,
                    divisor=config.label_divisor,
                    void=255 * config.label_divisor,
                )
            )
        return maps

    def _at(self, outputs: EDAPSOutput, values: Tensor, image: int, size: Sequence[int]) -> Tensor:
        """The maps (C, *size) of one image, resized as the original does: to the input, then to the target."""
        assert outputs.input_size is not None
        return resize(resize(values[image : image + 1], outputs.input_size), size)[0]

    def _instances(self, outputs: EDAPSOutput, semantic: Tensor, image: int, size: Sequence[int]) -> Tensor:
        config = self.config
        if config.instance_decoder == "centers":
            assert outputs.center_heatmap is not None and outputs.center_offsets is not None
            heatmap = self._at(outputs, outputs.center_heatmap, image, size)[0]
            centers = centers_of(heatmap, config.center_score, config.center_kernel, config.max_centers)
            instances = instances_of_centers(centers, self._at(outputs, outputs.center_offsets, image, size))
            return instances * torch.isin(semantic, torch.tensor(config.thing_ids, device=semantic.device))
        if outputs.boxes is None or outputs.box_labels is None or outputs.mask_logits is None:
            raise ValueError("There are no instances: the network was in training mode. Call model.eval() first.")
        assert outputs.input_size is not None
        boxes = outputs.boxes[image]
        y, x = (target / given for target, given in zip(size, outputs.input_size, strict=True))
        boxes = boxes * boxes.new_tensor([x, y, x, y, 1])
        labels, masks = outputs.box_labels[image], outputs.mask_logits[image]
        return instances_of_boxes(boxes, labels, masks, size, config.instance_score, config.mask_threshold)
