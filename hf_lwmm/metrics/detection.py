"""Average precision of boxes as COCO defines it, from matches that pycocotools finds in each image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import numpy as np

from hf_lwmm.data.annotations import Boxes
from hf_lwmm.errors import MetricError, naming_extras
from hf_lwmm.metrics.ratios import Classes, Counts, Values, mean

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0, 1, 101)
MAX_BOXES = 100  # of one class in an image; those with the highest scores


def detection_counts(truth: Boxes, prediction: Boxes, classes: int) -> Values:
    """Count the hits and misses of one image: (rows, 4) float64 of class, score, hits and misses.

    A row stands for a predicted box; its hits and its misses are sets of the IoU `THRESHOLDS`, a bit for each. A box
    that a crowd excuses at a threshold is in neither. A row with the score nan holds the number of objects of a class
    in place of the hits.

    Args:
        truth: the annotated objects.
        prediction: the predicted boxes with their scores.
        classes: the number of classes.

    Raises:
        MetricError: if the prediction lacks scores, or a class is outside 0..classes - 1.
        ExtraError: if pycocotools is not installed.
    """
    if prediction.scores is None:
        raise MetricError("Average precision ranks boxes by their scores; the prediction has none.")
    for name, boxes in (("truth", truth), ("prediction", prediction)):
        if boxes.labels.size and not 0 <= boxes.labels.min() <= boxes.labels.max() < classes:
            raise MetricError(f"A box of the {name} has a class outside 0 to {classes - 1}.")
    with naming_extras("Average precision"):
        coco, cocoeval = import_module("pycocotools.coco"), import_module("pycocotools.cocoeval")
    present = np.union1d(truth.labels, prediction.labels).tolist()
    with redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
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
    """Return AP, the mean over the IoU thresholds 0.5, 0.55, ..., 0.95, and AP50 of each class: (classes,) each.

    They are nan for a class without objects.

    Args:
        counts: (N, rows, 4) of `detection_counts`; rows with the class -1 fill up the counts of an image.
        classes: the classes to score.
    """
    every = np.ones((1, len(counts)))
    precision = np.stack([_precision(counts, every, index)[0] for index in classes])
    return precision.mean(axis=-1), precision[:, 0]


def mean_ap(counts: Counts, weights: Values, classes: Classes) -> Values:
    """Return the mean AP over classes on resamples of the images: (resamples,).

    A box is followed by its copies; boxes of equal scores stand in the order of the images.

    Args:
        counts: (N, rows, 4), as for `average_precision`.
        weights: (resamples, N), how often each image was drawn.
        classes: the classes to score.
    """
    return mean(np.stack([_precision(counts, weights, index).mean(axis=-1) for index in classes], axis=-1))


def _precision(counts: Counts, weights: Values, index: int) -> Values:
    """The precision averaged over recalls, (resamples, thresholds); nan where a class has no objects."""
    image, row = np.nonzero(counts[..., 0] == index)
    rows = counts[image, row]
    is_truth = np.isnan(rows[:, 1])
    objects = weights[:, image[is_truth]] @ rows[is_truth, 2]
    image, rows = image[~is_truth], rows[~is_truth]
    order = np.argsort(-rows[:, 1], kind="stable")
    image, sets = image[order], rows[order, 2:].astype(np.int64)
    hits, misses = ((sets[:, part, None] >> np.arange(len(THRESHOLDS))) & 1 for part in (0, 1))
    result = np.full((len(weights), len(THRESHOLDS)), np.nan)
    for resample in np.flatnonzero(objects):
        often = weights[resample, image][:, None]
        right, wrong = np.cumsum(hits * often, axis=0), np.cumsum(misses * often, axis=0)
        recall = right / objects[resample]
        precision = right / (right + wrong + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        for threshold in range(len(THRESHOLDS)):
            place = np.searchsorted(recall[:, threshold], RECALLS, side="left")
            reached = place < len(best)
            result[resample, threshold] = best[place[reached], threshold].sum() / len(RECALLS)
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
