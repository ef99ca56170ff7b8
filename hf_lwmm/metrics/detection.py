"""Average precision of boxes as COCO defines it: pycocotools matches the boxes, and matches add up over images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.ratios import Classes, Counts, Values, mean

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0, 1, 101)
MAX_BOXES = 100  # of an image and class
NO_CLASS = -1  # of the rows that fill up an image's counts


@dataclass(frozen=True)
class Boxes:
    """One image's objects: (K, 4) boxes x1, y1, x2, y2 in pixels and their (K,) class indices.

    A prediction has (K,) `scores`. A truth may mark some as `crowds`, (K,) bool: boxes around many objects.
    """

    boxes: npt.NDArray[np.floating]
    labels: npt.NDArray[np.integer]
    scores: npt.NDArray[np.floating] | None = None
    crowds: npt.NDArray[np.bool_] | None = None


def detection_counts(truth: Boxes, prediction: Boxes, classes: int) -> Values:
    """One image's (rows, 4) of class, score, hits and misses.

    A row is a box, whose hits and misses are sets of IoU thresholds, a bit each (a box that a crowd excuses is in
    neither); or, with the score nan, the number of a class's objects in place of the hits.

    Raises:
        MetricError: if the prediction lacks scores, a class is outside 0..classes - 1, or pycocotools is not installed.
    """
    if prediction.scores is None:
        raise MetricError("Average precision ranks boxes by their scores; the prediction has none.")
    for name, boxes in (("truth", truth), ("prediction", prediction)):
        if boxes.labels.size and not 0 <= boxes.labels.min() <= boxes.labels.max() < classes:
            raise MetricError(f"A box of the {name} has a class outside 0 to {classes - 1}.")
    try:
        coco, cocoeval = import_module("pycocotools.coco"), import_module("pycocotools.cocoeval")
    except ModuleNotFoundError:
        raise MetricError("Average precision needs pycocotools: pip install 'hf-lwmm[eval]'.") from None
    present = np.union1d(truth.labels, prediction.labels).tolist()
    with redirect_stdout(io.StringIO()):  # it reports its progress there
        evaluation = cocoeval.COCOeval(_indexed(coco, truth, present), _indexed(coco, prediction, present), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MAX_BOXES]
        evaluation.evaluate()
    bits = 2.0 ** np.arange(len(THRESHOLDS))
    rows = [np.empty((0, 4))]
    for found in filter(None, evaluation.evalImgs):
        index, scores = found["category_id"], np.asarray(found["dtScores"], np.float64)
        excused, hit = found["dtIgnore"].astype(bool), found["dtMatches"] > 0
        sets = (bits @ (hit & ~excused), bits @ (~hit & ~excused))
        rows.append(np.stack([np.full(scores.size, index, np.float64), scores, *sets], axis=1))
        objects = int((np.asarray(found["gtIgnore"]) == 0).sum())
        rows.append(np.array([[index, np.nan, objects, 0]]))
    return np.concatenate(rows)


def average_precision(counts: Counts, classes: Classes) -> tuple[Values, Values]:
    """AP (mean over IoU 0.5, 0.55 .. 0.95) and AP50 of each class from images' counts (N, rows, 4): (classes,) each.

    nan for a class without objects.
    """
    every = np.ones((1, len(counts)))
    precision = np.stack([_precision(counts, every, index)[0] for index in classes])
    return precision.mean(axis=-1), precision[:, 0]


def mean_ap(counts: Counts, weights: Values, classes: Classes) -> Values:
    """The classes' mean AP of data sets in which each image is so often, (samples, N): (samples,).

    A box is followed by its copies; boxes of equal scores stand in the images' order.
    """
    return mean(np.stack([_precision(counts, weights, index).mean(axis=-1) for index in classes], axis=-1))


def _precision(counts: Counts, weights: Values, index: int) -> Values:
    """(samples, thresholds) precision averaged over recalls; nan where a class has no objects."""
    image, row = np.nonzero(counts[..., 0] == index)
    rows = counts[image, row]
    is_truth = np.isnan(rows[:, 1])
    objects = weights[:, image[is_truth]] @ rows[is_truth, 2]
    image, rows = image[~is_truth], rows[~is_truth]
    order = np.argsort(-rows[:, 1], kind="stable")
    image, sets = image[order], rows[order, 2:].astype(np.int64)
    hits, misses = ((sets[:, part, None] >> np.arange(len(THRESHOLDS))) & 1 for part in (0, 1))
    result = np.full((len(weights), len(THRESHOLDS)), np.nan)
    for sample in np.flatnonzero(objects):
        often = weights[sample, image][:, None]
        right, wrong = np.cumsum(hits * often, axis=0), np.cumsum(misses * often, axis=0)
        recall = right / objects[sample]
        precision = right / (right + wrong + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        for threshold in range(len(THRESHOLDS)):
            place = np.searchsorted(recall[:, threshold], RECALLS, side="left")
            reached = place < len(best)
            result[sample, threshold] = best[place[reached], threshold].sum() / len(RECALLS)
    return result


def _indexed(coco: Any, image: Boxes, classes: Sequence[int]) -> Any:
    x1, y1, x2, y2 = np.asarray(image.boxes, dtype=np.float64).reshape(-1, 4).T
    scores = np.ones(x1.size) if image.scores is None else image.scores
    crowds = np.zeros(x1.size, bool) if image.crowds is None else image.crowds
    boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1).tolist()
    rows = zip(boxes, image.labels.tolist(), scores.tolist(), crowds.tolist(), strict=True)
    annotations = [
        {
            "id": number,  # to pycocotools 0 means no match
            "image_id": 0,
            "category_id": label,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(crowd),
            "score": score,
        }
        for number, (box, label, score, crowd) in enumerate(rows, start=1)
    ]
    index = coco.COCO()
    index.dataset = {
        "images": [{"id": 0}],
        "annotations": annotations,
        "categories": [{"id": label} for label in classes],
    }
    index.createIndex()
    return index
