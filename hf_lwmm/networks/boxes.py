"""Place, move and select boxes, by the rules of the code base that a detector comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms


@dataclass(frozen=True)
class BoxRules:
    """The rules by which a code base measures boxes; by default those of MMDetection, which EDAPS is built on.

    Args:
        last_pixel: 1 if x2, y2 is the last pixel in a box, so that the box is x2 - x1 + 1 wide; 0 if it is its edge.
        whole_sides: True if the sides of anchors are rounded to pixels at the scale 1.
        most_shrinking: greatest factor by which a side can shrink; the greatest growth is 1000 / 16 everywhere.
        aligned, samples: whether RoIAlign shifts by half a pixel, and its samples along each side of a cell, 0 for as
            many as a cell has pixels.
    """

    last_pixel: int = 0
    whole_sides: bool = False
    most_shrinking: float = 1000 / 16
    aligned: bool = True
    samples: int = 0


MMDETECTION = BoxRules()
MASKRCNN_BENCHMARK = BoxRules(last_pixel=1, whole_sides=True, most_shrinking=math.inf, aligned=False, samples=2)


def anchors(
    size: Sequence[int],
    stride: int,
    scale: float,
    ratios: Sequence[float],
    device: torch.device | None = None,
    rules: BoxRules = MMDETECTION,
) -> Tensor:
    """Return (h * w * len(ratios), 4) boxes x1, y1, x2, y2 around the pixels of a feature map.

    Their centres are the top left corners of the pixels, or where boxes end at their last pixel, the centres.

    Args:
        size: (h, w) of the feature map.
        stride: distance between two of its pixels, in pixels of the image.
        scale: side of a square anchor in strides.
        ratios: ratios of height to width.
        device: where the boxes are made.
        rules: how the code base measures boxes.
    """
    ratio = torch.tensor(ratios, dtype=torch.float32)
    width, height = stride / ratio.sqrt(), stride * ratio.sqrt()
    if rules.whole_sides:
        width = width.round()
        height = (width * ratio).round()
    half = (torch.stack([width, height], dim=1) * scale - rules.last_pixel) / 2
    y, x = torch.meshgrid(*(torch.arange(length) * stride for length in size), indexing="ij")
    centres = torch.stack([x, y], dim=-1).reshape(-1, 1, 2) + rules.last_pixel * (stride - 1) / 2
    return torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4).to(device)


def moved(boxes: Tensor, deltas: Tensor, size: Sequence[int], rules: BoxRules = MMDETECTION) -> Tensor:
    """Move boxes (..., 4) by deltas (..., 4) = (dx / w, dy / h, log w, log h), and clip them to `size` (height, width).

    A side grows at most by a factor of 1000 / 16, and shrinks as the rules say.
    """
    corner, extent = boxes[..., :2], boxes[..., 2:] - boxes[..., :2] + rules.last_pixel
    centre = corner + extent / 2 + extent * deltas[..., :2]
    half = extent * deltas[..., 2:].clamp(-math.log(rules.most_shrinking), math.log(1000 / 16)).exp() / 2
    edge = boxes.new_tensor([size[1], size[0]]) - rules.last_pixel
    first, last = centre - half, centre + half - rules.last_pixel
    return torch.cat([first.clamp(min=0).minimum(edge), last.clamp(min=0).minimum(edge)], dim=-1)


def best_boxes(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, most: int, rules: BoxRules = MMDETECTION
) -> tuple[Tensor, Tensor]:
    """Suppress overlapping boxes in each group; return the others with scores (K, 5), best first, and groups (K,)."""
    edges = boxes + boxes.new_tensor([0, 0, rules.last_pixel, rules.last_pixel])
    kept = batched_nms(edges, scores, groups, iou)[:most]
    return torch.cat([boxes[kept], scores[kept, None]], dim=1), groups[kept]
