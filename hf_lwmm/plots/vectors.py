"""Draw shapes with matplotlib, as vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_lwmm.plots.shapes import Area, Drawing, Line, Point
from hf_lwmm.plots.style import DPI, literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_shapes(figure: Figure, drawing: Drawing) -> None:
    """Add the shapes of a drawing to a figure of its size."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Polygon

    def inside(point: Point) -> Point:
        return point[0] / drawing.width, 1 - point[1] / drawing.height

    for order, shape in enumerate(drawing.shapes):
        if isinstance(shape, Area):
            corners = [inside(corner) for corner in shape.corners]
            patch = Polygon(corners, facecolor=shape.colour, linewidth=0, transform=figure.transFigure, zorder=order)
            figure.add_artist(patch)
        elif isinstance(shape, Line):
            across, up = zip(*map(inside, shape.points), strict=True)
            line = Line2D(across, up, color=shape.colour, linewidth=shape.width * 72 / DPI, zorder=order)
            line.set_linestyle(":" if shape.dotted else "-")
            figure.add_artist(line)
        else:
            turn = 90 if shape.upright else 0
            words = literal(shape.words)
            figure.text(*inside(shape.place), words, ha=shape.side, va="center", size=shape.size, rotation=turn)
