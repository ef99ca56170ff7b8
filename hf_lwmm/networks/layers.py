"""The small modules that the decode heads share, under the names of the original code bases."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    """Convolution without bias that keeps the size, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.relu(self.bn(self.conv(features)))


def resize(features: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (N, C, h, w) to (N, C, *size), bilinear without aligned corners, as all MiT networks here do."""
    if features.shape[-2:] == tuple(size):
        return features
    return nn.functional.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


def semantic_loss(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return the mean cross-entropy over the pixels that are not ignored.

    Args:
        logits: (N, C, h, w); they are resized to the labels.
        labels: (N, H, W) integer class ids.
    """
    return nn.functional.cross_entropy(resize(logits, labels.shape[-2:]), labels.long(), ignore_index=ignore_index)
