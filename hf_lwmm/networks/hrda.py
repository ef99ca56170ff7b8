"""HRDA: DAFormer at two resolutions with learned scale attention (Hoyer et al., ECCV 2022); also MIC and PiPa."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from .daformer import DAFormerConfig, FusionHead, daformer_head
from .layers import ConvBNReLU, resize, semantic_loss
from .mit import MitPreTrainedModel
from .windows import Box, window_boxes


@strict
class HRDAConfig(DAFormerConfig):
    """DAFormer's configuration, and the two resolutions at which HRDA sees an image.

    Args:
        attention_hidden_size: channels of the scale attention.
        context_scale: scale of the context image, which is seen whole.
        detail_crop_size: (height, width) of the crops of the image that are seen at full size.
        detail_crop_stride: (vertical, horizontal) step between them.
        detail_loss_weight: in training, the weight of the loss on the detail crop (lambda_d in the paper).
    """

    model_type = "hf-lwmm-hrda"

    attention_hidden_size: int = 256
    context_scale: float = 0.5
    detail_crop_size: list[int] | tuple[int, ...] = (512, 512)
    detail_crop_stride: list[int] | tuple[int, ...] = (256, 256)
    detail_loss_weight: float = 0.1


@dataclass
class HRDAOutput(SemanticSegmenterOutput):
    """The fused logits (N, C, H / 4, W / 4), and the parts that they are made of.

    Args:
        context_logits: (N, C, H / 8, W / 8), of the whole image at `context_scale`, before the attention.
        detail_logits: (N, C, H / 4, W / 4), averaged over the detail crops; 0 outside of them.
        attention: (N, C, H / 8, W / 8) in [0, 1], the weight of the detail.
        detail_boxes: (crops, 4) y1, y2, x1, x2 in pixels.
        hidden_states: the backbone's stages of the context image.
        detail_hidden_states: the stages of the crops, (crops * N, ...), all images of the first crop first.
    """

    context_logits: Tensor | None = None
    detail_logits: Tensor | None = None
    attention: Tensor | None = None
    detail_boxes: Tensor | None = None
    detail_hidden_states: tuple[Tensor, ...] | None = None


class HRDAHead(nn.Module):
    """One decode head for both resolutions, and the attention between them."""

    def __init__(self, config: HRDAConfig) -> None:
        super().__init__()
        self.head = daformer_head(config)
        width = config.attention_hidden_size
        fuse_layer = ConvBNReLU(len(config.hidden_sizes) * width, width)
        self.scale_attention = FusionHead(config, width, fuse_layer, width, config.classes)


class HRDAForSemanticSegmentation(MitPreTrainedModel):
    """HRDA: in evaluation detail crops cover the image; in training one crop is drawn, as in the paper."""

    config: HRDAConfig
    config_class = HRDAConfig  # transformers does not resolve the annotation, a string here

    def __init__(self, config: HRDAConfig) -> None:
        super().__init__(config)
        self.decode_head = HRDAHead(config)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> HRDAOutput:
        """Return logits (N, num_labels, H / 4, W / 4), and their parts, of normalised RGB images (N, 3, H, W).

        Args:
            labels: (N, H, W) class ids; given these, the output has the cross-entropy as `loss`.
            output_hidden_states: also return the backbone's stages at both resolutions.
        """
        head, scale = self.decode_head, self.config.context_scale
        context = nn.functional.interpolate(pixel_values, scale_factor=scale, mode="bilinear", align_corners=False)
        features = self.features(context)
        context_logits = head.head(features)
        attention = torch.sigmoid(head.scale_attention(features))

        boxes = self._detail_boxes(pixel_values)
        crops = torch.cat([pixel_values[..., y1:y2, x1:x2] for y1, y2, x1, x2 in boxes])
        detail_features = self.features(crops)
        crop_logits = head.head(detail_features)
        detail_logits, covered = self._placed(crop_logits, boxes, pixel_values)

        size = detail_logits.shape[-2:]
        weight = attention * nn.functional.interpolate(covered, attention.shape[-2:], mode="nearest")
        logits = resize((1 - weight) * context_logits, size) + resize(weight, size) * detail_logits
        asked = self.wants_hidden_states(output_hidden_states)
        return HRDAOutput(
            loss=None if labels is None else self._loss(logits, crop_logits, boxes[0], labels),
            logits=logits,
            hidden_states=features if asked else None,
            context_logits=context_logits,
            detail_logits=detail_logits,
            attention=attention,
            detail_boxes=torch.tensor(boxes),
            detail_hidden_states=detail_features if asked else None,
        )

    def _detail_boxes(self, pixel_values: Tensor) -> list[Box]:
        size, crop = pixel_values.shape[-2:], self.config.detail_crop_size
        if not self.training:
            return window_boxes(size, crop, self.config.detail_crop_stride)
        # So that the crop's border lies between pixels of the context's logits.
        step = round(self.config.strides[0] / self.config.context_scale)
        height, width = min(crop[0], size[0]), min(crop[1], size[1])
        y, x = (step * int(torch.randint((s - c) // step + 1, ())) for s, c in zip(size, (height, width), strict=True))
        return [(y, y + height, x, x + width)]

    def _placed(self, crop_logits: Tensor, boxes: Sequence[Box], pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """The crops' logits, averaged on a map (N, C, h, w) of the image, and a mask (1, 1, h, w) of the crops."""
        stride = self.config.strides[0]
        height, width = (-(-length // stride) for length in pixel_values.shape[-2:])
        total = crop_logits.new_zeros(len(pixel_values), crop_logits.shape[1], height, width)
        times = crop_logits.new_zeros(1, 1, height, width)
        for logits, (y1, _, x1, _) in zip(crop_logits.split(len(pixel_values)), boxes, strict=True):
            rows = slice(y1 // stride, y1 // stride + logits.shape[-2])
            columns = slice(x1 // stride, x1 // stride + logits.shape[-1])
            total[..., rows, columns] += logits
            times[..., rows, columns] += 1
        return total / times.clamp(min=1), (times > 0).to(total.dtype)

    def _loss(self, logits: Tensor, crop_logits: Tensor, box: Box, labels: Tensor) -> Tensor:
        ignore, detail = self.config.semantic_loss_ignore_index, self.config.detail_loss_weight
        loss = semantic_loss(logits, labels, ignore)
        if not self.training:
            return loss
        y1, y2, x1, x2 = box
        return (1 - detail) * loss + detail * semantic_loss(crop_logits, labels[:, y1:y2, x1:x2], ignore)
