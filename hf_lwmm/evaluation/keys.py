"""Write below a picture what its colours stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hf_lwmm.text import one_line

_GAP, _SMALLEST = 4, 14  # between picture and key, and the size of the text, in pixels
_WIDTHS = 64  # the text of larger pictures grows with them: so many of its sizes make the picture's width


def with_key(picture: Image.Image, key: Sequence[tuple[str, NDArray[np.uint8]]], caption: str) -> Image.Image:
    """Return a picture with a key below it: a box in the colour of each class before its name, and a caption.

    A picture that is narrower than one of the classes, or one word of the caption, gets a white margin on its right.
    """
    size = max(_SMALLEST, picture.width // _WIDTHS)
    font = ImageFont.load_default(size)
    box, line, space = size - 1, round(1.4 * size), size // 2
    names = [one_line(name) for name, _ in key]
    widths = [box + space + int(font.getlength(name)) for name in names]
    width = max(picture.width, *widths, *(int(font.getlength(word)) + 1 for word in caption.split()), 0)
    places, left, top = [], 0, 0
    for own in widths:
        if left and left + own > width:
            left, top = 0, top + line
        places.append((left, top))
        left += own + 2 * space
    lines = _wrapped(caption, font, width)
    height = (top + line if key else 0) + len(lines) * line
    if not height:
        return picture
    whole = Image.new("RGB", (width, picture.height + _GAP + height), "white")
    whole.paste(picture, (0, 0))
    pen, start = ImageDraw.Draw(whole), picture.height + _GAP
    for name, (_, colour), (left, top) in zip(names, key, places, strict=True):
        corner = (left, start + top + (line - box) // 2)
        pen.rectangle((*corner, left + box, corner[1] + box), tuple(int(part) for part in colour), "black")
        pen.text((left + box + space, start + top + line / 2), name, fill="black", font=font, anchor="lm")
    for row, text in enumerate(lines, start=height // line - len(lines)):
        pen.text((0, start + row * line + line / 2), text, fill="black", font=font, anchor="lm")
    return whole


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """The lines of a text that are at most so wide, as far as its words allow it."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
