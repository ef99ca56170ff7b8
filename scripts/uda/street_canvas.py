"""A painter's canvas for street scenes: a pinhole camera, and shapes in metres painted as colours and codes.

The world: x to the right, y up from the road, z along the road, all in metres. Whatever is painted
later lies in front, so callers paint from far to near.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(len(CLASSES))

Colour = tuple[float, float, float]
Point = tuple[float, float, float]

# A pixel's code holds its label (low byte), whether it shines by itself, and its instance.
GLOW = 1 << 8
_INSTANCE = 1 << 9


def code(label: int, instance: int = 0, glow: bool = False) -> int:
    return label | glow * GLOW | instance * _INSTANCE


def labels_of(codes: np.ndarray) -> np.ndarray:
    return (codes & 0xFF).astype(np.uint8)


def instances_of(codes: np.ndarray) -> np.ndarray:
    return (codes // _INSTANCE).astype(np.int32)


def glow_of(codes: np.ndarray) -> np.ndarray:
    return (codes & GLOW) > 0


def _grain(size: int = 256) -> np.ndarray:
    """(size, size) noise of zero mean and unit variance with detail at several scales."""
    rng = np.random.default_rng(0)
    total = np.zeros((size, size), np.float32)
    for cells in (16, 32, 64, 128, 256):
        coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
        total += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    return (total - total.mean()) / total.std()


GRAIN = _grain()


def grain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Noise at integer or float coordinates, repeating every 256."""
    return GRAIN[a.astype(np.int32) & 255, b.astype(np.int32) & 255]


def shade(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def blend(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(p + (q - p) * share for p, q in zip(a, b, strict=True))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at (x, above, 0); `curve` bends the road sideways by curve * z^2 metres."""

    width: int
    height: int
    focal: float
    centre: float
    horizon: float
    x: float
    above: float
    curve: float

    def project(self, point: Point) -> tuple[float, float]:
        x, y, z = point
        return (
            self.centre + self.focal * ((x - self.x) / z + self.curve * z),
            self.horizon + self.focal * (self.above - y) / z,
        )


@dataclass(frozen=True)
class Patch:
    """The pixels of an upright plane: where they are, and which metre of the plane each one shows."""

    left: int
    top: int
    along: np.ndarray  # (h, w) metres along the plane
    up: np.ndarray  # (h, w) metres above the road
    depth: np.ndarray  # (h, w) metres from the camera


@dataclass
class Canvas:
    """Colours and codes painted together, far to near; far colours fade into the haze."""

    camera: Camera
    colours: Image.Image
    codes: Image.Image
    haze: Colour
    sight: float  # metres at which about two thirds of a colour is haze
    lamps: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._colours = ImageDraw.Draw(self.colours)
        self._codes = ImageDraw.Draw(self.codes)

    def _seen(self, colour: Colour, z: float) -> tuple[int, int, int]:
        red, green, blue = blend(colour, self.haze, 1 - float(np.exp(-max(z, 0) / self.sight)))
        return (min(int(red), 255), min(int(green), 255), min(int(blue), 255))

    def polygon(self, points: Sequence[Point], colour: Colour, code: int) -> None:
        flat = [self.camera.project(point) for point in points]
        self._colours.polygon(flat, fill=self._seen(colour, points[0][2]))
        self._codes.polygon(flat, fill=code)

    def disc(self, centre: Point, rx: float, ry: float, colour: Colour, code: int) -> None:
        """A filled ellipse facing the camera, `rx` by `ry` metres."""
        box = self._ellipse(centre, rx, ry)
        self._colours.ellipse(box, fill=self._seen(colour, centre[2]))
        self._codes.ellipse(box, fill=code)

    def ring(self, centre: Point, rx: float, ry: float, width: float, colour: Colour, code: int) -> None:
        """A wheel: only the rim is coloured, but the code fills it, as annotators do."""
        box = self._ellipse(centre, rx, ry)
        rim = max(1, round(self.camera.focal * width / centre[2]))
        self._colours.ellipse(box, outline=self._seen(colour, centre[2]), width=rim)
        self._codes.ellipse(box, fill=code)

    def line(self, points: Sequence[Point], width: float, colour: Colour, code: int) -> None:
        flat = [self.camera.project(point) for point in points]
        z = points[0][2]
        pixels = max(1, round(self.camera.focal * width / z))
        self._colours.line(flat, fill=self._seen(colour, z), width=pixels)
        self._codes.line(flat, fill=code, width=pixels)

    def dim(self, points: Sequence[Point], share: float) -> None:
        """A soft-edged shadow: darkens the colours under a ground polygon, and leaves the codes alone."""
        flat = [self.camera.project(point) for point in points]
        left, top = (int(max(0, min(p[axis] for p in flat) - 2)) for axis in (0, 1))
        right = int(min(self.camera.width, max(p[0] for p in flat) + 3))
        bottom = int(min(self.camera.height, max(p[1] for p in flat) + 3))
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon([(u - left, v - top) for u, v in flat], fill=int(255 * share))
        self.colours.paste((0, 0, 0), (left, top, right, bottom), mask)

    def _ellipse(self, centre: Point, rx: float, ry: float) -> tuple[float, float, float, float]:
        u, v = self.camera.project(centre)
        scale = self.camera.focal / centre[2]
        return (u - rx * scale, v - ry * scale, u + rx * scale, v + ry * scale)

    def side_plane(self, x: float, near: float, far: float, height: float) -> Patch | None:
        """The pixels of an upright plane along the road at `x`; None when it is out of view."""
        eye = self.camera
        ends = sorted(eye.project((x, 0.0, z))[0] for z in (near, far))
        left, right = int(max(0, np.ceil(ends[0]))), int(min(eye.width, np.ceil(ends[1])))
        if right <= left:
            return None
        # u = centre + focal * ((x - eye.x) / z + curve * z), solved for z in each column.
        offset = np.arange(left, right, dtype=np.float32) - eye.centre
        reach = eye.focal * (x - eye.x)
        root = np.sqrt(np.maximum(offset**2 - 4 * eye.focal * eye.curve * reach, 0))
        z = np.clip(2 * reach / (offset + np.sign(reach) * np.maximum(root, 1e-3)), near, far)
        return self._rows(left, z[None], z[None], height)

    def front_plane(self, near_x: float, far_x: float, z: float, height: float) -> Patch | None:
        """The pixels of an upright plane across the road at `z`; None when it is out of view."""
        eye = self.camera
        ends = [eye.project((x, 0.0, z))[0] for x in (near_x, far_x)]
        left, right = int(max(0, np.ceil(ends[0]))), int(min(eye.width, np.ceil(ends[1])))
        if right <= left:
            return None
        columns = np.arange(left, right, dtype=np.float32)
        along = (columns - ends[0]) * (z / eye.focal)
        return self._rows(left, along[None], np.full((1, right - left), z, np.float32), height)

    def _rows(self, left: int, along: np.ndarray, depth: np.ndarray, height: float) -> Patch | None:
        eye = self.camera
        nearest = float(depth.min())
        top = int(max(0, np.floor(eye.horizon - eye.focal * (height - eye.above) / nearest)))
        bottom = int(min(eye.height, np.ceil(eye.horizon + eye.focal * eye.above / nearest) + 1))
        if bottom <= top:
            return None
        rows = np.arange(top, bottom, dtype=np.float32)[:, None]
        up = eye.above - (rows - eye.horizon) * depth / eye.focal
        shape = up.shape
        return Patch(left, top, np.broadcast_to(along, shape), up, np.broadcast_to(depth, shape))

    def paste(self, patch: Patch, colours: np.ndarray, mask: np.ndarray, codes: np.ndarray | int) -> None:
        """Paint (h, w, 3) float colours and codes where the (h, w) mask holds."""
        stencil = Image.fromarray(mask.astype(np.uint8) * 255)
        clear = np.exp(-patch.depth[..., None] / self.sight)
        seen = colours * clear + np.asarray(self.haze, np.float32) * (1 - clear)
        spot = (patch.left, patch.top)
        self.colours.paste(Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8)), spot, stencil)
        painted = np.broadcast_to(np.asarray(codes, np.int32), mask.shape)
        self.codes.paste(Image.fromarray(np.ascontiguousarray(painted)), spot, stencil)


def frustum(
    canvas: Canvas,
    base: tuple[float, float, float, float],
    top: tuple[float, float, float, float],
    low: float,
    high: float,
    colour: Colour,
    code: int,
) -> tuple[list[Point], list[Point] | None]:
    """Paint a box whose base and top are the rectangles (x0, x1, z0, z1); returns its near and side faces.

    A face is listed bottom-near-left first, then around; the side face is None when it cannot be seen.
    """
    bx0, bx1, bz0, bz1 = base
    tx0, tx1, tz0, tz1 = top
    if canvas.camera.above > high:
        roof = [(tx0, high, tz0), (tx1, high, tz0), (tx1, high, tz1), (tx0, high, tz1)]
        canvas.polygon(roof, shade(colour, 1.1), code)
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
    """The part of a four-cornered face between the given shares of its width and height."""
    corners = np.asarray(face)

    def at(a: float, b: float) -> Point:
        bottom = corners[0] + (corners[1] - corners[0]) * a
        ceiling = corners[3] + (corners[2] - corners[3]) * a
        return tuple(bottom + (ceiling - bottom) * b)

    return [at(left, low), at(right, low), at(right, high), at(left, high)]


def choose(rng: np.random.Generator, options: Sequence[Colour], spread: float = 0.12) -> Colour:
    """One of the colours, lighter or darker by up to `spread` and slightly tinted."""
    colour = options[int(rng.integers(len(options)))]
    light = 1 + rng.uniform(-spread, spread)
    red, green, blue = (max(0.0, c * light + d) for c, d in zip(colour, rng.normal(0, 4, 3), strict=True))
    return (red, green, blue)


def far_to_near(items: Iterable[tuple[float, object]]) -> list[tuple[float, object]]:
    return sorted(items, key=lambda item: -item[0])
