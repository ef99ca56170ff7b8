"""Draw the scores of a sweep: over one option of layerwise, and over the models that are merged.

Both pictures take rows of plain data, such as those of a sweep's Parquet file, one for each candidate that was scored.
A row has the keys `models` (names), `anchor` (None for an ensemble), `method` (None if nothing was merged), `score`
and, where known, the interval `low` to `high`, as fractions. Rows of layerwise merges also have `start`, `alpha` (None
is 1/M), `ramp` and `bn_stats`.
"""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_lwmm.files.targets import TargetFolder, as_target_folder
from hf_lwmm.plots.style import GREY, Place, PlotError, colour, legend_above, legend_height, literal, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
_Column = tuple[tuple[str, ...], str | None]  # models and anchor

KNOBS = {
    "start": "start, as a fraction of the depth",
    "alpha": "alpha, the anchor's weight in the first layers",
    "ramp": "ramp",
}
NAMES = ("subsets.png", *(f"{knob}.png" for knob in KNOBS))  # of the plots of a sweep
_LINES = 8


def plot_knob(rows: Sequence[Row], knob: str, path: Place, metric: str = "mIoU") -> None:
    """Draw the score over start, alpha or ramp, with a line for all merges that are otherwise alike.

    Of more than eight lines those with the highest scores are drawn. Source: Figures 5b and 5c of the paper.

    Args:
        rows: the scored candidates; only layerwise merges count.
        knob: `start`, `alpha` or `ramp`.
        path: the file to write, .png, .svg or .pdf.
        metric: the name of the scores.

    Raises:
        PlotError: if no two merges differ in the knob alone, or the file cannot be written.
    """
    lines = _lines_over(rows, knob)
    if not lines:
        raise PlotError(f"No two merges differ in {knob} alone.")
    best = sorted(lines, key=lambda key: -max(row["score"] for row in lines[key].values()))[:_LINES]
    names = _line_names(best)
    values = dict.fromkeys(value for key in best for value in lines[key])
    places: dict[Any, float] = {v: float(index) if knob == "ramp" else v for index, v in enumerate(values)}
    # Lines stand a little apart, so that no interval hides another.
    step = (0.06 if knob == "ramp" else 0.02) * min(b - a for a, b in pairwise(sorted(places.values())))
    with picture(path, 2.7 + legend_height(names)) as figure:
        axes = figure.subplots()
        for index, (key, name) in enumerate(zip(best, names, strict=True)):
            points = sorted(((places[value], row) for value, row in lines[key].items()), key=lambda point: point[0])
            shift = (index - (len(best) - 1) / 2) * step
            _draw(axes, [place + shift for place, _ in points], [row for _, row in points], index, name, "-")
        axes.set_xticks(list(places.values()), [v if knob == "ramp" else f"{v:.3g}" for v in places])
        axes.grid(axis="y")
        axes.set(xlabel=KNOBS[knob], ylabel=_scores_label(metric, rows))
        if len(lines) > len(best):
            axes.set_title(f"the best {len(best)} of {len(lines)} lines", fontsize=8)
        legend_above(figure, axes, names)


def _lines_over(rows: Sequence[Row], knob: str) -> dict[tuple[Any, ...], dict[Any, Row]]:
    """The rows of each line of more than one point, by the knob's value; the key of a line is all that it shares."""
    lines: dict[tuple[Any, ...], dict[Any, Row]] = {}
    for row in (row for row in rows if row.get("method") == "layerwise"):
        others = tuple(_shown(row, name) for name in (*KNOBS, "bn_stats") if name != knob)
        lines.setdefault((tuple(row["models"]), row["anchor"], *others), {})[_setting(row, knob)] = row
    return {key: points for key, points in lines.items() if len(points) > 1}


def plot_subsets(rows: Sequence[Row], path: Place, metric: str = "mIoU") -> None:
    """Draw the score of every subset of the models with every anchor.

    A column stands for a subset and its anchor: above are its scores by every method, and by those knobs of layerwise
    that vary unless these are many; below are the models in it, the anchor ringed. Columns are in order of the number
    of models, then of the best score. Source: Table 3 of the paper.

    Args:
        rows: the scored candidates.
        path: the file to write, .png, .svg or .pdf.
        metric: the name of the scores.

    Raises:
        PlotError: if there are no rows, or the file cannot be written.
    """
    if not rows:
        raise PlotError("There are no merges to draw.")
    columns: dict[_Column, list[Row]] = {}
    for row in rows:
        columns.setdefault((tuple(row["models"]), row["anchor"]), []).append(row)
    order = sorted(columns, key=lambda key: (len(key[0]), -max(row["score"] for row in columns[key])))
    models = list(dict.fromkeys(name for members, _ in order for name in members))
    labels = [textwrap.fill(literal(model), 30) for model in models]
    below = 0.1 + len(models) * (0.08 + 0.13 * max(label.count("\n") + 1 for label in labels))
    points = _points_by_series([columns[key] for key in order])
    with picture(path, 2.9 + below + legend_height([*points])) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.3, below])
        for index, (method, found) in enumerate(points.items()):
            _draw(upper, [x for x, _ in found], [row for _, row in found], index, method, "")
        upper.grid(axis="y")
        upper.set_ylabel(_scores_label(metric, rows))
        upper.tick_params(bottom=False)
        _draw_members(lower, order, models)
        lower.set_yticks(range(len(models)), labels)
        legend_above(figure, upper, [*points])


def _points_by_series(columns: Sequence[Sequence[Row]]) -> dict[str, list[tuple[float, Row]]]:
    """The rows of each series with their places; the series of one column stand a little apart."""
    every = [row for column in columns for row in column]
    merged = [row for row in every if row.get("method") == "layerwise"]
    varied = [knob for knob in KNOBS if len({_shown(row, knob) for row in merged}) > 1]

    def full(row: Row) -> str:
        knobs = [_shown(row, knob) for knob in varied if row.get("method") == "layerwise"]
        return ", ".join([_method(row), *filter(None, knobs)])

    name = full if len(set(map(full, every))) <= _LINES else _method
    points: dict[str, list[tuple[float, Row]]] = {name(row): [] for row in every}
    for x, column in enumerate(columns):
        beside = list(dict.fromkeys(map(name, column)))
        for row in column:
            shift = (beside.index(name(row)) - (len(beside) - 1) / 2) * min(0.7 / len(beside), 0.2)
            points[name(row)].append((x + shift, row))
    return points


def _draw_members(axes: Axes, order: Sequence[_Column], models: Sequence[str]) -> None:
    """Draw which models are merged in each column: a dot for each model, black if it is in, the anchor ringed."""
    for x, (members, anchor) in enumerate(order):
        inside = [models.index(name) for name in members]
        axes.plot([x, x], [min(inside), max(inside)], color="black", linewidth=1)
        axes.plot([x] * len(models), range(len(models)), "o", color=GREY, markersize=4, zorder=1)
        axes.plot([x] * len(inside), inside, "o", color="black", markersize=4)
        if anchor is not None:
            axes.plot([x], [models.index(anchor)], "o", color="white", mec="black", mew=1.5, markersize=6)
    axes.set(xlim=(-0.6, len(order) - 0.4), ylim=(len(models) - 0.5, -0.5), xlabel="merged models, anchor ringed")
    axes.tick_params(bottom=False, left=False, labelbottom=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def save_sweep_plots(rows: Sequence[Row], folder: Path | TargetFolder, metric: str = "mIoU") -> list[Path]:
    """Draw subsets.png, and start.png, alpha.png and ramp.png for those that vary, into a folder; return the paths."""
    place = as_target_folder(folder)
    place.path.mkdir(parents=True, exist_ok=True)
    targets = [place.file("subsets.png")]
    plot_subsets(rows, targets[0], metric)
    for knob in KNOBS:
        with contextlib.suppress(PlotError):  # no merges differ in it alone
            target = place.file(f"{knob}.png")
            plot_knob(rows, knob, target, metric)
            targets.append(target)
    return [each.path for each in targets]


def _draw(axes: Axes, values: Sequence[float], rows: Sequence[Row], index: int, name: str, line: str) -> None:
    scores = [100 * row["score"] for row in rows]
    # The score is that of the images themselves, which may lie outside the interval of the resamples.
    below = [100 * max(row["score"] - row["low"], 0) if row.get("low") is not None else 0.0 for row in rows]
    above = [100 * max(row["high"] - row["score"], 0) if row.get("high") is not None else 0.0 for row in rows]
    spread = [below, above]
    axes.errorbar(
        values, scores, spread, color=colour(index), label=name, fmt=f"o{line}", elinewidth=0.8, capsize=2, capthick=0.8
    )


def _scores_label(metric: str, rows: Sequence[Row]) -> str:
    return f"{metric} in %" + ("\nwith 95 % intervals" if any(row.get("low") is not None for row in rows) else "")


def _setting(row: Row, knob: str) -> Any:
    value = row.get(knob)
    return 1 / len(row["models"]) if knob == "alpha" and value is None else value


def _shown(row: Row, knob: str) -> str:
    """A line's knob as a text; an alpha of 1/M is the same choice for any M, and empty."""
    value = _setting(row, knob)
    if knob == "alpha" and math.isclose(value, 1 / len(row["models"])):
        return ""
    return "" if value is None else f"{knob} {value:g}" if isinstance(value, float) else f"{knob} {value}"


def _method(row: Row) -> str:
    return row.get("method") or ("single model" if len(row["models"]) == 1 else "ensemble")


def _line_names(keys: Sequence[tuple[Any, ...]]) -> list[str]:
    """The name of each line: its models, the anchor starred, and the other knobs in which lines differ."""
    varied = [place for place in range(2, len(keys[0])) if len({key[place] for key in keys}) > 1]
    names = []
    for key in keys:
        models = ", ".join(literal(name) + ("*" if name == key[1] else "") for name in key[0])
        names.append("; ".join([models, *(key[place] for place in varied if key[place])]))
    return names
