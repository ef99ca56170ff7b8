"""EDAPS against the results of its own code, and the ways from boxes and centres to a panoptic map."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from manifests import slot_map
from reference import assert_equals_reference, compare, fill, reference, seeded_image
from torch import Tensor
from torchvision.ops import box_iou

from hf_lwmm.errors import OutputError
from hf_lwmm.evaluation.class_map import best_classes
from hf_lwmm.evaluation.inference import window_logits
from hf_lwmm.labels import label_sets
from hf_lwmm.networks import DAFormerForSemanticSegmentation, EDAPSConfig, EDAPSForPanopticSegmentation
from hf_lwmm.networks.boxes import anchors, best_boxes, moved
from hf_lwmm.networks.edaps import EDAPSOutput
from hf_lwmm.networks.finite import check_outputs
from hf_lwmm.networks.from_slots import daformer_config, edaps_config
from hf_lwmm.networks.panoptic import (
    centers_of,
    instances_of_boxes,
    instances_of_centers,
    panoptic_map,
    paste_mask,
)

CITYSCAPES = label_sets()["cityscapes19"].classes
SIZE = (256, 256)  # of the panoptic maps; the network saw 128 x 128
TO_MAP = torch.tensor([2.0, 2.0, 2.0, 2.0, 1.0])


@cache
def edaps_b5() -> EDAPSForPanopticSegmentation:
    config = edaps_config(slot_map("edaps_mitb5"), CITYSCAPES)
    return fill(EDAPSForPanopticSegmentation(config), "edaps_mitb5")


@cache
def output() -> EDAPSOutput:
    with torch.no_grad():
        return edaps_b5()(seeded_image(128, 128), output_hidden_states=True)


def golden(name: str) -> Tensor:
    return torch.from_numpy(reference("edaps_mitb5_panoptic")[name])


def drawn(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


def agreement(ours: Tensor, theirs: Tensor) -> float:
    return float((ours == theirs).double().mean())


def test_edaps_computes_what_the_original_does() -> None:
    roi_head, found = edaps_b5().roi_head, output()
    with torch.no_grad():
        scores, deltas = roi_head.bbox_head(drawn(2, 256, 7, 7))
        masks = roi_head.mask_head(drawn(2, 256, 14, 14))
    arrays = {"logits": found.logits, "bbox_head_cls": scores, "bbox_head_reg": deltas, "mask_head_logits": masks}
    levels = {
        "features_": found.hidden_states,
        "features_fpn_": found.fpn_hidden_states,
        "rpn_cls_": found.rpn_logits,
        "rpn_bbox_": found.rpn_deltas,
    }
    for prefix, tensors in levels.items():
        arrays |= {f"{prefix}{level}": tensor for level, tensor in enumerate(tensors)}
    compare("edaps_mitb5", arrays)


def test_the_heads_see_in_a_region_what_the_originals_do() -> None:
    roi_head, levels = edaps_b5().roi_head, output().fpn_hidden_states
    proposals = golden("proposals_x1y1x2y2score")[:, :4]
    assert torch.equal(roi_head.levels_of(proposals), golden("proposal_levels"))
    with torch.no_grad():
        regions = roi_head.pool(levels, proposals, roi_head.box_size)
        scores, deltas = roi_head.bbox_head(regions)
        boxes, labels = golden("det_bboxes_x1y1x2y2score") / TO_MAP, golden("det_labels")
        masks = roi_head.mask_head(roi_head.pool(levels, boxes[:, :4], roi_head.mask_size))
    masks = masks[torch.arange(len(labels)), labels]
    for name, ours in {
        "roi_feats_first32_mean": regions[:32].mean(dim=1),
        "roi_feats_first32_c8": regions[:32, :8],
        "proposal_cls_logits": scores,
        "proposal_bbox_deltas": deltas,
        "det_mask_logits_first20": masks[:20],
        "det_mask_logits_mean": masks.mean(dim=(1, 2)),
    }.items():
        assert_equals_reference(ours, golden(name).numpy(), name)


def found_share(ours: Tensor, theirs: Tensor) -> float:
    """The share of their boxes (K, 5) that are among ours: IoU above 0.99, score within 1e-4."""
    near = (ours[:, None, 4] - theirs[None, :, 4]).abs() < 1e-4
    return float((near & (box_iou(ours[:, :4], theirs[:, :4]) > 0.99)).any(dim=0).double().mean())


def test_proposals_and_detections_are_the_originals() -> None:
    proposals, boxes = output().proposals[0], output().boxes[0] * TO_MAP
    for ours, theirs in ((proposals, "proposals_x1y1x2y2score"), (boxes, "det_bboxes_x1y1x2y2score")):
        assert len(ours) == len(golden(theirs))
        assert found_share(ours, golden(theirs)) >= 0.98
    labels = output().box_labels[0] - 11
    for label in range(8):
        of_class = golden("det_bboxes_x1y1x2y2score")[golden("det_labels") == label]
        assert not len(of_class) or found_share(boxes[labels == label], of_class) >= 0.98


def test_masks_are_the_originals() -> None:
    boxes = output().boxes[0] * TO_MAP
    theirs = np.unpackbits(golden("masks_classmajor_packbits").numpy(), axis=-1).astype(bool)
    their_boxes = golden("boxes_classmajor")
    nearest = box_iou(their_boxes[:, :4], boxes[:, :4]).argmax(dim=1)
    ours = [paste_mask(output().mask_logits[0][row], boxes[row, :4], SIZE, 0.5) for row in nearest.tolist()]
    assert agreement(torch.stack(ours), torch.from_numpy(theirs)) >= 0.9999


@pytest.mark.parametrize(("score", "area"), [(0.95, 2048), (0.358, 512)])
def test_panoptic_maps_are_the_originals(score: float, area: int, monkeypatch: pytest.MonkeyPatch) -> None:
    setting, model = f"th{score}_stuff{area}", edaps_b5()
    semantic, instances = golden("semantic").long(), golden(f"ins_seg_{setting}").long()
    theirs = golden(f"panoptic_{setting}").long()
    exact = panoptic_map(semantic, instances, model.config.thing_ids, stuff_area=area, divisor=1000, void=255000)
    assert torch.equal(exact, theirs)

    boxes, labels = golden("det_bboxes_x1y1x2y2score"), golden("det_labels")
    painted = instances_of_boxes(boxes, labels, output().mask_logits[0], SIZE, score, 0.5)
    assert agreement(painted, instances) >= 0.999

    monkeypatch.setattr(model.config, "instance_score", score)
    monkeypatch.setattr(model.config, "stuff_area", area)
    (ours,) = model.post_process_panoptic(output(), [SIZE])
    assert agreement(ours // 1000, theirs // 1000) >= 0.995
    assert agreement(ours, theirs) >= 0.995


def test_classes_of_pixels_are_the_originals() -> None:
    scores = window_logits(lambda image: output(), seeded_image(128, 128), (128, 128))
    assert agreement(torch.from_numpy(best_classes(scores, SIZE)).long(), golden("semantic").long()) >= 0.999


def test_the_bottom_up_ablation_has_daformers_classes_and_makes_a_panoptic_map() -> None:
    system, image = "edaps_bottomup_mitb5", seeded_image(64, 96)
    model = fill(EDAPSForPanopticSegmentation(edaps_config(slot_map(system), CITYSCAPES)), system)
    daformer = fill(DAFormerForSemanticSegmentation(daformer_config(slot_map(system), CITYSCAPES)), system)
    with torch.no_grad():
        found = model(image)
        torch.testing.assert_close(found.logits, daformer(image).logits)
    assert found.center_heatmap.shape == (1, 1, 16, 24)
    assert found.center_offsets.shape == (1, 2, 16, 24)
    (codes,) = model.post_process_panoptic(found, [(100, 150)])
    things = torch.isin(codes // 1000, torch.tensor(model.config.thing_ids))
    assert codes.shape == (100, 150)
    assert (codes[things] % 1000 > 0).all()
    assert (codes[~things] % 1000 == 0).all()


def small(**settings: Any) -> EDAPSForPanopticSegmentation:
    torch.manual_seed(0)
    config = EDAPSConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[4, 8, 12, 16],
        num_attention_heads=[1, 2, 3, 4],
        embedding_size=8,
        decoder_hidden_size=8,
        fpn_hidden_size=8,
        box_hidden_size=8,
        mask_hidden_size=8,
        num_labels=5,
        thing_ids=[3, 4],
        **settings,
    )
    return EDAPSForPanopticSegmentation(config).eval()


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other() -> None:
    model = small(instance_score=0.0, box_score=0.0, stuff_area=1)
    images = torch.cat([seeded_image(64, 96), seeded_image(64, 96).flip(3)])
    sizes = [(64, 96), (50, 70)]
    together = model.post_process_panoptic(model(images), sizes)
    for image, size, codes in zip(images, sizes, together, strict=True):
        (alone,) = model.post_process_panoptic(model(image[None]), [size])
        assert agreement(codes, alone) > 0.99


@torch.no_grad()
def test_an_image_without_things_has_no_instances() -> None:
    model = small(box_score=1.0, stuff_area=0)
    found = model(seeded_image(64, 64))
    assert [len(boxes) for boxes in (found.boxes[0], found.box_labels[0], found.mask_logits[0])] == [0, 0, 0]
    (codes,) = model.post_process_panoptic(found)
    assert codes.shape == (64, 64)
    assert set(codes.unique().tolist()) <= {0, 1000, 2000, 255000}


@torch.no_grad()
@pytest.mark.parametrize("layer", ["fc_cls", "fc_reg"])
def test_a_box_head_that_overflows_is_said_not_taken_for_no_boxes(layer: str) -> None:
    model, image = small(), seeded_image(64, 64)
    check_outputs(SimpleNamespace(model=model, label="parent"), model(image), image, "1.png")
    rows = getattr(model.roi_head.bbox_head, layer)
    rows.weight.fill_(3e38)
    rows.weight[:, ::2] = -3e38
    model.roi_head.bbox_head.shared_fcs[-1].bias.fill_(9)
    with pytest.raises(OutputError, match=r"parent: what it computes for 1\.png is not finite"):
        check_outputs(SimpleNamespace(model=model, label="parent"), model(image), image, "1.png")


def test_a_network_in_training_says_why_it_found_no_instances() -> None:
    model = small().train()
    with pytest.raises(ValueError, match=r"training mode. Call model.eval\(\)"):
        model.post_process_panoptic(model(torch.cat([seeded_image(64, 64)] * 2)))


def test_anchors_lie_around_the_corners_of_their_pixels() -> None:
    boxes = anchors((2, 3), 4, 8.0, [0.25, 1.0, 4.0])
    assert boxes.shape == (2 * 3 * 3, 4)
    assert boxes[:3].tolist() == [[-32, -8, 32, 8], [-16, -16, 16, 16], [-8, -32, 8, 32]]
    assert (boxes[3 * 5] - boxes[0]).tolist() == [8, 4, 8, 4]  # the last pixel: second row, third column


def test_boxes_move_by_their_own_size_and_stay_on_the_image() -> None:
    box = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    still = moved(box, torch.zeros(1, 4), (100, 100))
    assert still.tolist() == box.tolist()
    aside = moved(box, torch.tensor([[0.5, -0.25, 0.0, 0.0]]), (100, 100))
    assert aside.tolist() == [[20, 10, 40, 50]]
    wide = moved(box, torch.tensor([[0.0, 0.0, 100.0, 0.0]]), (100, 90))
    assert wide.tolist() == [[0, 20, 90, 60]]


def test_suppression_keeps_the_best_of_each_group() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]])
    kept, groups = best_boxes(boxes, torch.tensor([0.2, 0.9, 0.3, 0.4]), torch.tensor([0, 0, 1, 0]), 0.5, 10)
    assert groups.tolist() == [0, 0, 1]
    torch.testing.assert_close(kept[:, 4], torch.tensor([0.9, 0.4, 0.3]))


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_a_full_mask_fills_its_box_and_no_more(x: int, y: int, width: int, height: int, full: bool) -> None:
    logits = torch.full((28, 28), 9.0 if full else -9.0)
    expected = torch.zeros(24, 32, dtype=torch.bool)
    expected[y : y + height, x : x + width] = full
    mask = paste_mask(logits, torch.tensor([x, y, x + width, y + height], dtype=torch.float32), (24, 32), 0.5)
    assert torch.equal(mask, expected)


def test_centers_are_peaks_above_a_threshold_and_the_best_of_too_many() -> None:
    heatmap = torch.zeros(20, 20)
    for row, (y, x) in enumerate([(2, 3), (2, 5), (10, 10), (18, 1)]):
        heatmap[y, x] = 0.2 + 0.1 * row
    heatmap[15, 15] = 0.05
    assert centers_of(heatmap, 0.1, 7, 10).tolist() == [[2, 5], [10, 10], [18, 1]]
    assert centers_of(heatmap, 0.1, 7, 3).tolist() == [[10, 10], [18, 1]]  # as the original: above the third best


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), max_size=6), st.integers(0, 99))
def test_pixels_go_to_the_center_nearest_to_where_they_point(places: list[tuple[int, int]], seed: int) -> None:
    offsets = torch.randn(2, 8, 10, generator=torch.Generator().manual_seed(seed))
    centers = torch.tensor(places, dtype=torch.int64).reshape(-1, 2)
    instances = instances_of_centers(centers, offsets)
    for y in range(8):
        for x in range(10):
            way = torch.tensor([y, x]) + offsets[:, y, x] - centers
            expected = int(way.norm(dim=1).argmin()) + 1 if places else 0
            assert instances[y, x] == expected


def test_instances_take_their_pixels_class_and_count_from_one() -> None:
    semantic = torch.tensor([[0, 0, 0, 1, 2, 2], [0, 2, 2, 2, 3, 2]])
    instances = torch.tensor([[0, 5, 0, 0, 5, 5], [0, 5, 7, 7, 7, 0]])
    codes = panoptic_map(semantic, instances, [2, 3], stuff_area=2, divisor=1000, void=255000)
    void = 255000
    assert codes.tolist() == [[0, void, 0, void, 2001, 2001], [0, 2001, 2002, 2002, 2002, void]]
