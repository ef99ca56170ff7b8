"""SegFormer of MMSegmentation 1.x, whose head differs from that of NVIDIA and transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from .layers import ConvBNReLU, resize
from .mit import MitConfig, MitForSemanticSegmentation


@strict
class SegformerMMSegConfig(MitConfig):
    """A MiT backbone and MMSegmentation's head, which is `decoder_hidden_size` channels wide."""

    model_type = "hf-lwmm-segformer-mmseg"

    embedding_norm_eps: float = 1e-6


class SegformerMMSegHead(nn.Module):
    """A normalised 1 x 1 convolution for every stage, and one more that fuses them, the first stage first."""

    def __init__(self, config: SegformerMMSegConfig) -> None:
        super().__init__()
        channels = config.decoder_hidden_size
        self.conv_seg = nn.Conv2d(channels, config.classes, 1)
        self.dropout = nn.Dropout2d(config.classifier_dropout_prob)
        self.convs = nn.ModuleList(ConvBNReLU(width, channels) for width in config.hidden_sizes)
        self.fusion_conv = ConvBNReLU(len(self.convs) * channels, channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        projected = [resize(conv(stage), size) for conv, stage in zip(self.convs, features, strict=True)]
        logits: Tensor = self.conv_seg(self.dropout(self.fusion_conv(torch.cat(projected, dim=1))))
        return logits


class SegformerMMSegForSemanticSegmentation(MitForSemanticSegmentation):
    """SegFormer with MMSegmentation 1.x's decode head."""

    config: SegformerMMSegConfig
    config_class = SegformerMMSegConfig  # transformers does not resolve the annotation, a string here

    def __init__(self, config: SegformerMMSegConfig) -> None:
        super().__init__(config)
        self.decode_head = SegformerMMSegHead(config)
        self.post_init()
