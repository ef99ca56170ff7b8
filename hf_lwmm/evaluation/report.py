"""Logits of models on a data set: a task's metric, every model's scores with intervals, and the report of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm._version import __version__
from hf_lwmm.labels import label_sets, normalise
from hf_lwmm.metrics.bootstrap import Interval, ResampleScore, interval, score_resamples, summed
from hf_lwmm.metrics.classification import class_accuracy, overall_accuracy
from hf_lwmm.metrics.detection import average_precision, mean_ap
from hf_lwmm.metrics.panoptic import panoptic_scores, pq
from hf_lwmm.metrics.ratios import mean
from hf_lwmm.metrics.semantic import iou, semantic_scores

if TYPE_CHECKING:
    from PIL import Image

Counts = NDArray[Any]  # int64, or float64 of panoptic counts, whose first column sums IoUs, and of boxes
# Their ids are Cityscapes': a protocol of 16 or 13 classes chooses among the 19.
PARTS_OF_CITYSCAPES = ("synthia16", "synthia13")


@dataclass(frozen=True)
class Metric:
    """What a task is scored by, from images' counts (N, rows, K) and the indices of a protocol's classes.

    `by_class` is a score of each class, nan for one that does not occur; the model's score is their mean, and
    `statistic` is that of resampled data sets. `extras` are further scores by name.
    """

    task: str
    name: str  # of the mean
    of_class: str
    by_class: Callable[[Counts, Sequence[int]], Any]
    extras: Callable[[Counts, Sequence[int]], dict[str, float]]
    statistic: Callable[[Sequence[int]], ResampleScore]

    def mean(self, counts: Counts, classes: Sequence[int]) -> float:
        """The mean of the classes' scores."""
        return float(mean(np.asarray(self.by_class(counts, classes))))


def _summed(
    task: str,
    name: str,
    of_class: str,
    by_class: Callable[[Counts, Sequence[int]], Any],
    extras: Callable[[Counts, Sequence[int]], dict[str, float]],
) -> Metric:
    """A metric of counts (..., classes, K) that are summed over images first."""
    return Metric(
        task,
        name,
        of_class,
        lambda counts, classes: by_class(counts.sum(axis=0), classes),
        lambda counts, classes: extras(counts.sum(axis=0), classes),
        lambda classes: summed(lambda totals: mean(by_class(totals, classes))),
    )


def _semantic_extras(totals: Counts, classes: Sequence[int]) -> dict[str, float]:
    scores = semantic_scores(totals, classes)
    return {"mean accuracy": scores.mean_accuracy, "pixel accuracy": scores.pixel_accuracy}


def _panoptic_extras(totals: Counts, classes: Sequence[int]) -> dict[str, float]:
    scores = panoptic_scores(totals, classes)
    return {"mean SQ": scores.mean_sq, "mean RQ": scores.mean_rq}


def _classification_extras(totals: Counts, classes: Sequence[int]) -> dict[str, float]:
    return {"overall accuracy": float(overall_accuracy(totals, classes))}


METRICS = {
    metric.task: metric
    for metric in (
        _summed("semantic", "mIoU", "IoU", iou, _semantic_extras),
        _summed("panoptic", "mean PQ", "PQ", pq, _panoptic_extras),
        _summed("classification", "average accuracy", "accuracy", class_accuracy, _classification_extras),
        Metric(
            "detection",
            "mean AP",
            "AP",
            lambda counts, classes: average_precision(counts, classes)[0],
            lambda counts, classes: {"mean AP50": float(mean(average_precision(counts, classes)[1]))},
            lambda classes: lambda counts, weights: mean_ap(counts, weights, classes),
        ),
    )
}


@dataclass(frozen=True)
class ModelScores:
    """One model's scores over the protocol's classes, as fractions, with 95 % intervals over images.

    `mean` and `by_class` are the task's metric, nan for a class that does not occur. `difference` is to the mean of
    the anchor, the first model; its interval is paired. None for the anchor itself. `resampled`
    are the means of resampled data sets, which draw the same images for every model.
    """

    name: str
    mean: float
    by_class: NDArray[np.float64]
    extras: dict[str, float]
    interval: Interval
    difference: float | None
    difference_interval: Interval | None
    other_protocols: dict[str, float] = field(default_factory=dict)
    resampled: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)


@dataclass(frozen=True)
class Example:
    """An image on which the last model and the anchor differ much, shown with the labels and what each model sees."""

    name: str
    differs: float  # the part of the labelled pixels (of a picture's boxes, their number) on which they differ
    picture: Image.Image = field(repr=False)


@dataclass(frozen=True)
class EvaluationReport:
    """What models scored on a split.

    `classes` are the protocol's; `counts` (models, images, rows, K) are what the metric takes, a row for each of the
    data set's classes or, of detectors, for each box. `confusion` (models, classes, classes + 1) has the pixels of
    class maps by true and predicted class, in the last column those taken for any other; None for other tasks.
    """

    metric: Metric
    dataset: str
    protocol: str
    classes: tuple[str, ...]
    images: int
    models: tuple[ModelScores, ...]
    images_per_second: float
    counts: Counts = field(repr=False)
    notes: tuple[str, ...] = ()
    commit: str | None = None  # of the data set, on the Hub
    confusion: NDArray[np.int64] | None = field(default=None, repr=False)
    examples: tuple[Example, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; fractions, not per cent; None where a class does not occur."""
        return {
            "task": self.metric.task,
            "metric": self.metric.name,
            "dataset": self.dataset,
            "commit": self.commit,
            "protocol": self.protocol,
            "images": self.images,
            "images_per_second": round(self.images_per_second, 3),
            "hf_lwmm": __version__,
            "models": [
                {
                    "model": model.name,
                    "mean": _known(model.mean),
                    "interval": [_known(value) for value in model.interval],
                    **{name.replace(" ", "_"): _known(value) for name, value in model.extras.items()},
                    "difference": None if model.difference is None else _known(model.difference),
                    "difference_interval": [_known(v) for v in model.difference_interval or ()] or None,
                    "by_class": {c: _known(v) for c, v in zip(self.classes, model.by_class.tolist(), strict=True)},
                    "other_protocols": {name: _known(value) for name, value in model.other_protocols.items()},
                }
                for model in self.models
            ],
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """Two tables, in per cent: the models, and the classes with differences to the anchor."""
        extras = list(self.models[0].extras)
        lines = [
            f"{self.images} images of {self.dataset}, {len(self.classes)} classes ({self.protocol}). Intervals are "
            "95 % over images.",
            "",
            f"| model | {self.metric.name} | interval | to the anchor | interval | {' | '.join(extras)} |",
            "| --- | --- | --- | --- | --- |" + " --- |" * len(extras),
        ]
        for model in self.models:
            change, spread = "", ""
            if model.difference is not None and model.difference_interval is not None:
                change, spread = f"{100 * model.difference:+.2f}", _span(model.difference_interval, signed=True)
            further = " | ".join(f"{100 * model.extras[name]:.2f}" for name in extras)
            lines.append(
                f"| {model.name} | {100 * model.mean:.2f} | {_span(model.interval)} | {change} | {spread} | {further} |"
            )
        names = " | ".join(model.name for model in self.models)
        lines += ["", f"| {self.metric.of_class} | {names} |", "| --- |" + " --- |" * len(self.models)]
        for index, name in enumerate(self.classes):
            anchor = self.models[0].by_class[index]
            cells = [_cell(model.by_class[index], anchor if rank else None) for rank, model in enumerate(self.models)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _span(interval: Interval, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{100 * interval.low:{sign}.2f} to {100 * interval.high:{sign}.2f}"


def _cell(value: float, anchor: float | None) -> str:
    if np.isnan(value):
        return "-"
    change = "" if anchor is None or np.isnan(anchor) else f" ({100 * (value - anchor):+.1f})"
    return f"{100 * value:.1f}{change}"


def report(
    metric: Metric,
    dataset: str,
    names: Sequence[str],
    counts: Counts,
    space: Sequence[str],
    chosen: Sequence[int],
    protocol: str | None,
    rate: float,
    notes: Sequence[str] = (),
) -> EvaluationReport:
    """Logits from images' counts (models, images, rows, K) of a space of classes, of which some are chosen."""
    results: list[ModelScores] = []
    statistic = metric.statistic(chosen)
    others = {name: rows for name, rows in _sub_protocols(space).items() if list(rows) != list(chosen)}
    for name, own in zip(names, counts, strict=True):
        by_class, values = np.asarray(metric.by_class(own, chosen)), score_resamples(own, statistic)
        anchor = results[0] if results else None
        results.append(
            ModelScores(
                name,
                float(mean(by_class)),
                by_class,
                metric.extras(own, chosen),
                interval(values),
                float(mean(by_class)) - anchor.mean if anchor else None,
                interval(values - anchor.resampled) if anchor else None,
                {other: metric.mean(own, rows) for other, rows in others.items()},
                values,
            )
        )
    classes = tuple(space[index] for index in chosen)
    return EvaluationReport(
        metric, dataset, protocol or "all classes", classes, counts.shape[1], tuple(results), rate, counts, tuple(notes)
    )


def _sub_protocols(space: Sequence[str]) -> dict[str, list[int]]:
    """Cityscapes' 19, 16 and 13 classes, where the space has them all."""
    rows = {normalise(name): index for index, name in enumerate(space)}
    found = {}
    for name in ("cityscapes19", *PARTS_OF_CITYSCAPES):
        classes = [normalise(label) for label in label_sets()[name].classes]
        if all(label in rows for label in classes):
            found[name] = [rows[label] for label in classes]
    return found
