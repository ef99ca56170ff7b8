"""Average precision of boxes as COCO defines it, by pycocotools."""

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
from hf_lwmm.metrics.ratios import Values, mean


@dataclass(frozen=True)
class Boxes:
    """One image's objects: (K, 4) boxes x1, y1, x2, y2 in pixels and their (K,) class indices.

    A prediction has (K,) `scores`. A truth may mark some as `crowds`, (K,) bool: boxes around many objects.
    """

    boxes: npt.NDArray[np.floating]
    labels: npt.NDArray[np.integer]
    scores: npt.NDArray[np.floating] | None = None
    crowds: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class DetectionScores:
    """(classes,) average precisions as fractions, nan for a class without objects, and their means.

    `ap` is the mean over IoU 0.5, 0.55 .. 0.95, `ap50` that at IoU 0.5; at most 100 boxes an image and class count.
    """

    ap: Values
    ap50: Values
    mean_ap: float
    mean_ap50: float


def detection_scores(truths: Sequence[Boxes], predictions: Sequence[Boxes], classes: int) -> DetectionScores:
    """COCO's AP and AP50 of a data set, image by image in the same order.

    Raises:
        MetricError: if the numbers of images differ, predictions lack scores, or pycocotools is not installed.
    """
    if len(truths) != len(predictions):
        raise MetricError(f"There are {len(truths)} images with objects but predictions for {len(predictions)}.")
    if any(image.scores is None for image in predictions):
        raise MetricError("Average precision ranks boxes by their scores; a prediction has none.")
    try:
        coco, cocoeval = import_module("pycocotools.coco"), import_module("pycocotools.cocoeval")
    except ModuleNotFoundError:
        raise MetricError("Average precision needs pycocotools: pip install 'hf-lwmm[eval]'.") from None
    with redirect_stdout(io.StringIO()):  # it reports its progress there
        evaluation = cocoeval.COCOeval(_indexed(coco, truths, classes), _indexed(coco, predictions, classes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU thresholds, recalls, classes) of objects of any size; -1 for a class without objects
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    precision = np.where(precision < 0, np.nan, precision)
    ap, ap50 = precision.mean(axis=(0, 1)), precision[0].mean(axis=0)
    return DetectionScores(ap, ap50, float(mean(ap)), float(mean(ap50)))


def _indexed(coco: Any, images: Sequence[Boxes], classes: int) -> Any:
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        x1, y1, x2, y2 = np.asarray(image.boxes, dtype=np.float64).reshape(-1, 4).T
        scores = np.ones(x1.size) if image.scores is None else image.scores
        crowds = np.zeros(x1.size, bool) if image.crowds is None else image.crowds
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1).tolist()
        rows = zip(boxes, image.labels.tolist(), scores.tolist(), crowds.tolist(), strict=True)
        for (x, y, width, height), label, score, crowd in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # to pycocotools 0 means no match
                    "image_id": number,
                    "category_id": label,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": int(crowd),
                    "score": score,
                }
            )
    index = coco.COCO()
    index.dataset = {
        "images": [{"id": number} for number in range(len(images))],
        "annotations": annotations,
        "categories": [{"id": label} for label in range(classes)],
    }
    index.createIndex()
    return index
