"""The layer weights of a merge over depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hf_lwmm.layouts import in_backbone
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.plots.pixels import png, text_width
from hf_lwmm.plots.shapes import Area, Drawing, Line, Shape, Text
from hf_lwmm.plots.style import DPI, WIDTH, Place, PlotError, colour, opened, picture, suffix_of
from hf_lwmm.plots.vectors import add_shapes
from hf_lwmm.text import one_line

# Pixels, as everything here.
_LEFT, _RIGHT, _ABOVE, _BELOW = 99, 4, 58, 86  # around the frame; the legend stands above that
_INSIDE = 376  # the frame's height
_TICK = 10
_EDGE = 22  # between the legend and the picture's edges
_ROW = 34  # the height of a row of the legend
_KEY, _BESIDE_KEY, _BETWEEN = 42, 18, 46  # a colour in the legend, what follows it, and what follows its name
_MOST_TICKS = 9


def plot_layer_weights(plan: MergePlan, path: Place) -> None:
    """Plot the layer weights of a convex method over depth, as stacked areas (paper, Figure 5a).

    Args:
        plan: a plan with layer weights.
        path: a file name that ends in .png, .svg or .pdf, or a buffer for a PNG.

    Raises:
        PlotError: if the method has no layer weights, or the file cannot be written under this name.
    """
    if plan.layer_weights is None:
        raise PlotError(f"--method {plan.method.name} has no weights of whole layers to plot.")
    suffix = suffix_of(path)
    anchor = plan.alignment.anchor
    order = [anchor, *(model for model in range(len(plan.checkpoints)) if model != anchor)]
    names = [one_line(plan.labels[model]) + (" (anchor)" if model == anchor else "") for model in order]
    backbone = max((s.position for s in plan.alignment.shared if in_backbone(s.slot)), default=0)
    drawing = _drawing(plan.layer_weights[:, order].T, names, backbone)
    if suffix != ".png":
        with picture(path, drawing.height / DPI) as figure:
            add_shapes(figure, drawing)
        return
    with opened(path) as file:
        content = png(drawing)
        file.write_bytes(content) if isinstance(file, Path) else file.write(content)


def _drawing(weights: npt.NDArray[np.float64], names: Sequence[str], backbone: int) -> Drawing:
    """The weights (M, P) of models with these names; the first `backbone` positions are those of the backbone."""
    width, places = round(WIDTH * DPI), _legend_places(names)
    top = _ABOVE + _ROW * (1 + max(row for _, row in places))
    positions = len(weights.T)
    beyond = round(text_width(f"{positions}", Text.size) / 2)  # what the number of the last position needs
    frame = _Frame(_LEFT, top, width - _RIGHT - beyond, top + _INSIDE, positions)
    shapes = (*_areas(weights, frame), *_legend(names, places), *_border(backbone, frame), *_axes(frame))
    return Drawing(width, frame.bottom + _BELOW, shapes)


@dataclass(frozen=True)
class _Frame:
    """Where weights are drawn, in pixels: depth positions from 1 to `positions` across, weights from 0 to 1 up."""

    left: int
    top: int
    right: int
    bottom: int
    positions: int

    @property
    def last(self) -> int:
        """The position at the right end."""
        return max(self.positions, 2)

    def x(self, position: float) -> float:
        return self.left + (position - 1) / (self.last - 1) * (self.right - self.left)

    def y(self, weight: float) -> float:
        return self.bottom - weight * (self.bottom - self.top)


def _areas(weights: npt.NDArray[np.float64], frame: _Frame) -> Iterator[Shape]:
    if frame.positions < 2:
        return
    edges = np.vstack([np.zeros(frame.positions), np.cumsum(weights, axis=0)]).tolist()
    bounds = [tuple((frame.x(position), frame.y(edge)) for position, edge in enumerate(each, 1)) for each in edges]
    for index, (lower, upper) in enumerate(pairwise(bounds)):
        yield Area((*lower, *upper[::-1]), colour(index))
    for bound in bounds[1:-1]:
        yield Line(bound, "#FFFFFF", 1.7)


def _legend(names: Sequence[str], places: Sequence[tuple[float, int]]) -> Iterator[Shape]:
    for index, (name, (left, row)) in enumerate(zip(names, places, strict=True)):
        top = _EDGE + _ROW * row
        right, bottom = left + _KEY, top + _KEY / 3
        yield Area(((left, top), (right, top), (right, bottom), (left, bottom)), colour(index))
        yield Text(name, (right + _BESIDE_KEY, (top + bottom) / 2), side="left")


def _legend_places(names: Sequence[str]) -> list[tuple[float, int]]:
    """The left end and the row of each name, in as many columns as fit beside each other."""
    widths = [_KEY + _BESIDE_KEY + text_width(name, Text.size) for name in names]
    for columns in range(len(names), 0, -1):
        column_widths = [max(widths[column::columns]) for column in range(columns)]
        starts = [_EDGE + sum(column_widths[:column]) + _BETWEEN * column for column in range(columns)]
        if starts[-1] + column_widths[-1] <= WIDTH * DPI - _EDGE:
            break
    return [(starts[index % columns], index // columns) for index in range(len(names))]


def _border(backbone: int, frame: _Frame) -> Iterator[Shape]:
    """The end of the backbone, unless the backbone or the head is empty."""
    if not 0 < backbone < frame.positions:
        return
    x = frame.x(backbone + 0.5)
    yield Line(((x, frame.bottom), (x, frame.top)), width=2.8, dotted=True)
    yield Text("backbone", (x - 8, frame.top - 17), side="right")
    yield Text("head", (x + 8, frame.top - 17), side="left")


def _axes(frame: _Frame) -> Iterator[Shape]:
    yield Line(((frame.left, frame.top - 1), (frame.left, frame.bottom), (frame.right, frame.bottom)))
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = frame.y(tick)
        yield Line(((frame.left - _TICK, y), (frame.left, y)))
        yield Text(f"{tick}", (frame.left - 2 * _TICK, y), side="right")
    for position in _round_positions(frame.last):
        x = frame.x(position)
        yield Line(((x, frame.bottom), (x, frame.bottom + _TICK)))
        yield Text(f"{position}", (x, frame.bottom + 29))
    yield Text("depth position", ((frame.left + frame.right) / 2, frame.bottom + 63), 9.0)
    yield Text("weight", (20, (frame.top + frame.bottom) / 2), 9.0, upright=True)


def _round_positions(last: int) -> range:
    """Round numbers up to the last position, at most `_MOST_TICKS` of them."""
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    step = next(each for each in steps if last // each <= _MOST_TICKS)
    return range(step, last + 1, step)
