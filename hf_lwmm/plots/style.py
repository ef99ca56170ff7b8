"""The style of all plots: colours, sizes, and files whose bytes depend only on the data."""

from __future__ import annotations

import base64
import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hf_lwmm.errors import HfLwmmError, naming_extras
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.targets import Target
from hf_lwmm.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can distinguish; the anchor has the first.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
GREY = "#D9D9D9"
WIDTH = 7.2  # inches; at DPI this is twice the 720 pixels of a model card's width
DPI = 200
_SHOWN = 720  # pixels
SUFFIXES = (".png", ".svg", ".pdf")
Place: TypeAlias = str | Path | Target | io.BytesIO  # where a plot goes; a buffer receives a PNG

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "svg.hashsalt": "hf-lwmm",
}
# Left out, because they would make two files of the same plot differ: the writer's version and the time.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Creator": None, "Date": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


class PlotError(HfLwmmError):
    """A plot cannot be drawn from its data, or written under the given name."""


@contextlib.contextmanager
def picture(path: Place, height: float) -> Iterator[Figure]:
    """Open a figure to draw on, as wide as a model card, and write it when the context ends.

    Args:
        path: a file name that ends in .png, .svg or .pdf, a target of such a name, or a buffer, which receives a PNG.
        height: height of the figure in inches.

    Raises:
        PlotError: for another suffix, or a folder that does not exist.
        MergeError: if the file cannot be written.
    """
    suffix = suffix_of(path)
    with naming_extras("Drawing a plot"):
        from matplotlib import style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):  # not the user's own style
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with opened(path) as file:
            figure.savefig(file, format=suffix[1:], metadata=_METADATA[suffix])


def suffix_of(path: Place) -> str:
    """Return the suffix that says what kind of picture goes to a place.

    Raises:
        PlotError: as `picture`.
    """
    if isinstance(path, io.BytesIO):
        return ".png"
    return checked_name(path.path if isinstance(path, Target) else path).suffix.lower()


@contextlib.contextmanager
def opened(path: Place) -> Iterator[Path | io.BytesIO]:
    """Return a context with the file or the buffer that a picture is written to. Raises MergeError if it cannot be."""
    if isinstance(path, io.BytesIO):
        yield path
        return
    with atomic(path if isinstance(path, Target) else Path(path)) as place:
        yield place


def checked_name(path: str | Path) -> Path:
    """Return `path` if a plot can be written there.

    Raises:
        PlotError: for a suffix other than .png, .svg and .pdf, or a folder that does not exist.
    """
    path = Path(path)
    if not os.path.isdir(path.absolute().parent):  # noqa: PTH112  (pathlib's fails for long texts)
        raise PlotError(f"{path}: there is no folder {path.parent}.")
    if path.suffix.lower() not in SUFFIXES:
        raise PlotError(f"{path}: a picture's name ends in {', '.join(SUFFIXES)}.")
    return path


@dataclass(frozen=True)
class Plot:
    """A plot, which a notebook shows: its PNG, and the function that draws it into a file or a buffer."""

    png: bytes = field(repr=False)
    draw: Callable[[Place], None] = field(repr=False)

    @classmethod
    def of(cls, draw: Callable[[Place], None]) -> Plot:
        """Return the plot that a function draws."""
        file = io.BytesIO()
        draw(file)
        return cls(file.getvalue(), draw)

    def save(self, path: str | Path | Target) -> None:
        """Write the plot into a file whose name ends in .png, .svg or .pdf.

        Raises:
            PlotError: for another suffix, or a folder that does not exist.
            MergeError: if the file cannot be written.
        """
        if suffix_of(path) != ".png":
            self.draw(path)
            return
        with atomic(path if isinstance(path, Target) else Path(path)) as place:
            place.write_bytes(self.png)

    def to_html(self) -> str:
        """Return the plot as an image of an HTML page that needs no other file."""
        return f'<img width="{_SHOWN}" src="data:image/png;base64,{base64.b64encode(self.png).decode()}">'

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.png, {"width": _SHOWN}


def colour(index: int) -> str:
    """Return the colour of the model with this index, counted from 0."""
    return COLOURS[index % len(COLOURS)]


def literal(name: str) -> str:
    """Return a name as a text of a plot that shows it, in which dollars begin no formula."""
    return one_line(name).replace("$", r"\$")


def legend_above(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    """Put the legend of `axes` at the top of the figure, in as many columns as the names leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=_legend_columns(names))


def legend_height(names: Sequence[str]) -> float:
    """Return the height, in inches, of a legend placed by `legend_above`."""
    return 0.17 * math.ceil(len(names) / _legend_columns(names))


def _legend_columns(names: Sequence[str]) -> int:
    return max(1, min(len(names), 110 // (max(map(len, names)) + 6)))


def mark_boundary(axes: Axes, position: int, positions: int) -> None:
    """Mark the end of the backbone, after depth position `position`, unless the backbone or the head is empty."""
    if not 0 < position < positions:
        return
    axes.axvline(position + 0.5, color="black", linestyle=":", linewidth=1)
    where: dict[str, Any] = {"y": 1.01, "va": "bottom", "fontsize": 8, "transform": axes.get_xaxis_transform()}
    axes.text(x=position + 0.5, s="backbone ", ha="right", **where)
    axes.text(x=position + 0.5, s=" head", ha="left", **where)
