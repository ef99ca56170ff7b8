"""A painter's canvas for street scenes: shapes in metres, seen by a pinhole camera, as colours and codes.

In the world, x points to the right, y up from the road and z along the road, all in metres. Later shapes cover earlier
ones, so callers paint from far to near.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(len(CLASSES))

Colour = tuple[float, float, float]
Point = tuple[float, float, float]

# A pixel's code holds its label (the low byte), a flag for pixels that shine by themselves, and its instance.
GLOW = 1 << 8
_INSTANCE_BIT = 9


def code(label: int, instance: int = 0, glow: bool = False) -> int:
    """Pack a label, an instance and the flag of shining pixels into a code."""
    return label | glow * GLOW | instance << _INSTANCE_BIT


def labels_of(codes: np.ndarray) -> np.ndarray:
    """Return the labels in codes, uint8."""
    return (codes & 0xFF).astype(np.uint8)


def instances_of(codes: np.ndarray) -> np.ndarray:
    """Return the instances in codes."""
    return codes >> _INSTANCE_BIT


def glow_of(codes: np.ndarray) -> np.ndarray:
    """Return True for the codes of shining pixels."""
    return (codes & GLOW) > 0


def _grain(size: int = 256) -> np.ndarray:
    """Return noise with detail at several scales, of mean 0 and variance 1: (size, size) float32."""
    rng = np.random.default_rng(0)
    total = np.zeros((size, size), np.float32)
    for cells in (16, 32, 64, 128, 256):
        coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
        total += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    varied: np.ndarray = (total - total.mean()) / total.std()
    return varied


GRAIN = _grain()
_FLAT_GRAIN = GRAIN.ravel()
_RAMP = np.linspace(0, 1, 256, dtype=np.float32)[:, None]


def grain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return noise at coordinates that broadcast together; it repeats every 256 units."""
    return _FLAT_GRAIN.take(((a.astype(np.int32) & 255) << 8) + (b.astype(np.int32) & 255), mode="clip")


def shade(colour: Colour, factor: float) -> Colour:
    """Return a colour that is lighter or darker by a factor."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def blend(a: Colour, b: Colour, share: float) -> Colour:
    """Return the colour, or the point, at the fraction `share` of the way from `a` to `b`."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def choose(rng: np.random.Generator, options: Sequence[Colour], spread: float = 0.12) -> Colour:
    """Draw one of the colours, lighter or darker by up to the fraction `spread` and slightly tinted."""
    red, green, blue = options[int(rng.random() * len(options))]
    light = 1 + (2 * rng.random() - 1) * spread
    tint = rng.standard_normal(3)
    return (
        max(0.0, red * light + 4 * float(tint[0])),
        max(0.0, green * light + 4 * float(tint[1])),
        max(0.0, blue * light + 4 * float(tint[2])),
    )


Item = TypeVar("Item")


def far_to_near(items: Iterable[tuple[float, Item]]) -> list[tuple[float, Item]]:
    """Sort (depth, item) pairs in the order of painting."""
    return sorted(items, key=lambda item: -item[0])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at (x, above, 0) metres, with the image in pixels.

    The road bends sideways by curve * z^2 metres.
    """

    width: int
    height: int
    focal: float
    centre: float
    horizon: float
    x: float
    above: float
    curve: float

    def project(self, point: Point) -> tuple[float, float]:
        """Return the pixel (column, row) of a point."""
        return self.project_all((point,))[0]

    def project_all(self, points: Iterable[Point]) -> list[tuple[float, float]]:
        """Return the pixels (column, row) of points."""
        centre, horizon, focal, x0, y0, curve = self.centre, self.horizon, self.focal, self.x, self.above, self.curve
        return [(centre + focal * ((x - x0) / z + curve * z), horizon + focal * (y0 - y) / z) for x, y, z in points]


@dataclass(frozen=True)
class Patch:
    """The pixels of an upright plane, and the point of the plane that each one shows."""

    left: int
    top: int
    along: np.ndarray  # (1, w) metres along the plane
    up: np.ndarray  # (h, w) metres above the road
    depth: np.ndarray  # (1, w) metres from the camera


@dataclass(frozen=True)
class Sprite:
    """A shape painted in advance, which stands on the ground at the middle of its lower edge."""

    light: Image.Image  # L: dark to light
    cover: Image.Image  # L: opacity
    outline: Image.Image  # L: 255 inside the annotators' outline


@dataclass
class Canvas:
    """An image of colours and one of codes, painted together from far to near. Distant colours fade into the haze."""

    camera: Camera
    colours: Image.Image
    codes: Image.Image
    haze: Colour
    sight: float  # metres after which about two thirds of a colour are haze
    lamps: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._colours = ImageDraw.Draw(self.colours)
        self._codes = ImageDraw.Draw(self.codes)

    def _seen(self, colour: Colour, z: float) -> tuple[int, int, int]:
        red, green, blue = blend(self.haze, colour, math.exp(-max(z, 0) / self.sight))
        return (min(int(red), 255), min(int(green), 255), min(int(blue), 255))

    def polygon(self, points: Sequence[Point], colour: Colour, code: int) -> None:
        """Paint a filled polygon."""
        flat = self.camera.project_all(points)
        self._colours.polygon(flat, fill=self._seen(colour, points[0][2]))
        self._codes.polygon(flat, fill=code)

    def disc(self, centre: Point, rx: float, ry: float, colour: Colour, code: int) -> None:
        """Paint a filled ellipse that faces the camera, with radii of `rx` and `ry` metres."""
        box = self._ellipse(centre, rx, ry)
        self._colours.ellipse(box, fill=self._seen(colour, centre[2]))
        self._codes.ellipse(box, fill=code)

    def ring(self, centre: Point, rx: float, ry: float, width: float, colour: Colour, code: int) -> None:
        """Paint a wheel: only the rim has the colour, but the whole disc has the code, as annotators draw it."""
        box = self._ellipse(centre, rx, ry)
        rim = max(1, round(self.camera.focal * width / centre[2]))
        self._colours.ellipse(box, outline=self._seen(colour, centre[2]), width=rim)
        self._codes.ellipse(box, fill=code)

    def line(self, points: Sequence[Point], width: float, colour: Colour, code: int) -> None:
        """Paint a line, `width` metres wide at its first point."""
        flat = self.camera.project_all(points)
        z = points[0][2]
        pixels = max(1, round(self.camera.focal * width / z))
        self._colours.line(flat, fill=self._seen(colour, z), width=pixels)
        self._codes.line(flat, fill=code, width=pixels)

    def dim(self, points: Sequence[Point], share: float) -> None:
        """Paint a shadow: darken the colours inside a polygon on the ground, without changing the codes."""
        flat = self.camera.project_all(points)
        left, top = (int(max(0, min(p[axis] for p in flat) - 2)) for axis in (0, 1))
        right = int(min(self.camera.width, max(p[0] for p in flat) + 3))
        bottom = int(min(self.camera.height, max(p[1] for p in flat) + 3))
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon([(u - left, v - top) for u, v in flat], fill=int(255 * share))
        self.colours.paste((0, 0, 0), (left, top, right, bottom), mask)

    def stamp(
        self, sprite: Sprite, foot: Point, wide: float, tall: float, colours: tuple[Colour, Colour], code: int
    ) -> None:
        """Paint a sprite of `wide` by `tall` metres that stands at `foot`, in a range of colours from dark to light."""
        u, v = self.camera.project(foot)
        scale = self.camera.focal / foot[2]
        whole = (u - wide * scale / 2, v - tall * scale, u + wide * scale / 2, v)
        left, top = max(0, math.floor(whole[0])), max(0, math.floor(whole[1]))
        right = min(self.camera.width, math.ceil(whole[2]))
        bottom = min(self.camera.height, math.ceil(whole[3]))
        if right <= left or bottom <= top:
            return
        per_u, per_v = sprite.light.width / (wide * scale), sprite.light.height / (tall * scale)
        box = (
            max(0.0, (left - whole[0]) * per_u),
            max(0.0, (top - whole[1]) * per_v),
            min(float(sprite.light.width), (right - whole[0]) * per_u),
            min(float(sprite.light.height), (bottom - whole[1]) * per_v),
        )
        size, spot = (right - left, bottom - top), (left, top)
        light, cover = (part.resize(size, Image.Resampling.BILINEAR, box, 1.0) for part in (sprite.light, sprite.cover))
        dark, bright = (self._seen(colour, foot[2]) for colour in colours)
        light.putpalette((dark + _RAMP * np.subtract(bright, dark)).astype(np.uint8).tobytes())
        self.colours.paste(light.convert("RGB"), spot, cover)
        self.codes.paste(code, (left, top, right, bottom), sprite.outline.resize(size, Image.Resampling.NEAREST, box))

    def _ellipse(self, centre: Point, rx: float, ry: float) -> tuple[float, float, float, float]:
        u, v = self.camera.project(centre)
        scale = self.camera.focal / centre[2]
        return (u - rx * scale, v - ry * scale, u + rx * scale, v + ry * scale)

    def side_plane(self, x: float, near: float, far: float, height: float) -> Patch | None:
        """Return the pixels of an upright plane along the road at `x`; None if it is out of view."""
        eye = self.camera
        ends = sorted(eye.project((x, 0.0, z))[0] for z in (near, far))
        left, right = max(0, math.ceil(ends[0])), min(eye.width, math.ceil(ends[1]))
        if right <= left:
            return None
        # u = centre + focal * ((x - eye.x) / z + curve * z), solved for z in each column.
        offset = np.arange(left, right, dtype=np.float32) - np.float32(eye.centre)
        reach = eye.focal * (x - eye.x)
        root = np.sqrt(np.maximum(offset**2 - 4 * eye.focal * eye.curve * reach, 0))
        z = np.clip(2 * reach / (offset + math.copysign(1, reach) * np.maximum(root, 1e-3)), near, far)
        return self._rows(left, z[None], z[None], height)

    def front_plane(self, near_x: float, far_x: float, z: float, height: float) -> Patch | None:
        """Return the pixels of an upright plane across the road at `z`; None if it is out of view."""
        eye = self.camera
        ends = [eye.project((x, 0.0, z))[0] for x in (near_x, far_x)]
        left, right = max(0, math.ceil(ends[0])), min(eye.width, math.ceil(ends[1]))
        if right <= left:
            return None
        along = (np.arange(left, right, dtype=np.float32) - np.float32(ends[0])) * np.float32(z / eye.focal)
        return self._rows(left, along[None], np.full((1, right - left), z, np.float32), height)

    def _rows(self, left: int, along: np.ndarray, depth: np.ndarray, height: float) -> Patch | None:
        eye = self.camera
        nearest = float(depth.min())
        top = max(0, math.floor(eye.horizon - eye.focal * (height - eye.above) / nearest))
        bottom = min(eye.height, math.ceil(eye.horizon + eye.focal * eye.above / nearest) + 1)
        if bottom <= top:
            return None
        rows = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(eye.horizon)
        return Patch(left, top, along, np.float32(eye.above) - rows * (depth / np.float32(eye.focal)), depth)

    def paste(self, patch: Patch, colours: np.ndarray, mask: np.ndarray, codes: np.ndarray | int) -> None:
        """Paint colours (h, w, 3) float32, which are overwritten, and codes where the mask (h, w) is True."""
        stencil = Image.fromarray(mask)
        clear = np.exp(patch.depth[..., None] / np.float32(-self.sight))
        colours *= clear
        colours += np.asarray(self.haze, np.float32) * (1 - clear)
        np.clip(colours, 0, 255, out=colours)
        spot = (patch.left, patch.top)
        self.colours.paste(Image.fromarray(colours.astype(np.uint8)), spot, stencil)
        if isinstance(codes, int):
            self.codes.paste(codes, (*spot, spot[0] + mask.shape[1], spot[1] + mask.shape[0]), stencil)
        else:
            self.codes.paste(Image.fromarray(codes), spot, stencil)


def frustum(
    canvas: Canvas,
    base: tuple[float, float, float, float],
    top: tuple[float, float, float, float],
    low: float,
    high: float,
    colour: Colour,
    code: int,
) -> tuple[list[Point], list[Point] | None]:
    """Paint a box, and return its near and side faces.

    Args:
        canvas: the canvas.
        base, top: rectangles (x0, x1, z0, z1) at the heights `low` and `high`.
        low, high: heights in metres.
        colour: the near face's colour; the other faces are shaded.
        code: code of the pixels.

    Returns:
        The corners of both faces, from the near or left one at the bottom around; None for a side face out of sight.
    """
    bx0, bx1, bz0, bz1 = base
    tx0, tx1, tz0, tz1 = top
    if canvas.camera.above > high:
        roof = [(tx0, high, tz0), (tx1, high, tz0), (tx1, high, tz1), (tx0, high, tz1)]
        canvas.polygon(roof, shade(colour, 1.15), code)
    near = [(bx0, low, bz0), (bx1, low, bz0), (tx1, high, tz0), (tx0, high, tz0)]
    side = None
    for bx, tx, sign in ((bx0, tx0, -1), (bx1, tx1, 1)):
        corner, behind = canvas.camera.project((bx, low, bz0))[0], canvas.camera.project((bx, low, bz1))[0]
        if (behind - corner) * sign > 0:
            side = [(bx, low, bz0), (bx, low, bz1), (tx, high, tz1), (tx, high, tz0)]
            canvas.polygon(side, shade(colour, 0.82), code)
    canvas.polygon(near, colour, code)
    return near, side


def panel(face: Sequence[Point], left: float, right: float, low: float, high: float) -> list[Point]:
    """Return the part of a face with four corners between fractions of its width and of its height."""
    bottom_left, bottom_right, top_right, top_left = face

    def at(a: float, b: float) -> Point:
        return blend(blend(bottom_left, bottom_right, a), blend(top_left, top_right, a), b)

    return [at(left, low), at(right, low), at(right, high), at(left, high)]
