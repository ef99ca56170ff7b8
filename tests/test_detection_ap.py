"""Objects of Cityscapes and average precision against the results of MIC's own evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from reference import reference

from hf_lwmm.data.annotations import Boxes
from hf_lwmm.data.loading import open_images
from hf_lwmm.data.samples import LabelledImages
from hf_lwmm.evaluation.per_image import padded
from hf_lwmm.labels import label_sets
from hf_lwmm.metrics.detection import average_precision, detection_counts
from hf_lwmm.networks import SegmentationImageProcessor

GOLDEN = reference("mic_detection_ap")


def foggy_tree(folder: Path, ids: np.ndarray) -> LabelledImages:
    """Open a tree of Foggy Cityscapes whose images have these instance ids, (N, height, width)."""
    for number, each in enumerate(ids):
        files = {
            "leftImg8bit_foggy": ("leftImg8bit_foggy_beta_0.02", Image.new("RGB", each.shape[::-1])),
            "gtFine": ("gtFine_instanceIds", Image.fromarray(each.astype(np.uint16))),
        }
        for kind, (name, picture) in files.items():
            (folder / kind / "val" / "ulm").mkdir(parents=True, exist_ok=True)
            picture.save(folder / kind / "val" / "ulm" / f"ulm_{number:06d}_000019_{name}.png")
    return open_images(folder, task="detection")


def truth_in(images: LabelledImages, number: int) -> Boxes:
    boxes = images.read(number).boxes
    assert boxes is not None
    return boxes


def predicted(number: int) -> Boxes:
    """The boxes of one image as an image processor returns them."""
    rows = GOLDEN["pred_image"] == number
    boxes = np.concatenate([GOLDEN["pred_boxes_x1y1x2y2"][rows], GOLDEN["pred_scores"][rows, None]], axis=1)
    output = SimpleNamespace(
        boxes=[torch.from_numpy(boxes.astype(np.float32))],
        box_labels=[torch.from_numpy(GOLDEN["pred_labels"][rows] - 1)],
        input_size=tuple(GOLDEN["network_size_hw"].tolist()),
    )
    size = tuple(GOLDEN["image_size_hw"].tolist())
    (found,) = SegmentationImageProcessor().post_process_object_detection(output, 0.0, [size])
    return Boxes(found["boxes"].numpy(), found["labels"].numpy(), found["scores"].numpy())


def by_rows(rows: list[list[float]]) -> np.ndarray:
    return np.array(sorted(rows))


def test_the_objects_of_instance_ids_are_those_of_the_original_conversion(tmp_path: Path) -> None:
    images = foggy_tree(tmp_path, GOLDEN["instance_ids"])
    assert images.classes == label_sets()["foggy-cityscapes8"].classes
    ours = []
    for number in range(images.count):
        truth = truth_in(images, number)
        for (x1, y1, x2, y2), label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True):
            ours.append([number, label + 1, x1, y1, x2 - x1, y2 - y1])
    np.testing.assert_array_equal(by_rows(ours), by_rows(GOLDEN["gt_image_category_xywh_area"][:, :6].tolist()))


def test_boxes_are_scaled_to_the_image_as_in_the_original_evaluation() -> None:
    ours = []
    for number in range(8):
        found = predicted(number)
        assert found.scores is not None
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        ):
            ours.append([number, label + 1, x1, y1, x2 - x1, y2 - y1, score])
    theirs = GOLDEN["converted_image_category_xywh_score"].tolist()
    key: Callable[[list[float]], tuple[float, ...]] = lambda row: (row[0], row[1], row[6])  # noqa: E731
    np.testing.assert_allclose(sorted(ours, key=key), sorted(theirs, key=key), rtol=0, atol=2e-5)


def test_average_precision_is_that_of_the_original_evaluation(tmp_path: Path) -> None:
    images = foggy_tree(tmp_path, GOLDEN["instance_ids"])
    counts = padded([detection_counts(truth_in(images, each), predicted(each), 8) for each in range(8)], 0)
    ap, ap50 = average_precision(counts, range(8))
    for ours, column in ((ap, 0), (ap50, 1)):
        np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), GOLDEN["per_class"][:, column], rtol=0, atol=1e-14)
        assert np.nanmean(ours) == pytest.approx(GOLDEN["overall"][column], abs=1e-14)


@pytest.mark.parametrize(("pixels", "kept"), [
    ([(0, 0)], False), ([(0, 0), (1, 1)], False), ([(0, 0), (0, 1)], False),
    ([(0, 0), (1, 1), (2, 2)], True), ([(0, 0), (0, 1), (1, 0)], True), ([], True),
])  # fmt: skip
def test_an_object_with_a_piece_of_one_or_two_pixels_is_left_out(
    pixels: list[tuple[int, int]], kept: bool, tmp_path: Path
) -> None:
    ids = np.full((1, 24, 32), 7, np.uint16)
    ids[0, 10:20, 10:20] = 26001
    for y, x in pixels:
        ids[0, y, x] = 26001
    assert len(truth_in(foggy_tree(tmp_path, ids), 0).labels) == kept
