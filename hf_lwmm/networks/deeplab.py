"""DeepLabV2 of the UDA literature: ADVENT, MinEnt, AdaptSegNet, MaxSquare, FADA and DIGA.

Their files look alike, but their arithmetic differs; `SYSTEM_FIELDS` in `hf_lwmm.describing.network_fields` lists the
differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from .resnet import ResNet, resnet_stages

_ATROUS = (6, 12, 18, 24)


@strict
class DeepLabV2Config(PreTrainedConfig):
    """DeepLabV2 on a ResNet or VGG-16.

    Args:
        system: the code base whose arithmetic it has.
        backbone: `resnet` or `vgg16`.
        depths, width, block, dilations, stride_in_1x1, ceil_mode: those of `ResNet`, whose `kind` is `block`. The last
            two stages do not stride.
        batch_norm_eps: 0 for batch normalisation that is frozen and has no epsilon (FADA's).
        head: `aspp`, the sum of dilated convolutions, or `diga`.
        summed_branches: number of convolutions in the sum; the others are stored all the same.
        multi_level: True if there is an auxiliary classifier on the third stage.
        auxiliary_loss_weight: its weight in the loss.
        align_corners: True if logits are resized to an image with aligned corners.
    """

    model_type = "hf-lwmm-deeplabv2"

    system: str = "advent"
    backbone: str = "resnet"
    depths: list[int] | tuple[int, ...] = (3, 4, 23, 3)
    width: int = 64
    block: str = "bottleneck"
    dilations: list[Any] | tuple[Any, ...] = ((1, 1), (1, 1), (2, 2), (4, 4))
    stride_in_1x1: bool = True
    ceil_mode: bool = True
    batch_norm_eps: float = 1e-5
    head: str = "aspp"
    summed_branches: int = 4
    multi_level: bool = False
    auxiliary_loss_weight: float = 0.1
    align_corners: bool = True
    semantic_loss_ignore_index: int = 255

    @property
    def classes(self) -> int:
        """The number of classes of the network."""
        return len(self.id2label or ())


@dataclass
class DeepLabV2Output(SemanticSegmenterOutput):
    """Logits (N, C, h, w) of the main classifier and, of multi-level models, of the auxiliary one."""

    auxiliary_logits: Tensor | None = None


class AtrousClassifier(nn.Module):
    """The sum of parallel dilated 3 x 3 convolutions, from (N, channels, h, w) to (N, classes, h, w)."""

    def __init__(self, channels: int, classes: int, summed: int) -> None:
        super().__init__()
        self.summed = summed
        self.conv2d_list = nn.ModuleList(
            nn.Conv2d(channels, classes, 3, padding=dilation, dilation=dilation) for dilation in _ATROUS
        )

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.conv2d_list[0](features)
        for conv in self.conv2d_list[1 : self.summed]:
            logits = logits + conv(features)
        return logits


class SqueezeExcitation(nn.Module):
    """Channel weights that a small network computes from the channels' means over the image."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        weights: Tensor = self.se(features.mean(dim=(2, 3)))
        return features * weights[:, :, None, None]


class DigaHead(nn.Module):
    """A 1 x 1 and four dilated convolutions with group normalisation, concatenated, weighted and fused."""

    def __init__(self, channels: int, classes: int, hidden: int = 256, dropout: float = 0.1) -> None:
        super().__init__()

        def branch(kernel: int, dilation: int) -> nn.Sequential:
            conv = nn.Conv2d(channels, hidden, kernel, padding=dilation * (kernel // 2), dilation=dilation)
            return nn.Sequential(conv, nn.GroupNorm(32, hidden), nn.ReLU())

        self.conv2d_list = nn.ModuleList([branch(1, 1), *(branch(3, dilation) for dilation in _ATROUS)])
        joined = len(self.conv2d_list) * hidden
        self.bottleneck = nn.Sequential(
            SqueezeExcitation(joined), nn.Conv2d(joined, hidden, 3, padding=1), nn.GroupNorm(32, hidden)
        )
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(hidden, classes, 1, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.bottleneck(torch.cat([branch(features) for branch in self.conv2d_list], dim=1)))
        return logits


def vgg16_features() -> nn.Sequential:
    """Return VGG-16 with dilation in place of its last two pooling layers, and two more dilated layers (stride 8)."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, depth, dilation, pooled in (
        (64, 2, 1, True),
        (128, 2, 1, True),
        (256, 3, 1, True),
        (512, 3, 1, False),
        (512, 3, 2, False),
        (1024, 2, 4, False),
    ):
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=dilation, dilation=dilation), nn.ReLU()]
            inputs = width
        if pooled:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


class DeepLabV2ForSemanticSegmentation(PreTrainedModel):
    """DeepLabV2; the backbone's modules are the network's own, as the names in the original files have it."""

    config: DeepLabV2Config
    config_class = DeepLabV2Config  # transformers does not resolve the annotation, a string here
    base_model_prefix = ""
    main_input_name = "pixel_values"

    def __init__(self, config: DeepLabV2Config) -> None:
        super().__init__(config)
        if config.backbone == "vgg16":
            self.features = vgg16_features()
            self.classifier = AtrousClassifier(1024, config.classes, config.summed_branches)
        else:
            body = ResNet(
                config.depths,
                config.width,
                config.block,
                (1, 2, 1, 1),
                config.dilations,
                config.stride_in_1x1,
                config.ceil_mode,
                config.batch_norm_eps,
            )
            for name, module in body.named_children():
                self.add_module(name, module)
            if config.multi_level:
                self.layer5 = AtrousClassifier(body.channels[2], config.classes, config.summed_branches)
            if config.head == "diga":
                self.final = DigaHead(body.channels[3], config.classes)
            else:
                self.layer6 = AtrousClassifier(body.channels[3], config.classes, config.summed_branches)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> DeepLabV2Output:
        """Return logits (N, num_labels, h, w) of images (N, 3, H, W), normalised as the system does; h is about H / 8.

        Args:
            labels: (N, H, W) class ids; given these, the output has the cross-entropy as `loss`.
            output_hidden_states: also return the backbone's stages.
        """
        if self.config.backbone == "vgg16":
            stages: tuple[Tensor, ...] = (self.features(pixel_values),)
            logits = self.classifier(stages[-1])
        else:
            stages = resnet_stages(self, pixel_values)
            logits = self.final(stages[-1]) if self.config.head == "diga" else self.layer6(stages[-1])
        auxiliary = self.layer5(stages[2]) if self.config.multi_level else None
        loss = None
        if labels is not None:
            loss = self._loss(logits, labels)
            if auxiliary is not None:
                loss = loss + self.config.auxiliary_loss_weight * self._loss(auxiliary, labels)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return DeepLabV2Output(
            loss=loss, logits=logits, hidden_states=stages if wanted else None, auxiliary_logits=auxiliary
        )

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        size, corners = labels.shape[-2:], self.config.align_corners
        resized = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=corners)
        return nn.functional.cross_entropy(resized, labels.long(), ignore_index=self.config.semantic_loss_ignore_index)
