"""Panoptic quality, which scores how well segments are found and outlined (Kirillov et al., CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_lwmm.data.annotations import PanopticMap
from hf_lwmm.data.runs import Ids, shared_areas
from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.ratios import Classes, Counts, Values, chosen, mean, ratio


@dataclass(frozen=True)
class PanopticScores:
    """PQ, SQ and RQ of the classes of a protocol, (classes,) in its order, as fractions; nan for one without a segment.

    The means are over the classes that occur; the mean PQ is not the product of the other two.
    """

    pq: Values
    sq: Values
    rq: Values
    mean_pq: float
    mean_sq: float
    mean_rq: float


def panoptic_counts(truth: PanopticMap, prediction: PanopticMap, classes: int) -> Values:
    """Count the matches of one image: (classes, 4) of IoU summed over matches, matches, false positives and negatives.

    Segments of one class match if their IoU is above 0.5; pixels of the prediction on void do not enter it. A predicted
    segment without a match is no false positive if more than half of it lies on void and on the crowd of its class (the
    last listed one of several). Pixels whose true id is neither void nor listed match nothing.

    Source: panopticapi's `pq_compute_single_core`.

    Args:
        truth: the annotated segments.
        prediction: the predicted segments, a map of the same size.
        classes: the number of classes.

    Raises:
        MetricError: if the shapes differ, a class is outside 0..classes - 1, void is listed as a segment, or the
            prediction's ids and its list of segments differ.
    """
    _check_classes("truth", truth, classes)
    _check_classes("prediction", prediction, classes)
    true_ids, ids, joint = shared_areas(truth.runs, prediction.runs)
    _check_listed(prediction, ids)
    of_crowd = {truth.classes[i]: i for i in truth.classes if i in truth.crowds}
    of_truth = {i: index for i, index in truth.classes.items() if i not in truth.crowds}
    true_class = np.array([of_truth.get(i, -1) for i in true_ids.tolist()])
    guessed = np.array([prediction.classes.get(i, -2) for i in ids.tolist()])
    area, on_void = joint.sum(axis=0), joint[true_ids == truth.void].sum(axis=0)

    row, column = np.nonzero((true_class[:, None] == guessed) & (joint > 0))
    shared = joint[row, column]
    overlap = shared / (area[column] - on_void[column] + joint.sum(axis=1)[row] - shared)
    match = overlap > 0.5
    excused = on_void.copy()
    for index, crowd in of_crowd.items():
        excused += np.where(guessed == index, joint[true_ids == crowd].sum(axis=0), 0)
    missed = (guessed >= 0) & (excused / area <= 0.5)
    missed[column[match]] = False

    matched = guessed[column[match]]
    matches = np.bincount(matched, minlength=classes)
    segments = np.bincount(np.array([*of_truth.values()], dtype=np.int64), minlength=classes)
    return np.stack(
        [
            np.bincount(matched, weights=overlap[match], minlength=classes),
            matches,
            np.bincount(guessed[missed], minlength=classes),
            segments - matches,
        ],
        axis=-1,
    )


def panoptic_scores(counts: Counts, classes: Classes | None = None) -> PanopticScores:
    """Return the scores of a data set.

    Args:
        counts: (C, 4) of `panoptic_counts`, summed over images.
        classes: the classes to score, such as the things or the stuff; all if None.
    """
    part = chosen(counts, classes)
    overlap, matches, present = part[:, 0], part[:, 1], part[:, 1:].sum(axis=1) > 0
    sq = np.where(present, overlap / np.maximum(matches, 1), np.nan)
    rq = ratio(matches, _segments(part))
    quality = pq(counts, classes)
    return PanopticScores(quality, sq, rq, float(mean(quality)), float(mean(sq)), float(mean(rq)))


def pq(counts: Counts, classes: Classes | None = None) -> Values:
    """Return IoU sum / (TP + FP / 2 + FN / 2) of (..., C, 4) counts: (..., classes), nan for one without a segment."""
    part = chosen(counts, classes)
    return ratio(part[..., 0], _segments(part))


def mean_pq(counts: Counts, classes: Classes | None = None) -> Values:
    """Return the mean PQ of (..., C, 4) counts over the classes that occur: (...)."""
    return mean(pq(counts, classes))


def _segments(counts: Counts) -> Values:
    return np.asarray(counts[..., 1] + 0.5 * counts[..., 2] + 0.5 * counts[..., 3])


def _check_classes(name: str, segments: PanopticMap, classes: int) -> None:
    wrong = {index for index in segments.classes.values() if not 0 <= index < classes}
    if wrong:
        raise MetricError(f"The {name}'s segments have the class {min(wrong)}, outside 0 to {classes - 1}.")
    if segments.void in segments.classes:
        raise MetricError(f"The {name} lists the id {segments.void} as a segment, but it stands for void.")


def _check_listed(prediction: PanopticMap, ids: Ids) -> None:
    listed = prediction.classes.keys()
    unlisted = set(ids.tolist()) - listed - {prediction.void}
    if unlisted:
        raise MetricError(f"The predicted map has the id {min(unlisted)}, which its list of segments does not have.")
    empty = listed - set(ids.tolist())
    if empty:
        raise MetricError(f"The prediction lists the segment {min(empty)}, which its map does not have.")
