"""The ResNet of the UDA literature, whose code bases differ in strides, dilations, pooling and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

EXPANSION = {"basic": 1, "bottleneck": 4}


class Block(nn.Module):
    """A residual block: two 3 x 3 convolutions (basic), or 1 x 1, 3 x 3, 1 x 1 (bottleneck)."""

    def __init__(
        self, kind: str, inputs: int, width: int, stride: int, dilation: int, stride_in_1x1: bool, eps: float | None
    ) -> None:
        super().__init__()
        outputs = width * EXPANSION[kind]

        def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
            padding = dilation * (kernel // 2)
            return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)

        if kind == "basic":
            self.conv1 = conv(inputs, width, 3, stride, dilation)
            self.bn1 = batch_norm(width, eps)
            self.conv2 = conv(width, width, 3, 1, dilation)
            self.bn2 = batch_norm(width, eps)
        else:
            self.conv1 = conv(inputs, width, 1, stride if stride_in_1x1 else 1)
            self.bn1 = batch_norm(width, eps)
            self.conv2 = conv(width, width, 3, 1 if stride_in_1x1 else stride, dilation)
            self.bn2 = batch_norm(width, eps)
            self.conv3 = conv(width, outputs, 1)
            self.bn3 = batch_norm(outputs, eps)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), batch_norm(outputs, eps))

    def forward(self, features: Tensor) -> Tensor:
        change = self.bn2(self.conv2(nn.functional.relu(self.bn1(self.conv1(features)))))
        if hasattr(self, "conv3"):
            change = self.bn3(self.conv3(nn.functional.relu(change)))
        stream = features if self.downsample is None else self.downsample(features)
        return nn.functional.relu(stream + change)


def batch_norm(channels: int, eps: float | None) -> nn.Module:
    """Return batch normalisation; for an epsilon of 0 or None the frozen kind, whose four tensors are constants."""
    return nn.BatchNorm2d(channels, eps) if eps else FrozenBatchNorm2d(channels, 0.0)


def stage(
    kind: str,
    inputs: int,
    width: int,
    depth: int,
    stride: int,
    dilations: Sequence[int],
    stride_in_1x1: bool,
    eps: float | None,
) -> nn.Sequential:
    """Return the blocks of one stage; `dilations` are those of the first block and of the others."""
    first = Block(kind, inputs, width, stride, dilations[0], stride_in_1x1, eps)
    outputs = width * EXPANSION[kind]
    others = [Block(kind, outputs, width, 1, dilations[1], stride_in_1x1, eps) for _ in range(depth - 1)]
    return nn.Sequential(first, *others)


class ResNet(nn.Module):
    """Stem and four stages, under torchvision's names.

    Args:
        depths: blocks in each stage.
        width: channels of the stem, and of the first stage's inner convolutions; each stage doubles it.
        kind: `basic` (ResNet-18 and 34) or `bottleneck`.
        strides, dilations: one entry for each stage; the dilations are those of its first block and of the others.
        stride_in_1x1: True if a bottleneck strides in its first convolution (Caffe), not in its second (torchvision).
        ceil_mode: True if the pooling layer rounds sizes up.
        eps: epsilon of batch normalisation; 0 or None for frozen normalisation without epsilon.
    """

    def __init__(
        self,
        depths: Sequence[int],
        width: int = 64,
        kind: str = "bottleneck",
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[Sequence[int]] = ((1, 1), (1, 1), (1, 1), (1, 1)),
        stride_in_1x1: bool = False,
        ceil_mode: bool = False,
        eps: float | None = 1e-5,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = batch_norm(width, eps)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=ceil_mode)
        self.channels: list[int] = []  # of each stage's output
        inputs = width
        for index, (depth, stride, dilation) in enumerate(zip(depths, strides, dilations, strict=True)):
            inner = width << index
            layer = stage(kind, inputs, inner, depth, stride, dilation, stride_in_1x1, eps)
            setattr(self, f"layer{index + 1}", layer)
            inputs = inner * EXPANSION[kind]
            self.channels.append(inputs)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the stages, (N, channels[s], h_s, w_s)."""
        return resnet_stages(self, pixel_values)


def resnet_stages(network: Any, pixel_values: Tensor) -> tuple[Tensor, ...]:
    """Return the outputs of the stages of any network that has a ResNet's modules under their names."""
    features: Tensor = network.maxpool(nn.functional.relu(network.bn1(network.conv1(pixel_values))))
    stages = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        features = layer(features)
        stages.append(features)
    return tuple(stages)
