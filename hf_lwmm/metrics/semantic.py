"""Intersection over union and accuracies of class maps, from counts of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_lwmm.data.compiled import BYTES, WORDS, Argument, compiled
from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.ratios import Classes, Counts, Values, chosen, mean, ratio

BYTE, EIGHT_BYTES = np.uint64(0xFF), np.uint64(0x0101010101010101)


@dataclass(frozen=True)
class SemanticScores:
    """Scores over the classes of a protocol, in its order, as fractions; nan for classes that do not occur.

    `iou` is TP / (TP + FP + FN) and `accuracy` TP / (TP + FN), both (classes,). `mean_iou` and `mean_accuracy` are
    their means over the classes that occur, and `pixel_accuracy` is the fraction of the classes' pixels that are right.
    """

    iou: Values
    accuracy: Values
    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float


def confusion(
    label: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer], classes: int, *, ignore: int = 255
) -> npt.NDArray[np.int64]:
    """Count the pixels of one image by true class (row) and predicted class (column): (classes, classes + 1) int64.

    The last column counts pixels that were predicted as none of the classes; they are misses of their true class. uint8
    maps are fastest; other integers are narrowed first.

    Args:
        label: (H, W) class ids, or any other shape.
        prediction: class ids of the same shape.
        classes: the number of classes, at most 255.
        ignore: the id of pixels that are left out.

    Raises:
        MetricError: if the shapes differ, a map does not hold integers, or a label is neither a class nor `ignore`.
    """
    if label.shape != prediction.shape:
        raise MetricError(
            f"The label is {_size(label)} but the prediction {_size(prediction)}; "
            "resize the prediction's logits to the label before taking the classes."
        )
    if not 1 <= classes <= 255:
        raise MetricError(f"Class maps are scored over 1 to 255 classes, not {classes}.")
    if label.dtype.kind not in "iub" or prediction.dtype.kind not in "iub":
        raise MetricError(f"Class maps hold integers, not {label.dtype} (label) and {prediction.dtype} (prediction).")
    if label.dtype != np.uint8:
        ignored = label == ignore
        outside = label[((label < 0) | (label >= classes)) & ~ignored]
        if outside.size:
            raise _outside(int(outside[0]), classes, ignore)
        label, ignore = np.where(ignored, 255, label), 255
    truth, guess = _bytes(label), _bytes(prediction)
    if prediction.dtype != np.uint8:
        guess[guess != prediction.reshape(-1)] = classes
    table = _joint_counts(truth, guess, classes + 1)
    if 0 <= ignore <= 255:
        table[ignore] = 0
    if table[classes:].any():
        raise _outside(classes + int(table[classes:].any(axis=1).argmax()), classes, ignore)
    return table[:classes]


def semantic_counts(table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the pixels that are true positive, false positive and false negative: (..., classes, 3) int64.

    `table` is (..., classes, classes + 1), as `confusion` makes it.
    """
    square = table[..., :-1]
    hits = np.diagonal(square, axis1=-2, axis2=-1)
    return np.stack([hits, square.sum(axis=-2) - hits, table.sum(axis=-1) - hits], axis=-1)


def semantic_scores(counts: Counts, classes: Classes | None = None) -> SemanticScores:
    """Return the scores of a data set from its (C, 3) counts, summed over images, for a protocol's classes or all.

    A pixel of a class outside the protocol still counts against the class that it is taken for: a protocol chooses
    among the classes' IoUs, as AdaptSegNet and DAFormer do to score 16 and 13 classes.
    """
    part = chosen(counts, classes)
    hits, true = part[:, 0], part[:, 0] + part[:, 2]
    accuracy = ratio(hits, true)
    return SemanticScores(
        iou(counts, classes),
        accuracy,
        float(mean_iou(counts, classes)),
        float(mean(accuracy)),
        float(ratio(hits.sum(), true.sum())),
    )


def iou(counts: Counts, classes: Classes | None = None) -> Values:
    """Return TP / (TP + FP + FN) of (..., C, 3) counts: (..., classes), nan for a class that does not occur."""
    part = chosen(counts, classes)
    return ratio(part[..., 0], part.sum(axis=-1))


def mean_iou(counts: Counts, classes: Classes | None = None) -> Values:
    """Return the mean IoU of (..., C, 3) counts over the classes that occur in truth or prediction: (...)."""
    return mean(iou(counts, classes))


def _bytes(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).astype(np.uint8, copy=False)


def _joint_counts(truth: npt.NDArray[np.uint8], guess: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.int64]:
    """The number of pixels with each pair of values, (256, width); guesses from width - 1 on count as one value."""
    tables = np.zeros((4, 256, width), np.int64)
    words = truth.size // 8
    truths, guesses = (np.ndarray((words,), np.uint64, values) for values in (truth, guess))
    _count_pairs(truth, guess, truths, guesses, tables)
    total: npt.NDArray[np.int64] = tables.sum(axis=0)
    return total


@compiled(BYTES, BYTES, WORDS, WORDS, Argument(ndim=3))
def _count_pairs(truth: Any, guess: Any, truths: Any, guesses: Any, tables: Any) -> None:
    """Add the pixels to the (4, 256, width) `tables`.

    Maps are smooth, and nearly always eight pixels in a row have the same pair of values. Read as one 64-bit word, they
    are equal if the word is its first byte repeated, and they are counted at once. Others are spread over the tables,
    so that the processor need not wait for one count before it adds the next.
    """
    last = np.uint64(tables.shape[2] - 1)
    for word in range(truths.size):
        row, column = truths[word] & BYTE, guesses[word] & BYTE
        if truths[word] == row * EIGHT_BYTES and guesses[word] == column * EIGHT_BYTES:
            tables[0, row, min(column, last)] += 8
        else:
            for pixel in range(8 * word, 8 * word + 8):
                tables[pixel % 4, truth[pixel], min(guess[pixel], last)] += 1
    for pixel in range(8 * truths.size, truth.size):
        tables[0, truth[pixel], min(guess[pixel], last)] += 1


def _outside(value: int, classes: int, ignore: int) -> MetricError:
    return MetricError(
        f"The label has the value {value}, which is neither one of the {classes} classes nor ignored ({ignore}). "
        "Map the data set's ids to the classes first."
    )


def _size(values: npt.NDArray[np.integer]) -> str:
    return "x".join(map(str, values.shape)) or "a single number"
