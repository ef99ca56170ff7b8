"""The parts that two-stage detectors have in common: feature pyramid, region proposals, and the head on regions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from .boxes import BoxRules, anchors, best_boxes, moved


class RegionConfig(Protocol):
    """The part of a configuration that the modules here read; `EDAPSConfig` says what its fields mean."""

    @property
    def fpn_hidden_size(self) -> int: ...
    @property
    def box_hidden_size(self) -> int: ...
    @property
    def anchor_scale(self) -> float: ...
    @property
    def anchor_ratios(self) -> Sequence[float]: ...
    @property
    def proposals_per_level(self) -> int: ...
    @property
    def max_proposals(self) -> int: ...
    @property
    def proposal_iou(self) -> float: ...
    @property
    def box_score(self) -> float: ...
    @property
    def box_iou(self) -> float: ...
    @property
    def max_boxes(self) -> int: ...


def named_conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Return a convolution that keeps the size, under the name `conv`."""
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)))


class FeaturePyramid(nn.Module):
    """Every stage with the coarser ones added, and one more level that has every other pixel of the last."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(named_conv(inputs, width, 1) for inputs in channels)
        self.fpn_convs = nn.ModuleList(named_conv(width, width, 3) for _ in channels)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        laterals = [conv(stage) for conv, stage in zip(self.lateral_convs, features, strict=True)]
        for level in range(len(laterals) - 2, -1, -1):
            above = nn.functional.interpolate(laterals[level + 1], laterals[level].shape[-2:], mode="nearest")
            laterals[level] = laterals[level] + above
        levels = [conv(lateral) for conv, lateral in zip(self.fpn_convs, laterals, strict=True)]
        return (*levels, nn.functional.max_pool2d(levels[-1], 1, stride=2))


class RegionProposals(nn.Module):
    """The region proposal network: boxes on each pyramid level that may hold a thing."""

    def __init__(self, config: RegionConfig, stride: int, rules: BoxRules) -> None:
        super().__init__()
        self.config, self.stride, self.rules = config, stride, rules
        width, ratios = config.fpn_hidden_size, len(config.anchor_ratios)
        self.rpn_conv = nn.Conv2d(width, width, 3, padding=1)
        self.rpn_cls = nn.Conv2d(width, ratios, 1)
        self.rpn_reg = nn.Conv2d(width, 4 * ratios, 1)

    def forward(self, levels: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return (N, anchors, h, w) logits and (N, 4 * anchors, h, w) deltas of every level."""
        hidden = [nn.functional.relu(self.rpn_conv(level)) for level in levels]
        return tuple(self.rpn_cls(level) for level in hidden), tuple(self.rpn_reg(level) for level in hidden)

    def propose(self, logits: Sequence[Tensor], deltas: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Return the best boxes (P, 5) of one image.

        Args:
            logits, deltas: (anchors, h, w) and (4 * anchors, h, w) for every level.
            size: (H, W) of the image.
        """
        config, rules, boxes, scores, groups = self.config, self.rules, [], [], []
        for level, (level_logits, level_deltas) in enumerate(zip(logits, deltas, strict=True)):
            stride, device = self.stride << level, level_logits.device
            grid = anchors(level_logits.shape[1:], stride, config.anchor_scale, config.anchor_ratios, device, rules)
            score = level_logits.permute(1, 2, 0).flatten().sigmoid()
            best = score.topk(min(config.proposals_per_level, len(score))).indices
            boxes.append(moved(grid[best], level_deltas.permute(1, 2, 0).reshape(-1, 4)[best], size, rules))
            scores.append(score[best])
            groups.append(torch.full_like(best, level))
        box, score, group = torch.cat(boxes), torch.cat(scores), torch.cat(groups)
        real = (box[:, 2:] + rules.last_pixel > box[:, :2]).all(dim=1)
        return best_boxes(box[real], score[real], group[real], config.proposal_iou, config.max_proposals, rules)[0]


class BoxHead(nn.Module):
    """The class of a region, one of which is the background, and a move of its box for every class.

    The background has a move, too, if `moves_background`, though nothing uses it.
    """

    def __init__(self, inputs: int, width: int, things: int, moves_background: bool) -> None:
        super().__init__()
        self.fc_cls = nn.Linear(width, things + 1)
        self.fc_reg = nn.Linear(width, 4 * (things + moves_background))
        self.shared_fcs = nn.ModuleList([nn.Linear(inputs, width), nn.Linear(width, width)])

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Return (R, things + 1) logits and (R, 4 * moves) deltas of regions (R, channels, 7, 7)."""
        hidden = regions.flatten(1)
        for layer in self.shared_fcs:
            hidden = nn.functional.relu(layer(hidden))
        return self.fc_cls(hidden), self.fc_reg(hidden)


class RegionHead(nn.Module):
    """Classes and boxes of the proposed regions.

    Args:
        config: sizes and thresholds.
        levels: number of the pyramid levels that regions are pooled from.
        stride: that of the first pyramid level.
        rules: how the code base measures boxes.
        things: number of classes beside the background.
        background: row of the background in the classifier: 0, where it is moved like a class, or the last.
    """

    box_size = 7
    finest = 56  # a region with sides of at least twice this many pixels is pooled from the second level, and so on
    delta_stds = (0.1, 0.1, 0.2, 0.2)

    def __init__(
        self, config: RegionConfig, levels: int, stride: int, rules: BoxRules, things: int, background: int
    ) -> None:
        super().__init__()
        self.config, self.levels, self.stride, self.rules = config, levels, stride, rules
        self.first, self.things = int(background == 0), things
        inputs = config.fpn_hidden_size * self.box_size**2
        self.bbox_head = BoxHead(inputs, config.box_hidden_size, things, moves_background=background == 0)

    def levels_of(self, boxes: Tensor) -> Tensor:
        """Return the pyramid level (R,) that each box (R, 4) is pooled from."""
        width, height = (boxes[:, 2:] - boxes[:, :2] + self.rules.last_pixel).unbind(dim=1)
        levels = ((width * height).sqrt() / self.finest + 1e-6).log2().floor()
        return levels.clamp(0, self.levels - 1).long()

    def pool(self, levels: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
        """Return features (R, channels, size, size) of boxes (R, 4) from one image's levels (1, channels, h, w)."""
        of_box = self.levels_of(boxes)
        pooled = levels[0].new_zeros(len(boxes), levels[0].shape[1], size, size)
        for level, features in enumerate(levels[: self.levels]):
            rows = (of_box == level).nonzero()[:, 0]
            pooled[rows] = roi_align(
                features,
                [boxes[rows]],
                size,
                1 / (self.stride << level),
                sampling_ratio=self.rules.samples,
                aligned=self.rules.aligned,
            )
        return pooled

    def regions(
        self, levels: Sequence[Tensor], proposals: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (P, things + 1) and, for every class, deltas and moved boxes (P, things, 4) of one image.

        Args:
            levels: the levels of the feature pyramid, (1, channels, h, w) each.
            proposals: (P, 5) boxes with scores.
            size: (H, W) of the image.
        """
        logits, deltas = self.bbox_head(self.pool(levels, proposals[:, :4], self.box_size))
        deltas = deltas.unflatten(1, (-1, 4))[:, self.first :] * deltas.new_tensor(self.delta_stds)
        return logits, deltas, moved(proposals[:, None, :4], deltas, size, self.rules)

    def best(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best boxes (K, 5) and their classes (K,), 0 for the first thing, of what `regions` found."""
        config = self.config
        scores = logits.softmax(dim=1)[:, self.first : self.first + self.things]
        kept, rows = (scores > config.box_score).nonzero(as_tuple=True)
        return best_boxes(boxes[kept, rows], scores[kept, rows], rows, config.box_iou, config.max_boxes, self.rules)
