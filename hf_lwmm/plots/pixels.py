"""Draw shapes with Pillow, which takes less time than importing matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hf_lwmm.errors import naming_extras
from hf_lwmm.plots.shapes import Area, Drawing, Line, Point, Text
from hf_lwmm.plots.style import DPI

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_FINER = 3  # areas and lines are drawn so many times as large, which smooths their edges
_FONT = "fonts/ttf/DejaVuSans.ttf"
_DOT, _GAP = 1.0, 1.65  # of a dotted line, in widths of it
_ANCHORS = {"left": "lm", "center": "mm", "right": "rm"}


def png(drawing: Drawing) -> bytes:
    """Return a drawing as a PNG.

    Raises:
        ExtraError: if matplotlib is not installed, whose font and whose Pillow are used.
    """
    with naming_extras("Drawing a plot"):
        font_file()
        from PIL import Image, ImageDraw

    image = Image.new("RGB", (drawing.width * _FINER, drawing.height * _FINER), "white")
    pen = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        if isinstance(shape, Area):
            pen.polygon(_larger(shape.corners), fill=shape.colour)
        elif isinstance(shape, Line):
            for points in _dots(shape) if shape.dotted else (shape.points,):
                pen.line(_larger(points), fill=shape.colour, width=round(shape.width * _FINER))
    image = image.reduce(_FINER)
    for shape in drawing.shapes:
        if isinstance(shape, Text):
            _write(image, shape)
    file = io.BytesIO()
    image.save(file, "png", dpi=(DPI, DPI))
    return file.getvalue()


def text_width(words: str, size: float) -> float:
    """Return the width in pixels of a line of text, `size` points high.

    Raises:
        ExtraError: as `png`.
    """
    with naming_extras("Drawing a plot"):
        return _font(size).getlength(words)


@cache
def font_file() -> Path:
    """Return matplotlib's own font, for which matplotlib need not be imported.

    Raises:
        ModuleNotFoundError: if matplotlib is not installed.
    """
    found = find_spec("matplotlib")
    path = Path(found.origin).parent / "mpl-data" / _FONT if found is not None and found.origin else None
    if path is not None and path.is_file():
        return path
    import matplotlib  # which knows where its data is if somebody has put it elsewhere

    return Path(matplotlib.get_data_path(), _FONT)


@cache
def _font(size: float) -> FreeTypeFont:
    file = font_file()  # first: without matplotlib the error is about it, and not about Pillow, which comes with it
    from PIL import ImageFont

    return ImageFont.truetype(file, size * DPI / 72, layout_engine=ImageFont.Layout.BASIC)


def _larger(points: tuple[Point, ...]) -> list[Point]:
    return [(x * _FINER, y * _FINER) for x, y in points]


def _dots(line: Line) -> Iterator[tuple[Point, Point]]:
    """The pieces of a dotted line from its first to its last point."""
    (x, y), (to_x, to_y) = line.points[0], line.points[-1]
    length, step = math.dist((x, y), (to_x, to_y)), (_DOT + _GAP) * line.width
    for index in range(math.ceil(length / step)):
        first, last = index * step / length, min(1.0, (index * step + _DOT * line.width) / length)
        yield (
            (x + (to_x - x) * first, y + (to_y - y) * first),
            (x + (to_x - x) * last, y + (to_y - y) * last),
        )


def _write(image: Image, text: Text) -> None:
    from PIL import Image, ImageDraw

    font = _font(text.size)
    if not text.upright:
        ImageDraw.Draw(image).text(text.place, text.words, fill="black", font=font, anchor=_ANCHORS[text.side])
        return
    ascent, descent = font.getmetrics()
    mask = Image.new("L", (math.ceil(font.getlength(text.words)), ascent + descent))
    ImageDraw.Draw(mask).text((mask.width / 2, mask.height / 2), text.words, fill=255, font=font, anchor="mm")
    mask = mask.transpose(Image.Transpose.ROTATE_90)
    x, y = text.place
    image.paste("black", (round(x - mask.width / 2), round(y - mask.height / 2)), mask)
