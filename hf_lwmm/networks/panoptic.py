"""Turn boxes, masks, centres and classes of pixels into one map of things and stuff, as EDAPS's evaluation does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def paste_mask(logits: Tensor, box: Tensor, size: Sequence[int], threshold: float) -> Tensor:
    """Stretch a mask (m, m) of logits over a box (x1, y1, x2, y2); return a bool mask (height, width) of the image."""
    x1, y1, x2, y2 = box.tolist()
    top, bottom = max(int(y1) - 1, 0), min(int(-(-y2 // 1)) + 1, size[0])
    left, right = max(int(x1) - 1, 0), min(int(-(-x2 // 1)) + 1, size[1])
    mask = torch.zeros(tuple(size), dtype=torch.bool, device=logits.device)
    if x2 <= x1 or y2 <= y1:
        return mask
    y = (torch.arange(top, bottom, device=logits.device, dtype=logits.dtype) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(left, right, device=logits.device, dtype=logits.dtype) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    pasted = nn.functional.grid_sample(logits.sigmoid()[None, None], grid[None], align_corners=False)
    mask[top:bottom, left:right] = pasted[0, 0] >= threshold
    return mask


def instances_of_boxes(
    boxes: Tensor, labels: Tensor, mask_logits: Tensor, size: Sequence[int], score: float, threshold: float
) -> Tensor:
    """Paint masks over one another, class after class, best first; return (height, width) int64 numbers, 0 for none.

    Args:
        boxes: (K, 5) x1, y1, x2, y2 in pixels of the map, and score, best first.
        labels: (K,) classes.
        mask_logits: (K, m, m).
        score: lowest score of a box that is painted.
        threshold: lowest probability of a pixel in a mask.
    """
    instances = torch.zeros(tuple(size), dtype=torch.int64, device=boxes.device)
    by_class = labels.argsort(stable=True)
    for number, row in enumerate(by_class[boxes[by_class, 4] >= score], start=1):
        instances[paste_mask(mask_logits[row], boxes[row, :4], size, threshold)] = number
    return instances


def centers_of(heatmap: Tensor, threshold: float, kernel: int, most: int) -> Tensor:
    """Return the peaks (K, 2) y, x of a heatmap (H, W); if there are `most` or more, those above the `most`-th best."""
    heatmap = nn.functional.threshold(heatmap, threshold, -1.0)
    highest = nn.functional.max_pool2d(heatmap[None, None], kernel, stride=1, padding=kernel // 2)[0, 0]
    peaks = torch.where(heatmap == highest, heatmap, -1.0)
    if int((peaks > 0).sum()) < most:
        return (peaks > 0).nonzero()
    return (peaks > peaks.flatten().topk(most).values[-1]).nonzero()


def instances_of_centers(centers: Tensor, offsets: Tensor) -> Tensor:
    """Return the number of the centre nearest to each pixel plus its offset: (H, W) int64 from 1, or 0 without centres.

    Args:
        centers: (K, 2) y, x.
        offsets: (2, H, W) dy, dx in pixels.
    """
    y, x = (torch.arange(length, device=offsets.device) for length in offsets.shape[1:])
    to_y, to_x = y[:, None] + offsets[0], x + offsets[1]
    nearest = torch.full_like(to_y, torch.inf)
    instances = torch.zeros_like(to_y, dtype=torch.int64)
    for number, (center_y, center_x) in enumerate(centers.tolist(), start=1):
        distance = (to_y - center_y) ** 2 + (to_x - center_x) ** 2
        instances[distance < nearest] = number
        nearest = torch.minimum(nearest, distance)
    return instances


def panoptic_map(
    semantic: Tensor, instances: Tensor, things: Sequence[int], *, stuff_area: int, divisor: int, void: int
) -> Tensor:
    """Return one map of `class * divisor + number`, where things of a class count from 1 and stuff has 0.

    An instance takes the thing class that most of its pixels have. Pixels of things outside of instances, pixels of
    stuff in an instance, and stuff classes smaller than `stuff_area` pixels stay void.

    Args:
        semantic: (H, W) class ids.
        instances: (H, W) instance numbers, 0 for none; their order is the order of the numbers in the map.
        things: ids of the thing classes.
        void: value of the pixels that stay void.
    """
    result = torch.full_like(instances, void)
    is_thing = torch.isin(semantic, torch.tensor(things, device=semantic.device))
    numbers = dict.fromkeys(things, 0)
    for instance in instances.unique().tolist():
        mask = (instances == instance) & is_thing
        if instance and mask.any():
            label = int(semantic[mask].bincount().argmax())
            numbers[label] += 1
            result[mask] = label * divisor + numbers[label]
    for label in semantic.unique().tolist():
        mask = (semantic == label) & (instances == 0)
        if label not in numbers and int(mask.sum()) >= stuff_area:
            result[mask] = label * divisor
    return result
