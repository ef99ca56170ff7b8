"""DAFormer: a MiT backbone with a context-aware decode head (Hoyer et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from .layers import ConvBNReLU, resize
from .mit import MitConfig, MitForSemanticSegmentation

DILATIONS = (1, 6, 12, 18)


@strict
class DAFormerConfig(MitConfig):
    """A MiT backbone and DAFormer's head.

    Args:
        embedding_size: channels that each stage is projected to.
        decoder_hidden_size: channels inside the head.
        dilations: of the parallel convolutions: a plain 1 x 1 convolution for a dilation of 1, a separable 3 x 3
            convolution for any other.
    """

    model_type = "hf-lwmm-daformer"

    embedding_size: int = 256
    decoder_hidden_size: int = 256
    dilations: list[int] | tuple[int, ...] = DILATIONS


class Embedding(nn.Module):
    """A linear map of every pixel's features, from (N, C, H, W) to (N, E, H, W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.proj(features.permute(0, 2, 3, 1))
        return projected.permute(0, 3, 1, 2)


class SeparableConv(nn.Module):
    """A dilated 3 x 3 convolution of each channel, then a 1 x 1 convolution across channels."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvBNReLU(inputs, inputs, 3, dilation, groups=inputs)
        self.pointwise_conv = ConvBNReLU(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.pointwise_conv(self.depthwise_conv(features))
        return result


class ContextFusion(nn.Module):
    """Parallel convolutions of several dilations (ASPP), joined by a 3 x 3 convolution."""

    def __init__(self, inputs: int, outputs: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.aspp_modules = nn.ModuleList(
            ConvBNReLU(inputs, outputs) if dilation == 1 else SeparableConv(inputs, outputs, dilation)
            for dilation in dilations
        )
        self.bottleneck = ConvBNReLU(len(dilations) * outputs, outputs, 3)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.bottleneck(torch.cat([branch(features) for branch in self.aspp_modules], dim=1))
        return result


def embeddings(widths: Sequence[int], outputs: int) -> nn.ModuleList:
    """Return a linear map for every stage, from its width to `outputs` features."""
    return nn.ModuleList(Embedding(width, outputs) for width in widths)


def fuse(features: Sequence[Tensor], embed_layers: nn.ModuleList, fuse_layer: nn.Module) -> Tensor:
    """Embed every stage, resize all to the first, concatenate and fuse them into (N, channels, H / 4, W / 4)."""
    size = features[0].shape[-2:]
    embedded = [resize(embed(stage), size) for embed, stage in zip(embed_layers, features, strict=True)]
    fused: Tensor = fuse_layer(torch.cat(embedded, dim=1))
    return fused


class FusionHead(nn.Module):
    """A head that embeds all stages, fuses them by a layer of its own, and classifies every pixel."""

    def __init__(
        self, config: MitConfig, embedding_size: int, fuse_layer: nn.Module, channels: int, outputs: int
    ) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, outputs, 1)
        self.embed_layers = embeddings(config.hidden_sizes, embedding_size)
        self.fuse_layer = fuse_layer
        self.dropout = nn.Dropout2d(config.classifier_dropout_prob)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.conv_seg(self.dropout(fuse(features, self.embed_layers, self.fuse_layer)))
        return logits


def context_fusion(config: DAFormerConfig) -> ContextFusion:
    """Return the layer that fuses the embedded stages in DAFormer's head."""
    inputs = len(config.hidden_sizes) * config.embedding_size
    return ContextFusion(inputs, config.decoder_hidden_size, config.dilations)


def daformer_head(config: DAFormerConfig) -> FusionHead:
    """Return DAFormer's context-aware decode head, which makes logits (N, num_labels, H / 4, W / 4)."""
    size, channels = config.embedding_size, config.decoder_hidden_size
    return FusionHead(config, size, context_fusion(config), channels, config.classes)


class DAFormerForSemanticSegmentation(MitForSemanticSegmentation):
    """DAFormer; its loss here is the cross-entropy, to which the original adds those of self-training."""

    config: DAFormerConfig
    config_class = DAFormerConfig  # transformers does not resolve the annotation, a string here

    def __init__(self, config: DAFormerConfig) -> None:
        super().__init__(config)
        self.decode_head = daformer_head(config)
        self.post_init()
