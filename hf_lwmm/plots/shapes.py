"""A drawing as shapes, in pixels from its upper left corner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Area:
    """A polygon that is filled with a colour."""

    corners: tuple[Point, ...]
    colour: str


@dataclass(frozen=True)
class Line:
    """A line through points, `width` pixels wide; one that is `dotted` has gaps."""

    points: tuple[Point, ...]
    colour: str = "#000000"
    width: float = 2.2
    dotted: bool = False


@dataclass(frozen=True)
class Text:
    """A line of black text, `size` points high.

    Its `side` is at `place`, and half its height; one that is `upright` is read from below, and has its middle there.
    """

    words: str
    place: Point
    size: float = 8.0
    side: Literal["left", "center", "right"] = "center"
    upright: bool = False


Shape: TypeAlias = Area | Line | Text


@dataclass(frozen=True)
class Drawing:
    """Shapes on white, the first of them at the bottom, and the size of the whole in pixels."""

    width: int
    height: int
    shapes: tuple[Shape, ...]
