"""Panoptic quality: how well the segments of a map are found and outlined (Kirillov et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.ratios import Classes, Counts, Values, chosen, mean, ratio

Ids = npt.NDArray[np.integer]


@dataclass(frozen=True)
class PanopticMap:
    """An image cut into segments: (H, W) segment ids, and the class index of each id, in the annotation's order.

    Pixels with the id `void` are unlabelled. `crowds` are the ids of segments that hold many objects.
    """

    ids: Ids = field(repr=False)
    classes: Mapping[int, int]
    crowds: frozenset[int] = frozenset()
    void: int = 0

    @classmethod
    def of_codes(cls, codes: Ids, divisor: int, void: int) -> PanopticMap:
        """From (H, W) `class * divisor + number`, `void` where there is no segment."""
        found = ids_in(codes).tolist()
        return cls(codes, {code: code // divisor for code in found if code != void}, void=void)


@dataclass(frozen=True)
class PanopticScores:
    """PQ, SQ and RQ of the classes of a protocol, in its order, as fractions; nan for a class without any segment.

    The means are over the classes that occur; the mean PQ is not the product of the other two.
    """

    pq: Values
    sq: Values
    rq: Values
    mean_pq: float
    mean_sq: float
    mean_rq: float


def panoptic_counts(truth: PanopticMap, prediction: PanopticMap, classes: int) -> Values:
    """One image's (classes, 4): sum of IoU over matches, matches, false positives, false negatives.

    They are panopticapi's: segments of one class match if their IoU, without what of the prediction lies on void, is
    above 0.5. A prediction without a match is no false positive if more than half of it lies on void and on the crowd
    of its class (of several, the last listed). Pixels whose true id is neither void nor listed match nothing.

    Raises:
        MetricError: if the shapes differ, a class is outside 0..classes - 1, void is listed as a segment, or the
            prediction's ids and its list of segments differ.
    """
    _check_classes("truth", truth, classes)
    _check_classes("prediction", prediction, classes)
    true_ids, ids, joint = _joint_areas(truth.ids, prediction.ids)
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
    """Scores of a data set from its (C, 4) counts, summed over images: over all classes, the things, or the stuff."""
    part = chosen(counts, classes)
    overlap, matches, present = part[:, 0], part[:, 1], part[:, 1:].sum(axis=1) > 0
    sq = np.where(present, overlap / np.maximum(matches, 1), np.nan)
    rq = ratio(matches, _segments(part))
    quality = pq(counts, classes)
    return PanopticScores(quality, sq, rq, float(mean(quality)), float(mean(sq)), float(mean(rq)))


def pq(counts: Counts, classes: Classes | None = None) -> Values:
    """IoU sum / (TP + FP / 2 + FN / 2) of (..., C, 4) counts: (..., classes), nan for a class without any segment."""
    part = chosen(counts, classes)
    return ratio(part[..., 0], _segments(part))


def mean_pq(counts: Counts, classes: Classes | None = None) -> Values:
    """Mean PQ of (..., C, 4) counts over the classes that occur: (...)."""
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


def _joint_areas(first: Ids, second: Ids) -> tuple[Ids, Ids, npt.NDArray[np.int64]]:
    """The ids of two maps, sorted, and the pixels that each pair of them shares: (a,), (b,), (a, b) int64."""
    if first.shape != second.shape:
        sizes = ("x".join(map(str, ids.shape)) for ids in (first, second))
        raise MetricError("The true map is {} but the predicted one {}; they must have one size.".format(*sizes))
    ends = run_ends(first, second)
    rows, row = _ranked(first.reshape(-1)[ends])
    columns, column = _ranked(second.reshape(-1)[ends])
    lengths = np.diff(ends, prepend=-1)
    joint = np.bincount(row * columns.size + column, weights=lengths, minlength=rows.size * columns.size)
    return rows, columns, joint.astype(np.int64).reshape(rows.size, columns.size)


def _ranked(ids: Ids) -> tuple[Ids, npt.NDArray[np.intp]]:
    """The ids that occur, sorted, and the place of each among them; without sorting where ids are small numbers."""
    if ids.size == 0 or ids.min() < 0 or ids.max() > ids.size:
        return np.unique(ids, return_inverse=True)
    occurs = np.zeros(int(ids.max()) + 1, dtype=bool)
    occurs[ids] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[ids]


def ids_in(ids: Ids) -> Ids:
    """The ids that occur in a map, sorted."""
    return np.unique(ids.reshape(-1)[run_ends(ids)])


def run_ends(*maps: Ids) -> npt.NDArray[np.intp]:
    """Where, in reading order, runs of pixels end in which no map changes."""
    flat = [ids.reshape(-1) for ids in maps]
    changes = np.ones(flat[0].size, dtype=bool)
    np.not_equal(flat[0][1:], flat[0][:-1], out=changes[:-1])
    for ids in flat[1:]:
        changes[:-1] |= ids[1:] != ids[:-1]
    return np.flatnonzero(changes)
