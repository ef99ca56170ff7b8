"""Average precision against COCO's definition and its own code."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_lwmm.data.annotations import Boxes
from hf_lwmm.errors import ExtraError, MetricError
from hf_lwmm.metrics.detection import THRESHOLDS, average_precision, detection_counts, mean_ap


def boxes(*rows: tuple[int, list[float], float], crowds: list[bool] | None = None) -> Boxes:
    labels, corners, scores = zip(*rows, strict=True) if rows else ((), (), ())
    marks = None if crowds is None else np.array(crowds)
    return Boxes(np.array(corners).reshape(-1, 4), np.array(labels, int), np.array(scores), marks)


LEFT, RIGHT, FAR = [0.0, 0, 100, 100], [200.0, 0, 300, 100], [500.0, 500, 600, 600]


@pytest.mark.parametrize(
    ("found", "ap", "ap50"),
    [
        ([(0, LEFT, 0.9), (0, RIGHT, 0.8)], 1.0, 1.0),
        ([(0, LEFT, 0.9)], 51 / 101, 51 / 101),  # recall 0, 0.01 .. 0.5 of 101 steps
        ([(0, FAR, 0.95), (0, LEFT, 0.9), (0, RIGHT, 0.8)], 2 / 3, 2 / 3),
        ([(0, [0.0, 0, 100, 63], 0.9), (0, RIGHT, 0.8)], None, 1.0),
        ([], 0.0, 0.0),
    ],
)
def test_average_precision_is_cocos(found: list[tuple[int, list[float], float]], ap: float | None, ap50: float) -> None:
    truth = boxes((0, LEFT, 1), (0, RIGHT, 1))
    ap_of_classes, ap50_of_classes = average_precision(counted([truth, boxes()], [boxes(*found), boxes()], 2), [0, 1])
    assert ap50_of_classes[0] == pytest.approx(ap50)
    # An overlap of 0.63 is a match at 3 of the 10 thresholds; above them precision is 1/2 from the second box on.
    expected = ap if ap is not None else (3 * 1 + 7 * 0.5 * 51 / 101) / 10
    assert ap_of_classes[0] == pytest.approx(expected)
    assert np.isnan(ap_of_classes[1]) and np.isnan(ap50_of_classes[1])


def counted(truths: list[Boxes], found: list[Boxes], classes: int) -> np.ndarray:
    """(images, rows, 4), filled up with rows of no class."""
    images = [detection_counts(truth, guess, classes) for truth, guess in zip(truths, found, strict=True)]
    counts = np.full((len(images), max(map(len, images)), 4), -1.0)
    for row, image in zip(counts, images, strict=True):
        row[: len(image)] = image
    return counts


def test_boxes_on_a_crowd_are_no_mistakes() -> None:
    truth = boxes((0, LEFT, 1), (0, FAR, 1), crowds=[False, True])
    found = boxes((0, FAR, 0.9), (0, [510.0, 510, 550, 550], 0.85), (0, LEFT, 0.8))
    assert average_precision(counted([truth], [found], 1), [0])[0][0] == pytest.approx(1)


corner = st.integers(0, 30)
objects = st.lists(st.tuples(st.integers(0, 2), corner, corner, st.integers(2, 40), st.integers(2, 40)), max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(objects, objects), min_size=1, max_size=4), st.integers(0, 2**31))
def test_average_precision_is_pycocotools(images: list[tuple[list[Any], list[Any]]], seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    draw = np.random.default_rng(seed)
    sides: tuple[list[Boxes], list[Boxes]] = ([], [])
    listed: tuple[list[Any], list[Any]] = ([], [])
    for number, pair in enumerate(images):
        for side, rows in enumerate(pair):
            scores = draw.integers(0, 5, len(rows)) / 4  # with ties
            crowds = draw.random(len(rows)) < (0.2 if side == 0 else 0)
            corners = np.array([(x, y, x + w, y + h) for _, x, y, w, h in rows], float).reshape(-1, 4)
            sides[side].append(Boxes(corners, np.array([row[0] for row in rows], int), scores, crowds))
            for (label, x, y, w, h), score, crowd in zip(rows, scores, crowds, strict=True):
                facts = {"image_id": number, "category_id": label, "iscrowd": int(crowd), "score": score}
                facts |= {"id": len(listed[side]) + 1, "bbox": [x, y, w, h], "area": w * h}
                listed[side].append(facts)
    indices = []
    for rows in listed:
        index = COCO()
        index.dataset = {"images": [{"id": i} for i in range(len(images))], "annotations": rows,
                         "categories": [{"id": i} for i in range(3)]}  # fmt: skip
        index.createIndex()
        indices.append(index)
    whole = COCOeval(*indices, "bbox")
    whole.evaluate()
    whole.accumulate()
    precision = whole.eval["precision"][:, :, :, 0, -1]
    expected = np.where(precision < 0, np.nan, precision).mean(axis=1).T
    counts = counted(*sides, 3)
    ap, ap50 = average_precision(counts, [0, 1, 2])
    np.testing.assert_allclose(ap, expected.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(ap50, expected[:, 0], rtol=1e-12)
    # An image drawn twice is one that stands there twice, if no scores tie: a box's copies stay beside each other.
    often = draw.integers(0, 3, len(images))
    counts[..., 1] += 1e-6 * np.arange(counts[..., 1].size).reshape(counts.shape[:2])
    repeated = mean_ap(counts[np.repeat(np.arange(len(images)), often)], np.ones((1, often.sum())), [0, 1, 2])
    np.testing.assert_allclose(mean_ap(counts, often[None].astype(float), [0, 1, 2]), repeated, rtol=1e-12)
    assert len(THRESHOLDS) == 10


def test_without_its_library_average_precision_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ExtraError, match=r"^Average precision needs pycocotools, .*hf-lwmm\[eval\]"):
        detection_counts(boxes(), boxes(), 1)


def test_detections_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(MetricError, match="scores"):
        detection_counts(boxes(), Boxes(np.zeros((0, 4)), np.zeros(0, int)), 1)
    with pytest.raises(MetricError, match="box of the truth has a class outside 0 to 0"):
        detection_counts(boxes((1, LEFT, 1)), boxes(), 1)
