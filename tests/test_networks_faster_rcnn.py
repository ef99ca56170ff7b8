"""MIC's detector against the results of its own code: the forward pass, proposals and detections."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from manifests import slot_map
from reference import assert_equals_reference, fill, reference, seeded_image
from torch import Tensor
from torchvision.ops import box_iou

from hf_lwmm.labels import label_sets
from hf_lwmm.networks import FasterRCNNForObjectDetection
from hf_lwmm.networks.boxes import MASKRCNN_BENCHMARK, anchors, moved
from hf_lwmm.networks.faster_rcnn import FasterRCNNOutput
from hf_lwmm.networks.from_slots import faster_rcnn_config

SYSTEM = "mic_detector_r50_fpn"
SOFT = "mic_detector_r50_fpn_soft"
CLASSES = label_sets()["foggy-cityscapes8"].classes
SIZE = (192, 256)


@cache
def detector(soft: bool = False) -> FasterRCNNForObjectDetection:
    """The network with seeded weights; with those of its boxes weakened, it finds objects of seven classes."""
    model = FasterRCNNForObjectDetection(faster_rcnn_config(slot_map(SYSTEM), CLASSES))
    fill(model, SYSTEM)
    if soft:
        model.rpn_head.rpn_reg.weight.data *= 0.1
        model.roi_head.bbox_head.fc_reg.weight.data *= 0.3
        model.roi_head.bbox_head.fc_cls.bias.data = golden("cls_score_bias", SOFT)
    return model


@cache
def output(soft: bool = False, size: tuple[int, int] = SIZE) -> FasterRCNNOutput:
    with torch.no_grad():
        return detector(soft)(seeded_image(*size), output_hidden_states=True)


def golden(name: str, system: str = SYSTEM) -> Tensor:
    return torch.from_numpy(reference(system)[name])


def found_share(ours: Tensor, theirs: Tensor) -> float:
    """The share of their boxes (K, 5) that are among ours: IoU above 0.99, score within 1e-4."""
    one = torch.tensor([0, 0, 1, 1])
    near = (ours[:, None, 4] - theirs[None, :, 4]).abs() < 1e-4
    return float((near & (box_iou(ours[:, :4] + one, theirs[:, :4] + one) > 0.99)).any(dim=0).double().mean())


def test_the_network_computes_what_the_original_does() -> None:
    found = output()
    arrays = {
        f"{name}{level}": tensor
        for name, tensors in (("rpn_cls_", found.rpn_logits), ("rpn_bbox_", found.rpn_deltas))
        for level, tensor in enumerate(tensors)
    }
    arrays |= {f"features_{level}_mean": stage.mean(dim=1) for level, stage in enumerate(found.hidden_states)}
    arrays |= {f"features_fpn_{i}_mean": level.mean(dim=1) for i, level in enumerate(found.fpn_hidden_states[:3])}
    arrays |= {f"features_fpn_{level}": found.fpn_hidden_states[level] for level in (3, 4)}
    for name, ours in arrays.items():
        assert_equals_reference(ours, reference(SYSTEM)[name], name)


@pytest.mark.parametrize("level", range(5))
def test_anchors_are_the_originals(level: int) -> None:
    placed = anchors((2, 3), 4 << level, 8.0, (0.5, 1.0, 2.0), rules=MASKRCNN_BENCHMARK).reshape(2, 3, 3, 4)
    theirs = golden(f"cell_anchors_{level}")
    assert torch.equal(placed[0, 0], theirs)
    assert torch.equal(placed[1, 2], theirs + (4 << level) * torch.tensor([2, 1, 2, 1]))


def test_the_head_sees_in_fixed_boxes_what_the_original_does() -> None:
    head, levels, boxes = detector().roi_head, output().fpn_hidden_states, golden("fixed_boxes_x1y1x2y2")
    assert torch.equal(head.levels_of(boxes), golden("fixed_box_levels"))
    with torch.no_grad():
        regions = head.pool(levels, boxes, head.box_size)
        logits, deltas = head.bbox_head(regions)
        scaled = deltas.unflatten(1, (9, 4)) * torch.tensor(head.delta_stds)
        decoded = moved(boxes[:, None], scaled, SIZE, MASKRCNN_BENCHMARK)
    unclipped = golden("fixed_decoded_boxes").unflatten(1, (9, 4)).clamp(min=0)
    clipped = unclipped.minimum(torch.tensor([SIZE[1], SIZE[0]] * 2) - 1.0)
    assert_equals_reference(regions.mean(dim=1), reference(SYSTEM)["fixed_roi_feats_mean"])
    assert_equals_reference(logits, reference(SYSTEM)["fixed_cls_logits"])
    assert_equals_reference(deltas, reference(SYSTEM)["fixed_bbox_deltas"])
    assert_equals_reference(decoded, clipped.numpy())


@pytest.mark.parametrize("soft", [False, True])
def test_the_classes_of_proposals_are_the_originals(soft: bool) -> None:
    theirs, levels = reference(SOFT if soft else SYSTEM), output(soft).fpn_hidden_states
    with torch.no_grad():
        proposals = torch.from_numpy(theirs["proposals_x1y1x2y2score"])
        logits, _, _ = detector(soft).roi_head.regions(levels, proposals, SIZE)
    assert_equals_reference(logits, theirs["proposal_cls_logits"])


@pytest.mark.parametrize(("soft", "size", "prefix", "share"), [
    (False, SIZE, "", 0.98), (True, SIZE, "", 1.0), (True, (180, 250), "padded_", 1.0),
])  # fmt: skip
def test_proposals_and_detections_are_the_originals(
    soft: bool, size: tuple[int, int], prefix: str, share: float
) -> None:
    theirs, found = reference(SOFT if soft else SYSTEM), output(soft, size)
    proposals, boxes, labels = found.proposals[0], found.boxes[0], found.box_labels[0] + 1
    their_proposals, their_boxes, their_labels = (
        torch.from_numpy(theirs[prefix + name])
        for name in ("proposals_x1y1x2y2score", "det_bboxes_x1y1x2y2score", "det_labels")
    )
    assert len(proposals) == len(their_proposals) and len(boxes) == len(their_boxes)
    assert found_share(proposals, their_proposals) >= share
    assert torch.equal(boxes[:, 4], boxes[:, 4].sort(descending=True).values)
    hits = [found_share(boxes[labels == each], their_boxes[their_labels == each]) * int((their_labels == each).sum())
            for each in their_labels.unique()]  # fmt: skip
    assert sum(hits) / len(their_boxes) >= share


def test_images_of_any_size_are_filled_up_with_zeros() -> None:
    whole = np.zeros((1, 3, 192, 256), np.float32)
    whole[..., :180, :250] = seeded_image(180, 250)
    filled, given = detector(True)(torch.from_numpy(whole)), output(True, (180, 250))
    for ours, theirs in zip(filled.rpn_logits, given.rpn_logits, strict=True):
        assert torch.equal(ours, theirs)
    assert given.input_size == (180, 250) and float(given.boxes[0][:, 2].max()) <= 249
