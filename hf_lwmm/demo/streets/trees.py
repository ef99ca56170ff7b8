"""Trees and bushes, painted once as sprites: leafy crowns, and bare branches for winter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from hf_lwmm.demo.streets.canvas import GRAIN, TREE, Canvas, Colour, Sprite, choose, code, shade

_SIZE = 192  # pixels of a sprite
_KINDS = 14  # number of sprites of each sort
BARK: tuple[Colour, ...] = ((74, 62, 52), (58, 52, 46), (92, 80, 66), (116, 100, 82), (132, 114, 94), (104, 96, 88))


def tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, leaves: Sequence[Colour], bare: bool) -> None:
    """Paint a street tree at (x, z)."""
    tall = float(rng.uniform(4.5, 14.0))
    wide = tall * float(rng.uniform(0.7, 1.05))
    kind = int(rng.integers(_KINDS))
    if bare and rng.random() < 0.9:  # the others are evergreen
        bark = choose(rng, BARK)
        canvas.stamp(_bare(kind), (x, 0, z), wide, tall, (shade(bark, 0.3), shade(bark, 1.7)), code(TREE))
    else:
        green = choose(rng, leaves)
        canvas.stamp(_leafy(kind), (x, 0, z), wide, tall, (shade(green, 0.25), shade(green, 1.4)), code(TREE))


def bush(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, leaves: Sequence[Colour]) -> None:
    """Paint a round shrub at (x, z)."""
    green, tall = choose(rng, leaves), float(rng.uniform(0.8, 2.6))
    ends = (shade(green, 0.25), shade(green, 1.3))
    canvas.stamp(_shrub(int(rng.integers(_KINDS))), (x, 0, z), tall * float(rng.uniform(1, 2)), tall, ends, code(TREE))


@cache
def _leafy(kind: int) -> Sprite:
    rng = np.random.default_rng([1, kind])
    return _crown(rng, trunk=float(rng.uniform(0.18, 0.38)), tufts=int(rng.integers(120, 320)))


@cache
def _shrub(kind: int) -> Sprite:
    return _crown(np.random.default_rng([2, kind]), trunk=0.0, tufts=160)


def _crown(rng: np.random.Generator, trunk: float, tufts: int) -> Sprite:
    """Draw overlapping tufts around a few boughs, brighter at the top, on a trunk of a fraction of the height."""
    light, cover = Image.new("L", (_SIZE, _SIZE)), Image.new("L", (_SIZE, _SIZE))
    light_pen, cover_pen = ImageDraw.Draw(light), ImageDraw.Draw(cover)
    middle, thick = _SIZE / 2, _SIZE * rng.uniform(0.018, 0.04)
    if trunk:
        post = [middle - thick, _SIZE * 0.5, middle + thick, _SIZE]
        light_pen.rectangle(post, fill=50)
        cover_pen.rectangle(post, fill=255)
    span = 1 - trunk
    boughs = rng.uniform(-1, 1, (9, 2)) * (0.55, 0.5)
    for share in np.linspace(0, 1, tufts):
        bough = boughs[int(rng.integers(len(boughs)))] + rng.normal(0, 0.2, 2)
        bough *= min(1, 0.86 / max(float(np.hypot(*bough)), 1e-6))
        u, v = middle * (1 + bough[0]), _SIZE * span * (0.5 - 0.5 * bough[1])
        size = _SIZE * rng.uniform(0.015, 0.06) * (1.6 - share) * (1.3 if tufts < 200 else 1)
        tone = 105 + 75 * bough[1] + 60 * (share - 0.5) + rng.normal(0, 22)
        box = [u - size, v - size * 0.8, u + size, v + size * 0.8]
        light_pen.ellipse(box, fill=int(min(max(tone, 0), 255)))
        cover_pen.ellipse(box, fill=255)
    return _finished(_rough(light, rng, 16), cover.filter(ImageFilter.GaussianBlur(0.8)), closed=9)


@cache
def _bare(kind: int) -> Sprite:
    """Draw a trunk that forks again and again into a haze of twigs of random brightness."""
    rng = np.random.default_rng([3, kind])
    light, cover = Image.new("L", (2 * _SIZE, 2 * _SIZE), 110), Image.new("L", (2 * _SIZE, 2 * _SIZE))
    light_pen, cover_pen, side = ImageDraw.Draw(light), ImageDraw.Draw(cover), 2.0 * _SIZE
    spread, upright, dense = rng.uniform(0.3, 0.5), rng.uniform(0.05, 0.25), int(rng.integers(2, 7))

    def stroke(u: float, v: float, angle: float, length: float, width: float) -> tuple[float, float]:
        line = [u, v, u + length * math.sin(angle), v - length * math.cos(angle)]
        light_pen.line(line, fill=int(min(max(rng.normal(130, 55), 0), 255)), width=max(2, round(width)))
        cover_pen.line(line, fill=255, width=max(1, round(width)))
        return line[2], line[3]

    def grow(u: float, v: float, angle: float, length: float, width: float, forks: int) -> None:
        u, v = stroke(u, v, angle, length, width)
        if forks == 0:
            for _ in range(dense):
                stroke(u, v, angle + rng.normal(0, 0.9), side * rng.uniform(0.01, 0.05), 1)
            return
        for turn in (-1, 1) if forks > 6 else (-1, 1, float(rng.uniform(-0.5, 0.5))):
            if forks < 3 and rng.random() < 0.3:
                continue
            lean = (angle + turn * spread * rng.uniform(0.6, 1.4)) * (1 - upright)
            grow(u, v, lean, length * rng.uniform(0.66, 0.86), width * 0.66, forks - 1)

    grow(side / 2, side, 0.0, side * rng.uniform(0.15, 0.2), side * 0.03, 7)
    size = (_SIZE, _SIZE)
    cover = cover.resize(size, Image.Resampling.BOX).point(lambda a: min(255, int(a * 1.4)))
    return _finished(_rough(light.resize(size, Image.Resampling.BOX), rng, 10), cover, closed=13)


def _rough(light: Image.Image, rng: np.random.Generator, depth: float) -> Image.Image:
    du, dv = rng.integers(0, 256 - _SIZE, 2)
    return Image.fromarray(
        np.clip(np.asarray(light, np.float32) + depth * GRAIN[du : du + _SIZE, dv : dv + _SIZE], 0, 255).astype(
            np.uint8
        )
    )


def _finished(light: Image.Image, cover: Image.Image, closed: int) -> Sprite:
    """Crop a sprite to its covered part, with the outline of an annotator who closes gaps of up to `closed` pixels."""
    solid = cover.point(lambda a: 255 * (a > 90))
    outline = solid.resize((_SIZE // 2, _SIZE // 2)).filter(ImageFilter.MaxFilter(closed // 4 * 2 + 1))
    outline = outline.filter(ImageFilter.MinFilter(closed // 4 * 2 + 1)).resize(solid.size, Image.Resampling.NEAREST)
    outline = ImageChops.lighter(outline, solid).point(lambda a: 255 * (a > 127))
    left, top, right, _ = cover.getbbox() or (0, 0, _SIZE, _SIZE)
    half = max(_SIZE // 2 - left, right - _SIZE // 2)
    frame = (_SIZE // 2 - half, top, _SIZE // 2 + half, _SIZE)
    return Sprite(light.crop(frame), cover.crop(frame), outline.crop(frame))
