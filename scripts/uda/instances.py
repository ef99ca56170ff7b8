"""Losses of EDAPS's instance decoder: those of Mask R-CNN (He et al., ICCV 2017), for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou, masks_to_boxes, roi_align

from hf_lwmm.networks.boxes import anchors
from hf_lwmm.networks.edaps import EDAPSForPanopticSegmentation

_SMALLEST = 16  # pixels; smaller instances are ignored
_MASK = 28  # pixels; side of a predicted mask


def instance_loss(model: EDAPSForPanopticSegmentation, images: Tensor, labels: Tensor, instances: Tensor) -> Tensor:
    """Return the sum of the five losses of proposals, boxes and masks, averaged over images.

    Args:
        model: the network.
        images: (N, 3, H, W), normalised.
        labels: (N, H, W) int64 classes.
        instances: (N, H, W) int64; 0 = no instance.
    """
    levels = model.neck(model.features(images))
    logits, deltas = model.rpn_head(levels)
    total = images.new_zeros(())
    for i in range(len(images)):
        boxes, classes, masks = things_of(labels[i], instances[i], model.config.thing_ids)
        parts = ([level[i] for level in logits], [level[i] for level in deltas])
        total = total + _proposal_loss(model, *parts, boxes)
        with torch.no_grad():
            proposals = model.rpn_head.propose(*parts, images.shape[-2:])[:, :4]
        total = total + _region_loss(model, [level[i : i + 1] for level in levels], proposals, boxes, classes, masks)
    return total / len(images)


def things_of(labels: Tensor, instances: Tensor, things: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (K, 4), indices in `things` (K,) and masks (K, H, W) of the instances in an image."""
    numbers = instances.unique()
    masks = instances == numbers[numbers > 0][:, None, None]
    masks = masks[masks.sum((1, 2)) >= _SMALLEST]
    if not len(masks):
        return labels.new_zeros(0, 4).float(), labels.new_zeros(0), masks
    classes = torch.stack([labels[mask].mode().values for mask in masks])
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] += 1
    return boxes, torch.stack([torch.tensor(things).eq(c).long().argmax() for c in classes]), masks


def moves(boxes: Tensor, goals: Tensor) -> Tensor:
    """Return the deltas (dx / w, dy / h, log w, log h) from boxes to their goals: (K, 4)."""
    extent, goal = boxes[:, 2:] - boxes[:, :2], goals[:, 2:] - goals[:, :2]
    shift = goals[:, :2] + goal / 2 - boxes[:, :2] - extent / 2
    return torch.cat([shift / extent, (goal / extent).log()], dim=1)


def _drawn(rows: Tensor, most: int) -> Tensor:
    return rows[torch.randperm(len(rows))[:most]]


def _proposal_loss(
    model: EDAPSForPanopticSegmentation, logits: Sequence[Tensor], deltas: Sequence[Tensor], boxes: Tensor
) -> Tensor:
    config = model.config
    grid = torch.cat(
        [
            anchors(level.shape[1:], config.strides[0] << depth, config.anchor_scale, config.anchor_ratios)
            for depth, level in enumerate(logits)
        ]
    )
    scores = torch.cat([level.permute(1, 2, 0).flatten() for level in logits])
    shifts = torch.cat([level.permute(1, 2, 0).reshape(-1, 4) for level in deltas])
    overlap = box_iou(grid, boxes) if len(boxes) else grid.new_zeros(len(grid), 1)
    best, owner = overlap.max(dim=1)
    hit = best >= 0.6
    if len(boxes):
        hit |= ((overlap == overlap.max(dim=0).values) & (overlap > 0.2)).any(dim=1)
    positive = _drawn(hit.nonzero()[:, 0], 32)
    negative = _drawn(((best < 0.3) & ~hit).nonzero()[:, 0], 96 - len(positive))
    rows = torch.cat([positive, negative])
    loss = functional.binary_cross_entropy_with_logits(scores[rows], hit[rows].float())
    if len(positive):
        loss = loss + functional.l1_loss(shifts[positive], moves(grid[positive], boxes[owner[positive]]))
    return loss


def _region_loss(
    model: EDAPSForPanopticSegmentation,
    levels: Sequence[Tensor],
    proposals: Tensor,
    boxes: Tensor,
    classes: Tensor,
    masks: Tensor,
) -> Tensor:
    head, background = model.roi_head, len(model.config.thing_ids)
    regions = torch.cat([proposals, boxes])
    overlap = box_iou(regions, boxes) if len(boxes) else regions.new_zeros(len(regions), 1)
    best, owner = overlap.max(dim=1)
    positive = _drawn((best >= 0.5).nonzero()[:, 0], 12)
    rows = torch.cat([positive, _drawn((best < 0.5).nonzero()[:, 0], 48 - len(positive))])
    truth = torch.full((len(rows),), background)
    truth[: len(positive)] = classes[owner[positive]]
    scores, deltas = head.bbox_head(head.pool(levels, regions[rows], head.box_size))
    loss = functional.cross_entropy(scores, truth)
    if not len(positive):
        return loss
    chosen, found = torch.arange(len(positive)), truth[: len(positive)]
    goal = moves(regions[positive], boxes[owner[positive]]) / deltas.new_tensor(head.delta_stds)
    loss = loss + functional.l1_loss(deltas.unflatten(1, (background, 4))[chosen, found], goal)
    drawn = head.mask_head(head.pool(levels, regions[positive], head.mask_size))[chosen, found]
    place = torch.cat([owner[positive, None].float(), regions[positive]], dim=1)
    wanted = roi_align(masks[:, None].float(), place, _MASK, aligned=True)[:, 0]
    return loss + functional.binary_cross_entropy_with_logits(drawn, (wanted > 0.5).float())
