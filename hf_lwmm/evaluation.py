"""Models over a labelled data set in one pass: scores by class, intervals over images, differences to the anchor."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm._version import __version__
from hf_lwmm.datasets.labels import label_set_of_ids, label_sets, match_classes, meaning, normalise, read_label_set
from hf_lwmm.datasets.loading import LabelledImages, Sample, open_images
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.inference import View, classify, panoptic, segment, views
from hf_lwmm.metrics.bootstrap import Interval, bootstrap, bootstrap_difference
from hf_lwmm.metrics.classification import (
    average_accuracy,
    classification_counts,
    classification_scores,
    overall_accuracy,
)
from hf_lwmm.metrics.panoptic import PanopticMap, mean_pq, panoptic_counts, panoptic_scores, pq
from hf_lwmm.metrics.semantic import confusion, iou, mean_iou, semantic_counts, semantic_scores
from hf_lwmm.models.loading import LoadedModel, load

Counts = NDArray[Any]  # int64, or float64 of panoptic counts, whose first column sums IoUs
Progress = Callable[[str, int, int], None]
_KEEP_EVERY = 20.0  # seconds between two writes of the partial result
# Their ids are Cityscapes': a protocol of 16 or 13 classes chooses among the 19.
_PARTS_OF_CITYSCAPES = ("synthia16", "synthia13")


@dataclass(frozen=True)
class Metric:
    """What a task is scored by: per-image counts (classes, K), a score of each class, and their mean.

    `extras` are further scores by name, of counts summed over images and a protocol's classes.
    """

    task: str
    name: str  # of the mean
    of_class: str
    by_class: Callable[[Any, Sequence[int]], Any]
    mean: Callable[[Any, Sequence[int]], Any]
    extras: Callable[[Any, Sequence[int]], dict[str, float]]


def _semantic_extras(counts: Any, classes: Sequence[int]) -> dict[str, float]:
    scores = semantic_scores(counts, classes)
    return {"mean accuracy": scores.mean_accuracy, "pixel accuracy": scores.pixel_accuracy}


def _panoptic_extras(counts: Any, classes: Sequence[int]) -> dict[str, float]:
    scores = panoptic_scores(counts, classes)
    return {"mean SQ": scores.mean_sq, "mean RQ": scores.mean_rq}


METRICS = {
    metric.task: metric
    for metric in (
        Metric("semantic", "mIoU", "IoU", iou, mean_iou, _semantic_extras),
        Metric("panoptic", "mean PQ", "PQ", pq, mean_pq, _panoptic_extras),
        Metric(
            "classification",
            "average accuracy",
            "accuracy",
            lambda counts, classes: classification_scores(counts, classes).accuracy,
            average_accuracy,
            lambda counts, classes: {"overall accuracy": float(overall_accuracy(counts, classes))},
        ),
    )
}


@dataclass(frozen=True)
class ModelScores:
    """One model's scores over the protocol's classes, as fractions, with 95 % intervals over images.

    `mean` and `by_class` are the task's metric, nan for a class that does not occur. `difference` is to the mean of
    the anchor, the first model; its interval is paired. None for the anchor itself.
    """

    name: str
    mean: float
    by_class: NDArray[np.float64]
    extras: dict[str, float]
    interval: Interval
    difference: float | None
    difference_interval: Interval | None
    other_protocols: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationReport:
    """What models scored on a split. `classes` are the protocol's; `counts` (models, images, all classes, K)."""

    metric: Metric
    dataset: str
    protocol: str
    classes: tuple[str, ...]
    images: int
    models: tuple[ModelScores, ...]
    images_per_second: float
    counts: Counts = field(repr=False)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data; fractions, not per cent; None where a class does not occur."""
        return {
            "task": self.metric.task,
            "metric": self.metric.name,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "images": self.images,
            "images_per_second": round(self.images_per_second, 3),
            "hf_lwmm": __version__,
            "models": [
                {
                    "model": model.name,
                    "mean": model.mean,
                    "interval": list(model.interval),
                    **{name.replace(" ", "_"): value for name, value in model.extras.items()},
                    "difference": model.difference,
                    "difference_interval": list(model.difference_interval) if model.difference_interval else None,
                    "by_class": {c: _known(v) for c, v in zip(self.classes, model.by_class.tolist(), strict=True)},
                    "other_protocols": model.other_protocols,
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


@dataclass(frozen=True)
class Contender:
    """What is scored under one name: a network, or several whose softmax outputs are averaged."""

    name: str
    members: tuple[LoadedModel, ...] = field(repr=False)

    @property
    def identity(self) -> list[str]:
        """What tells this network from any other, for partial results."""
        return [
            f"{m.source.ref.shown}@{m.source.sha or _stamp(m)} {m.model.config.to_json_string()}" for m in self.members
        ]


def _stamp(loaded: LoadedModel) -> str:
    path = loaded.source.ref.path
    files = [path] if path is not None and path.is_file() else sorted(path.rglob("*")) if path is not None else []
    return " ".join(f"{file.name}:{file.stat().st_mtime_ns}:{file.stat().st_size}" for file in files if file.is_file())


def evaluate(
    models: Sequence[Any],
    dataset: str | Path,
    *,
    split: str = "validation",
    config: str | None = None,
    protocol: str | None = None,
    ids: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    ensemble: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    limit: int | None = None,
    streaming: bool = False,
    labels: Sequence[Any] = (),
    system: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    partial: str | Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> EvaluationReport | None:
    """Score models on a split of a data set; the first is the anchor that the others are compared with.

    Under `accelerate launch` or `torchrun` every process takes its part of the images, and the first one answers;
    the others return None. A run that was killed goes on where it stopped.

    Args:
        models: references, as for `merge`, or what `load` returned.
        dataset, split, config, image_column, label_column: as for `open_images`.
        protocol: the label set whose classes are scored (`cityscapes19`, `synthia16`, ...); all that the data set or
            the first model names if None.
        ids: the raw ids that label files follow (`cityscapes`, `gta`, `synthia`, ...); class ids if None.
        ensemble: also score the average of all models' softmax outputs (paper, Table 1).
        flip, scales: views of each image that a model's softmax is averaged over.
        limit: only so many images.
        streaming: read rows of the Hub as they are needed, in place of keeping the whole split.
        labels, system, device, dtype: as for `load`.
        partial: the folder for partial results; one in the cache if None.

    Raises:
        DatasetError: if the data set cannot be read, or its classes not be matched with a model's.
        HfLwmmError: if a model cannot be loaded.
    """
    if not models:
        raise PlanError("Name at least one model to evaluate.")
    options: dict[str, Any] = {"labels": labels, "system": system, "device": device, "dtype": dtype}
    loaded = [m if isinstance(m, LoadedModel) else load(m, **options) for m in models]
    contenders = [Contender(name, (each,)) for name, each in zip(_names(loaded), loaded, strict=True)]
    if ensemble:
        contenders.append(Contender(f"ensemble of {len(loaded)}", tuple(loaded)))
    columns = {"image_column": image_column, "label_column": label_column}
    images = open_images(dataset, split, config=config, ids=ids, streaming=streaming, **columns)
    for each in loaded:
        _check_task(each, images, ensemble)
    if limit is not None:
        images = replace(images, count=min(limit, images.count))
    space, chosen, notes = _classes(images, loaded[0], protocol)
    looks = views(flip, tuple(scales))
    key = _key(contenders, images, str(dataset), config, space, looks, dtype)
    folder = Path(partial) if partial is not None else _cache()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    started = time.perf_counter()
    path = folder / f"{key}-{rank}-of-{world}.npz"
    own, fresh = _count(contenders, images, space, looks, path, images.part(rank, world), progress)
    records = _gather(own, rank, world)
    path.unlink(missing_ok=True)  # a finished run is counted anew the next time: the data may have changed
    if records is None:
        return None
    counts = np.stack([records[index] for index in range(images.count)], axis=1)
    rate = fresh * world / max(time.perf_counter() - started, 1e-9)
    notes += [note for each in loaded for note in each.notes]
    notes += _strangers(contenders, space, chosen)
    metric, names = METRICS[images.task], [contender.name for contender in contenders]
    return report(metric, images.name, names, counts, space, chosen, protocol, rate, notes)


def _check_task(loaded: LoadedModel, images: LabelledImages, ensemble: bool) -> None:
    if images.task == "semantic" and loaded.task == "panoptic":
        return  # a panoptic network has a semantic head
    if loaded.task != images.task:
        raise DatasetError(f"{images.name}: has {images.task} labels, but {loaded.label} is a {loaded.task} network.")
    if images.task == "panoptic" and ensemble:
        raise PlanError("--ensemble averages class probabilities, which panoptic maps do not have.")


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
    """Scores from per-image counts (models, images, classes, K) of a space of classes, of which some are chosen."""
    results = []

    def statistic(values: Any) -> Any:
        return metric.mean(values, chosen)

    for index, name in enumerate(names):
        total = counts[index].sum(axis=0)
        mean, difference, spread = float(metric.mean(total, chosen)), None, None
        if index:
            difference = mean - float(metric.mean(counts[0].sum(axis=0), chosen))
            spread = bootstrap_difference(counts[index], counts[0], statistic)
        others = {
            other: float(metric.mean(total, rows))
            for other, rows in _sub_protocols(space).items()
            if list(rows) != list(chosen)
        }
        by_class, extras = np.asarray(metric.by_class(total, chosen)), metric.extras(total, chosen)
        interval = bootstrap(counts[index], statistic)
        results.append(ModelScores(name, mean, by_class, extras, interval, difference, spread, others))
    classes = tuple(space[index] for index in chosen)
    return EvaluationReport(
        metric, dataset, protocol or "all classes", classes, counts.shape[1], tuple(results), rate, counts, tuple(notes)
    )


def _names(loaded: Sequence[LoadedModel]) -> list[str]:
    """The models' labels, numbered where they would be the same."""
    labels = [each.label for each in loaded]
    return [f"{label} ({index + 1})" if labels.count(label) > 1 else label for index, label in enumerate(labels)]


def _classes(
    images: LabelledImages, first: LoadedModel, protocol: str | None
) -> tuple[tuple[str, ...], list[int], list[str]]:
    """The classes that ids stand for, which of them are scored, and what was assumed."""
    notes: list[str] = []
    wanted = read_label_set(protocol) if protocol else None
    if images.ids is not None:
        space = label_set_of_ids(images.ids).classes
    elif images.classes is not None:
        space = images.classes
    elif wanted is not None:
        space = label_sets()["cityscapes19"].classes if wanted.name in _PARTS_OF_CITYSCAPES else wanted.classes
    else:
        space = first.classes
        notes.append(f"{images.name}: does not name its classes; its ids were taken for {first.label}'s (--protocol)")
    if wanted is None:
        return space, list(range(len(space))), notes
    rows = {normalise(name): index for index, name in enumerate(space)}
    if lacking := [name for name in wanted.classes if normalise(name) not in rows]:
        raise DatasetError(f"{images.name}: has no class {lacking[0]!r}, which the protocol {wanted.name} scores.")
    return space, [rows[normalise(name)] for name in wanted.classes], notes


def _strangers(contenders: Sequence[Contender], space: Sequence[str], chosen: Sequence[int]) -> list[str]:
    """Which scored classes a model does not know at all; they score 0."""
    notes = []
    for contender in contenders:
        known = {meaning(name) for member in contender.members for name in member.classes}
        if lacking := [space[index] for index in chosen if meaning(space[index]) not in known]:
            notes.append(f"{contender.name}: has no class named {', '.join(lacking)}, so these score 0")
    return notes


def _sub_protocols(space: Sequence[str]) -> dict[str, list[int]]:
    """Cityscapes' 19, 16 and 13 classes, where the space has them all."""
    rows = {normalise(name): index for index, name in enumerate(space)}
    found = {}
    for name in ("cityscapes19", *_PARTS_OF_CITYSCAPES):
        classes = [normalise(label) for label in label_sets()[name].classes]
        if all(label in rows for label in classes):
            found[name] = [rows[label] for label in classes]
    return found


def _count(
    contenders: Sequence[Contender],
    images: LabelledImages,
    space: Sequence[str],
    looks: Sequence[View],
    path: Path,
    part: range,
    progress: Progress,
) -> tuple[dict[int, Counts], int]:
    """Counts (models, classes, 3) of each of a process's images, and how many were computed now."""
    tables = [match_classes(each.members[0].classes, space, each.name, images.name) for each in contenders]
    raw = label_set_of_ids(images.ids).table(images.ids) if images.ids else None
    run = _Run(contenders, tables, raw, len(space), looks, images.name)
    score = {"semantic": _score_pixels, "panoptic": _score_segments, "classification": _score_image}[images.task]
    records = _read_partial(path)
    fresh, kept = 0, time.monotonic()
    for done, index in enumerate(part):
        progress("Evaluating", done, len(part))
        if index in records:
            continue
        records[index] = score(images.read(index), run)
        fresh += 1
        if time.monotonic() - kept > _KEEP_EVERY:
            _write_partial(path, records)
            kept = time.monotonic()
    _write_partial(path, records)
    return {index: records[index] for index in part}, fresh


@dataclass(frozen=True)
class _Run:
    """What every image of an evaluation is scored with.

    `tables` lead from each contender's class ids to the data set's, `raw` from the ids of label files to them.
    """

    contenders: Sequence[Contender]
    tables: Sequence[NDArray[np.uint8]]
    raw: NDArray[np.uint8] | None
    classes: int
    looks: Sequence[View]
    dataset: str


def _score_pixels(sample: Sample, run: _Run) -> Counts:
    label = _label(sample, run.raw, run.classes, run.dataset)
    size = (label.shape[0], label.shape[1])
    pairs = zip(run.contenders, run.tables, strict=True)
    maps = [table[segment(contender.members, sample.image, size, run.looks)] for contender, table in pairs]
    return np.stack([semantic_counts(confusion(label, guess, run.classes)) for guess in maps])


def _score_segments(sample: Sample, run: _Run) -> Counts:
    truth = sample.segments
    assert truth is not None
    rows = []
    for contender, table in zip(run.contenders, run.tables, strict=True):
        network = contender.members[0]
        divisor = int(network.model.config.label_divisor)
        codes = panoptic(network, sample.image, (truth.ids.shape[0], truth.ids.shape[1]))
        found = table[np.clip(codes // divisor, 0, 255)].astype(np.int64)
        ours = np.where(found == 255, 255 * divisor, found * divisor + codes % divisor)
        rows.append(panoptic_counts(truth, PanopticMap.of_codes(ours, divisor, 255 * divisor), run.classes))
    return np.stack(rows)


def _score_image(sample: Sample, run: _Run) -> Counts:
    label = np.array([sample.label])
    pairs = zip(run.contenders, run.tables, strict=True)
    guesses = [table[classify(contender.members, sample.image, run.looks)] for contender, table in pairs]
    return np.stack([classification_counts(label, np.array([int(guess)]), run.classes)[0] for guess in guesses])


def _label(sample: Sample, raw: NDArray[np.uint8] | None, classes: int, dataset: str) -> NDArray[np.integer[Any]]:
    label = sample.label
    assert not isinstance(label, int)
    where = f"{dataset}, {sample.name}"
    if abs(label.shape[0] / label.shape[1] - sample.image.height / sample.image.width) > 0.02:
        size = f"{sample.image.width}x{sample.image.height}"
        raise DatasetError(f"{where}: the label is {label.shape[1]}x{label.shape[0]}, but the image {size}.")
    if raw is not None:
        mapped: NDArray[np.integer[Any]] = raw[np.clip(label, 0, 255)]
        return mapped
    outside = label[(label >= classes) & (label != 255)]
    if outside.size:
        raise DatasetError(
            f"{where}: has the id {int(outside.flat[0])}, but there are {classes} classes and 255 for what is ignored. "
            "--protocol names the data set's classes, --ids its raw ids."
        )
    return label


def _key(
    contenders: Sequence[Contender],
    images: LabelledImages,
    dataset: str,
    config: str | None,
    space: Sequence[str],
    looks: Sequence[View],
    dtype: str,
) -> str:
    what = [__version__, [c.identity for c in contenders], dataset, images.name, images.count, images.ids, config]
    text = json.dumps([*what, list(space), [[v.scale, v.mirrored] for v in looks], dtype])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _cache() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf-lwmm" / "evaluations"


def _read_partial(path: Path) -> dict[int, Counts]:
    if not path.is_file():
        return {}
    try:
        with np.load(path) as stored:
            return dict(zip(stored["index"].tolist(), stored["counts"], strict=True))
    except (OSError, ValueError, KeyError):
        return {}  # cut off while it was written, by an older version that did not rename


def _write_partial(path: Path, records: dict[int, Counts]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        np.savez_compressed(file, index=np.array([*records]), counts=np.stack([*records.values()]) if records else [])
    part.replace(path)


def _gather(own: dict[int, Counts], rank: int, world: int) -> dict[int, Counts] | None:
    """All processes' records in the first process, None in the others."""
    if world == 1:
        return own
    import torch.distributed as dist

    started = not dist.is_initialized()
    if started:
        dist.init_process_group("gloo")
    parts: list[Any] = [None] * world
    dist.gather_object(own, parts if rank == 0 else None)
    if started:
        dist.destroy_process_group()
    return {index: counts for part in parts for index, counts in part.items()} if rank == 0 else None
