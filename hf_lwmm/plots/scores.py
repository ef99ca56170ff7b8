"""Scores of models by class, and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_lwmm.plots.style import Place, PlotError, colour, legend_above, legend_height, literal, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INTERVALS = "; lines are 95 % intervals"
Values = NDArray[np.floating[Any]]


def plot_class_scores(
    classes: Sequence[str],
    models: Sequence[str],
    scores: ArrayLike,
    path: Place,
    *,
    metric: str = "IoU",
    intervals: ArrayLike | None = None,
    difference_intervals: ArrayLike | None = None,
) -> None:
    """Plot the scores of models by class and, beside them, the differences from the first model, the anchor.

    Args:
        classes: K names.
        models: M names, the anchor's first.
        scores: (M, K) fractions, nan for a class that does not occur.
        path: a file name that ends in .png, .svg or .pdf, or a buffer for a PNG.
        metric: name of the scores.
        intervals: (M, K, 2) 95 % intervals of the scores, nan where none is drawn.
        difference_intervals: (M, K, 2) 95 % intervals of the differences; the anchor's are ignored.

    Raises:
        PlotError: if the shapes do not fit, or the file cannot be written under this name.
    """
    values = 100 * np.asarray(scores, np.float64)
    if values.shape != (len(models), len(classes)) or not values.size:
        raise PlotError(
            f"Scores of shape {values.shape} are not those of {len(models)} models on {len(classes)} classes."
        )
    spread = _spread(values, intervals)
    differences = values - values[:1]
    difference_spread = _spread(differences, difference_intervals)
    classes, models = [literal(name) for name in classes], [literal(name) for name in models]
    rows, count = np.arange(len(classes)), len(models)
    thickness = 0.8 / count
    with picture(path, 0.7 + legend_height(models) + len(classes) * max(0.2, 0.09 * count)) as figure:
        panels = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2]) if count > 1 else [figure.subplots()]
        for index, name in enumerate(models):
            places = rows + (index - (count - 1) / 2) * thickness
            bars: dict[str, Any] = {"height": 0.9 * thickness, "color": colour(index), "label": name}
            panels[0].barh(places, np.nan_to_num(values[index]), **bars)
            _whiskers(panels[0], values[index], places, spread, index)
            if index:
                panels[1].barh(places, np.nan_to_num(differences[index]), **bars)
                _whiskers(panels[1], differences[index], places, difference_spread, index)
        panels[0].set_yticks(rows, classes)
        panels[0].set(
            ylim=(len(classes) - 0.45, -0.55),
            xlabel=f"{metric} in %{_INTERVALS if intervals is not None else ''}",
            xlim=(0, 100),
        )
        for axes in panels:
            axes.grid(axis="x")
            axes.tick_params(axis="y", left=False)
        if count > 1:
            panels[1].axvline(0, color="black", linewidth=0.8)
            first = models[0] if len(models[0]) <= 18 else "the first"
            panels[1].set_xlabel(f"points more than {first}")
        legend_above(figure, panels[0], models)


def plot_confusion(classes: Sequence[str], counts: ArrayLike, path: Place, *, model: str = "") -> None:
    """Plot a confusion matrix, in per cent of the pixels of each true class.

    Args:
        classes: K names.
        counts: (K, K) pixels by true and predicted class, or (K, K + 1), where the last column counts pixels without a
            predicted class; it is drawn only where there are any.
        path: a file name that ends in .png, .svg or .pdf, or a buffer for a PNG.
        model: name of the model, the title of the plot.

    Raises:
        PlotError: if the shape does not fit, or the file cannot be written under this name.
    """
    table = np.asarray(counts, np.float64)
    if not classes or table.shape not in [(len(classes), len(classes)), (len(classes), len(classes) + 1)]:
        raise PlotError(f"Counts of shape {table.shape} are not a confusion matrix of {len(classes)} classes.")
    if not table[:, len(classes) :].any():
        table = table[:, : len(classes)]
    totals = table.sum(axis=1, keepdims=True)
    parts = np.divide(100 * table, totals, out=np.full_like(table, np.nan), where=totals > 0)
    classes = [literal(name) for name in classes]
    predicted = [*classes, *(["none"] if table.shape[1] > len(classes) else [])]
    size = 6 if len(classes) > 12 else 8
    with picture(path, max(3.4, 1.6 + 0.26 * len(classes))) as figure:
        axes = figure.subplots()
        image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        axes.set_xticks(range(len(predicted)), predicted, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="predicted", ylabel="true", title=literal(model))
        axes.tick_params(length=0)
        for row, column in np.argwhere(parts >= 0.5).tolist():
            part = parts[row, column]
            axes.text(column, row, f"{part:.0f}", ha="center", va="center", fontsize=size,
                      color="white" if part > 55 else "black")  # fmt: skip
        for row in np.flatnonzero(totals[:, 0] == 0).tolist():
            axes.text((len(predicted) - 1) / 2, row, "does not occur", ha="center", va="center", fontsize=size)
        figure.colorbar(image, label="% of the true class's pixels", pad=0.01)


def _spread(values: Values, intervals: ArrayLike | None) -> Values | None:
    """Return the lengths of the whiskers, (2, M, K): to the left and to the right."""
    if intervals is None:
        return None
    limits = 100 * np.asarray(intervals, np.float64)
    if limits.shape != (*values.shape, 2):
        raise PlotError(f"Intervals of shape {limits.shape} do not fit scores of shape {values.shape}.")
    return np.nan_to_num(np.stack([values - limits[..., 0], limits[..., 1] - values])).clip(min=0)


def _whiskers(axes: Axes, values: Values, places: Values, spread: Values | None, index: int) -> None:
    if spread is not None:
        known = ~np.isnan(values)
        lengths = spread[:, index][:, known]
        axes.errorbar(values[known], places[known], xerr=lengths, fmt="none", ecolor="black", elinewidth=0.7)
