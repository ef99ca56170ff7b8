"""Report the scores of models on a data set, with intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm._version import __version__
from hf_lwmm.data.groups import Groups
from hf_lwmm.errors import naming_extras
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.evaluation.task_metrics import Counts, Metric
from hf_lwmm.evaluation.verdict import Contender, Verdict, decide
from hf_lwmm.metrics.bootstrap import Interval, interval, score_resamples
from hf_lwmm.metrics.ratios import mean
from hf_lwmm.plots.scores import plot_class_scores
from hf_lwmm.plots.style import Plot
from hf_lwmm.text import Markdown, first_few, joined, one_line, plain, table

if TYPE_CHECKING:
    import pandas
    from PIL import Image

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]  # the header and the rows


@dataclass(frozen=True)
class ModelScores:
    """The scores of one model over the scored classes, as fractions, with 95 % intervals over images.

    `mean` and `by_class` (classes,) are those of the metric, nan for a class that does not occur. `difference` is the
    mean minus that of the anchor, the first model, with a paired interval; both are None for the anchor itself.
    `to_best` and `to_best_interval` are the same to the best parent; None for the parent itself, and without parents.
    `kind` is "model", "merge" or "ensemble"; only the first are parents. `other_protocols` are the means over the
    classes of other protocols. `resamples` (resamples,) are the means on bootstrap resamples, which draw the same
    images for every model.
    """

    name: str
    mean: float
    by_class: NDArray[np.float64]
    extras: dict[str, float]
    interval: Interval
    difference: float | None
    difference_interval: Interval | None
    to_best: float | None = None
    to_best_interval: Interval | None = None
    kind: str = "model"
    other_protocols: dict[str, float] = field(default_factory=dict)
    resamples: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def merged(self) -> bool:
        """True for merges and ensembles, which are no parents."""
        return self.kind != "model"


@dataclass(frozen=True)
class Example:
    """An image on which the best other model and the anchor differ much, drawn with the labels and all predictions.

    `differs` is the fraction of the labelled pixels on which they differ; for detectors, the difference in the number
    of boxes found. `leads_out` is true if its files are in another place than the folder of the data, by way of a link.
    """

    name: str
    differs: float
    picture: Image.Image = field(repr=False)
    leads_out: bool = False


@dataclass(frozen=True)
class EvaluationReport:
    """The scores of models on a split of a data set.

    `classes` are the scored ones, and `images` is the number of images. `counts` (models, images, rows, K) are those of
    the metric: a row for each class of the data set or, for detectors, for each box. `confusion` (models, classes,
    classes + 1) counts the pixels of class maps by true and predicted class, and in the last column those taken for any
    other class; None for other tasks. `commit` is that of the data set on the Hub. `best_parent` is the place of the
    model with the highest score among those that are neither merges nor ensembles, None if there is none. `drawn` is
    what intervals are over, such as "images" or "12 runs of frames", and `units` is their number.
    """

    metric: Metric
    dataset: str
    protocol: str
    classes: tuple[str, ...]
    images: int
    models: tuple[ModelScores, ...]
    counts: Counts = field(repr=False)
    images_per_second: float = 0.0
    notes: tuple[str, ...] = ()
    commit: str | None = None
    confusion: NDArray[np.int64] | None = field(default=None, repr=False)
    examples: tuple[Example, ...] = field(default=(), repr=False)
    best_parent: int | None = None
    drawn: str = "images"
    units: int = 0

    @cached_property
    def verdict(self) -> Verdict | None:
        """The model to use by these scores; None for a single model. Ensembles, which are no model, do not count."""
        models = [model for model in self.models if model.kind != "ensemble"]
        contenders = [Contender(each.name, each.mean, each.resamples, each.merged) for each in models]
        drawn = f"{self.images:,} images" if self.drawn == "images" else self.drawn
        return decide(contenders, self.units or self.images, drawn)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with scores as fractions, and None for a class that does not occur."""
        return {
            "task": self.metric.task,
            "metric": self.metric.name,
            "dataset": self.dataset,
            "commit": self.commit,
            "protocol": self.protocol,
            "images": self.images,
            "intervals_over": self.drawn,
            "best_parent": None if self.best_parent is None else self.models[self.best_parent].name,
            "images_per_second": round(self.images_per_second, 3),
            "hf_lwmm": __version__,
            "models": [
                {
                    "model": model.name,
                    "mean": known(model.mean),
                    "interval": [known(value) for value in model.interval],
                    **{name.replace(" ", "_"): known(value) for name, value in model.extras.items()},
                    "difference": None if model.difference is None else known(model.difference),
                    "difference_interval": [known(v) for v in model.difference_interval or ()] or None,
                    "to_best_parent": None if model.to_best is None else known(model.to_best),
                    "to_best_parent_interval": [known(v) for v in model.to_best_interval or ()] or None,
                    "by_class": {c: known(v) for c, v in zip(self.classes, model.by_class.tolist(), strict=True)},
                    "other_protocols": {name: known(value) for name, value in model.other_protocols.items()},
                }
                for model in self.models
            ],
            "verdict": self.verdict and self.verdict.to_dict(),
            "notes": list(self.notes),
        }

    @property
    def scored_on(self) -> str:
        """The images, in words: a folder's name is said to be one, since nobody else knows it."""
        name, comma, split = self.dataset.partition(", split ")
        return f"{self.images} images of {name}{' (a local folder)' if self.commit is None else ''}{comma}{split}"

    @property
    def summary(self) -> str:
        """A sentence on the images, the classes, and what intervals are over."""
        best = self._other_best()
        return (
            f"{self.scored_on}, {len(self.classes)} classes ({self.protocol}). Intervals are "
            f"95 % over {self.drawn}." + (f" The best parent is {best.name}." if best is not None else "")
        )

    def of_models(self) -> Table:
        """Return a table of the models, in per cent.

        It compares with the best parent, too, where that is another model than the anchor and there is a merge or an
        ensemble to compare.
        """
        extras, best = list(self.models[0].extras), self._other_best()
        compared = ("to the best parent", "interval") if best is not None else ()
        header = ("model", self.metric.name, "interval", "to the anchor", "interval", *compared)
        rows: list[tuple[str, ...]] = []
        for model in self.models:
            further = (f"{100 * model.extras[name]:.2f}" for name in extras)
            to_anchor = difference_cells(model.difference, model.difference_interval)
            to_best = difference_cells(model.to_best, model.to_best_interval) if best is not None else ()
            score = f"{100 * model.mean:.2f}"
            rows.append((model.name, score, span(model.interval), *to_anchor, *to_best, *further))
        return (*header, *extras), rows

    def of_classes(self) -> Table:
        """Return a table of the classes, in per cent, with differences to the anchor."""
        rows: list[tuple[str, ...]] = []
        for index, name in enumerate(self.classes):
            anchor = self.models[0].by_class[index]
            cells = (_cell(model.by_class[index], anchor if rank else None) for rank, model in enumerate(self.models))
            rows.append((name, *cells))
        return (self.metric.of_class, *(model.name for model in self.models)), rows

    def to_markdown(self) -> Markdown:
        """Return what was scored, the tables of models and classes, and the verdict."""
        parts = [plain(self.summary), table(*self.of_models()), table(*self.of_classes())]
        if self.verdict is not None:
            parts.append(plain(self.verdict.sentence))
        return joined(parts, "\n\n")

    def plot(self) -> Plot:
        """Draw the scores of the models, with their intervals, and those of each class; beside them the differences."""
        unknown = [(np.nan, np.nan)]  # the intervals of a class
        spread = [[each.interval, *unknown * len(self.classes)] for each in self.models]
        apart = [[each.difference_interval or unknown[0], *unknown * len(self.classes)] for each in self.models]
        return Plot.of(
            lambda file: plot_class_scores(
                (self.metric.name, *self.classes),
                [each.name for each in self.models],
                [[each.mean, *each.by_class] for each in self.models],
                file,
                metric=self.metric.of_class,
                intervals=spread,
                difference_intervals=apart,
            )
        )

    def to_pandas(self) -> pandas.DataFrame:
        """Return a row for each model, with scores as fractions: means, intervals, differences, and those of classes.

        Raises:
            ExtraError: if pandas is not installed.
        """
        with naming_extras("A data frame"):
            import pandas
        return pandas.DataFrame([self._record(each) for each in self.models])

    def _record(self, model: ModelScores) -> dict[str, Any]:
        of_class = self.metric.of_class
        return {
            "model": model.name,
            "kind": model.kind,
            self.metric.name: model.mean,
            **ends("", model.interval),
            **{name.replace(" ", "_"): value for name, value in model.extras.items()},
            "difference": model.difference,
            **ends("difference_", model.difference_interval),
            "to_best_parent": model.to_best,
            **ends("to_best_parent_", model.to_best_interval),
            **{f"{of_class} {name}": score for name, score in zip(self.classes, model.by_class.tolist(), strict=True)},
        }

    def _other_best(self) -> ModelScores | None:
        """The best parent, if it is not the anchor and something is to be compared with it."""
        if not self.best_parent or not any(model.merged for model in self.models):
            return None
        return self.models[self.best_parent]

    def __repr__(self) -> str:
        scores = [f"{one_line(each.name)} {100 * each.mean:.2f}" for each in self.models]
        return f"<EvaluationReport: {self.metric.name} {first_few(scores)}; {one_line(self.summary)}>"

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def difference_cells(difference: float | None, interval: Interval | None) -> tuple[str, str]:
    """Return a difference and its interval in points, as cells of a table; they are empty if there is none."""
    if difference is None or interval is None:
        return "", ""
    return f"{100 * difference:+.2f}", span(interval, signed=True)


def known(value: float) -> float | None:
    """Return a number as JSON has it: None for nan."""
    return None if np.isnan(value) else value


def ends(prefix: str, interval: Interval | None) -> dict[str, float | None]:
    """Return the two ends of an interval by name, such as `low` and `high` after the prefix; None if there is none."""
    low, high = interval or (None, None)
    return {f"{prefix}low": low, f"{prefix}high": high}


def span(interval: Interval, signed: bool = False) -> str:
    """Return an interval in points, in words."""
    sign = "+" if signed else ""
    low, high = (100 * end + 0.0 for end in interval)  # no -0.00
    return f"{low:{sign}.2f} to {high:{sign}.2f}"


def _cell(value: float, anchor: float | None) -> str:
    if np.isnan(value):
        return "-"
    change = "" if anchor is None or np.isnan(anchor) else f" ({100 * (value - anchor):+.1f})"
    return f"{100 * value:.1f}{change}"


def report(
    metric: Metric,
    dataset: str,
    models: Sequence[str],
    counts: Counts,
    classes: ScoredClasses,
    *,
    kinds: Sequence[str] = (),
    groups: Groups | None = None,
) -> EvaluationReport:
    """Return the scores of models that were counted on the same images.

    Args:
        metric: the metric of the task.
        dataset: what the report calls the data set.
        models: the names of the models, that of the anchor first.
        counts: (models, images, rows, K) of the metric.
        classes: the classes of the data set, and those of them that are scored.
        kinds: "model", "merge" or "ensemble" for each model; if it is empty, none is made of others.
        groups: the groups of images that intervals draw together, None to draw single images.
    """
    resample_score, others = metric.resample_score(classes.rows), classes.other_protocols()
    by_class = [np.asarray(metric.by_class(own, classes.rows)) for own in counts]
    means = [float(mean(each)) for each in by_class]
    of_images = groups.of_images if groups else None
    resamples = [score_resamples(own, resample_score, of_images) for own in counts]
    kinds = tuple(kinds) or ("model",) * len(models)
    parents = [place for place, kind in enumerate(kinds) if kind == "model" and not np.isnan(means[place])]
    best = max(parents, key=lambda place: means[place], default=None)

    def to(place: int, other: int | None) -> tuple[float, Interval] | tuple[None, None]:
        """The difference of a model to another one."""
        if other is None or place == other:
            return None, None
        return means[place] - means[other], interval(resamples[place] - resamples[other])

    results = []
    for place, (name, own) in enumerate(zip(models, counts, strict=True)):
        difference, difference_interval = to(place, 0)
        to_best, to_best_interval = to(place, best)
        results.append(
            ModelScores(
                name=name,
                mean=means[place],
                by_class=by_class[place],
                extras=metric.extras(own, classes.rows),
                interval=interval(resamples[place]),
                difference=difference,
                difference_interval=difference_interval,
                to_best=to_best,
                to_best_interval=to_best_interval,
                kind=kinds[place],
                other_protocols={protocol: metric.mean(own, rows) for protocol, rows in others.items()},
                resamples=resamples[place],
            )
        )
    return EvaluationReport(
        metric,
        dataset,
        classes.protocol,
        classes.names,
        counts.shape[1],
        tuple(results),
        counts,
        best_parent=best,
        drawn=str(groups) if groups else "images",
        units=groups.count if groups else counts.shape[1],
    )
