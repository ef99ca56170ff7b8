"""Sliding windows: where they lie on an image, and a network's logits averaged over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Box = tuple[int, int, int, int]  # y1, y2, x1, x2


def window_boxes(size: Sequence[int], crop: Sequence[int], stride: Sequence[int]) -> list[Box]:
    """Windows of a size that cover an image, row by row; the last of a row or column is moved back inside.

    An image smaller than a window is one window, without padding.

    Args:
        size: (height, width) of the image in pixels; `crop` and `stride` are of the same form.
    """
    rows, columns = (_spans(*args) for args in zip(size, crop, stride, strict=True))
    return [(*row, *column) for row in rows for column in columns]


def _spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    count = -(-max(length - crop, 0) // stride) + 1
    ends = [min(index * stride + crop, length) for index in range(count)]
    return [(max(end - crop, 0), end) for end in ends]


@torch.no_grad()
def slide_inference(
    model: nn.Module | Callable[[Tensor], Any],
    pixel_values: Tensor,
    crop: Sequence[int],
    stride: Sequence[int],
    *,
    align_corners: bool = False,
) -> Tensor:
    """A network's logits at the size of the image, averaged over sliding windows.

    One window is computed at a time, so memory holds the accumulated map and one window's logits at full size.

    Args:
        model: called with a window (N, 3, h, w); its answer has `logits` (N, C, any, any).
        pixel_values: (N, 3, H, W) as the network takes them.
        crop: (height, width) of a window; one as large as the image means inference on the whole image.
        stride: (vertical, horizontal) step between windows.
        align_corners: how the network's code base resizes its logits (bilinear).

    Returns:
        (N, C, H, W) logits.
    """
    size = pixel_values.shape[-2:]
    total: Tensor | None = None
    count = pixel_values.new_zeros(size)
    for y1, y2, x1, x2 in window_boxes(size, crop, stride):
        logits = model(pixel_values[..., y1:y2, x1:x2]).logits
        logits = nn.functional.interpolate(logits, (y2 - y1, x2 - x1), mode="bilinear", align_corners=align_corners)
        if total is None:
            total = logits.new_zeros(*logits.shape[:2], *size)
        total[..., y1:y2, x1:x2] += logits
        count[y1:y2, x1:x2] += 1
    assert total is not None
    return total.div_(count)
