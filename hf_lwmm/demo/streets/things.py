"""Things in a street: vehicles, people, poles and signs, each painted by one function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hf_lwmm.demo.streets.canvas import (
    BICYCLIST,
    CAR,
    PEDESTRIAN,
    POLE,
    SIGN,
    Canvas,
    Colour,
    Point,
    blend,
    choose,
    code,
    frustum,
    panel,
    shade,
)

GLASS: Colour = (52, 60, 70)
TYRE: Colour = (26, 26, 28)
RIM: Colour = (128, 128, 132)
SKIN: tuple[Colour, ...] = ((224, 182, 150), (196, 146, 112), (140, 96, 70), (92, 62, 46))
CLOTHES: tuple[Colour, ...] = (
    (40, 42, 50), (60, 70, 100), (120, 40, 40), (170, 165, 150), (70, 90, 70), (190, 60, 40), (220, 215, 205),
    (50, 60, 130), (110, 90, 70), (30, 90, 110), (200, 170, 60),
)  # fmt: skip

# width, height, length, base of the cabin, cabin inset at the back and at the front (metres)
BODIES = {
    "hatchback": (1.75, 1.48, 3.9, 0.86, 0.15, 0.95),
    "saloon": (1.80, 1.42, 4.6, 0.84, 0.75, 1.30),
    "suv": (1.90, 1.75, 4.6, 0.98, 0.15, 1.10),
    "van": (2.00, 2.20, 5.2, 1.05, 0.02, 0.60),
    "bus": (2.50, 3.10, 10.5, 1.20, 0.02, 0.05),
}
_BODY_SHARES = (0.42, 0.27, 0.18, 0.09, 0.04)


def car(
    canvas: Canvas,
    rng: np.random.Generator,
    x: float,
    z: float,
    *,
    instance: int,
    paint: Sequence[Colour],
    oncoming: bool,
    lit: bool,
) -> None:
    """Paint a vehicle that faces along the road, with its near end at depth z and centred on x."""
    width, height, length, waist, back, front = _body(rng)
    colour, body, glow = choose(rng, paint), code(CAR, instance), code(CAR, instance, glow=lit)
    tail, nose = (front, back) if oncoming else (back, front)
    x0, x1, z1 = x - width / 2, x + width / 2, z + length
    floor = 0.26
    canvas.dim([(x0 - 0.2, 0, z - 0.15), (x1 + 0.2, 0, z - 0.15), (x1 + 0.2, 0, z1), (x0 - 0.2, 0, z1)], 0.62)
    for wheel in (x0 + 0.18, x1 - 0.18):
        canvas.polygon(_upright(wheel, 0.2, z + 0.1, 0.0, floor + 0.1), TYRE, body)
    near, side = frustum(canvas, (x0, x1, z, z1), (x0, x1, z, z1), floor, waist, colour, body)
    if side:
        flank = side[0][0]
        canvas.polygon(panel(side, 0.0, 1.0, 0.86, 1.0), shade(colour, 1.15), body)
        for axle in (z + 0.18 * length, z + 0.8 * length):
            canvas.polygon(_wheel(flank, axle, 0.33), TYRE, body)
            canvas.polygon(_wheel(flank, axle, 0.19), RIM, body)
    cabin_base = (x0 + 0.03, x1 - 0.03, z + tail * 0.6, z1 - nose * 0.6)
    cabin_top = (x0 + 0.16, x1 - 0.16, z + tail * 0.6 + 0.45, z1 - nose * 0.6 - 0.5)
    window, side_window = frustum(canvas, cabin_base, cabin_top, waist, height, shade(colour, 0.96), body)
    glass = _glass(canvas, rng)
    canvas.polygon(panel(window, 0.07, 0.93, 0.1, 0.88), glass, body)
    canvas.polygon(panel(window, 0.2, 0.8, 0.1, 0.3), shade(glass, 0.5), body)
    if side_window:
        for start, end in ((0.08, 0.46), (0.52, 0.9)):
            canvas.polygon(panel(side_window, start, end, 0.08, 0.86), shade(glass, 0.85), body)
    lamp: Colour = (255, 246, 214) if oncoming else ((255, 40, 30) if lit else (176, 28, 28))
    for start, end in ((0.04, 0.2), (0.8, 0.96)):
        canvas.polygon(panel(near, start, end, 0.52, 0.82), lamp, glow)
    if z > 35:  # too small for more
        return
    canvas.polygon(panel(near, 0.0, 1.0, 0.9, 1.0), shade(colour, 1.15), body)
    canvas.polygon(panel(near, 0.0, 1.0, 0.0, 0.22), shade(colour, 0.45), body)
    if oncoming:
        canvas.polygon(panel(near, 0.25, 0.75, 0.5, 0.74), TYRE, body)
    canvas.polygon(panel(near, 0.36, 0.64, 0.28, 0.46), (230, 226, 200) if oncoming else (226, 180, 50), body)


def crossing_car(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, instance: int, paint: Sequence[Colour]
) -> None:
    """Paint a vehicle from the side, as when it turns or is parked, with its near flank at depth z and centred on x."""
    width, height, length, waist, back, front = _body(rng)
    colour, body, way = choose(rng, paint), code(CAR, instance), float(rng.choice((-1, 1)))
    x0, x1, z1, tail = x - length / 2, x + length / 2, z + width, x - way * length / 2
    canvas.dim([(x0, 0, z - 0.2), (x1, 0, z - 0.2), (x1 + 0.2, 0, z1 + 0.2), (x0 - 0.2, 0, z1 + 0.2)], 0.62)
    flank, _ = frustum(canvas, (x0, x1, z, z1), (x0 + 0.1, x1 - 0.1, z, z1), 0.24, waist, colour, body)
    canvas.polygon(panel(flank, 0.0, 1.0, 0.86, 1.0), shade(colour, 1.15), body)
    canvas.polygon(panel(flank, 0.0, 1.0, 0.0, 0.18), shade(colour, 0.45), body)
    for axle in (0.18, 0.8):
        hub = (x0 + axle * length, 0.32, z - 0.02)
        canvas.disc(hub, 0.33, 0.33, TYRE, body)
        canvas.disc(hub, 0.19, 0.19, RIM, body)
    base = sorted((tail + way * back * 0.6, tail + way * (length - front * 0.7)))
    roof = sorted((tail + way * (back * 0.6 + 0.35), tail + way * (length - front * 0.7 - 0.7)))
    cabin, _ = frustum(
        canvas, (base[0], base[1], z + 0.05, z1), (roof[0], roof[1], z + 0.2, z1 - 0.2), waist, height, colour, body
    )
    glass = _glass(canvas, rng)
    for start, end in ((0.08, 0.47), (0.53, 0.92)):
        canvas.polygon(panel(cabin, start, end, 0.06, 0.84), glass, body)
    canvas.polygon(panel(flank, 0.0, 0.06, 0.5, 0.75), (176, 28, 28) if way > 0 else (235, 232, 220), body)
    canvas.polygon(panel(flank, 0.94, 1.0, 0.5, 0.75), (235, 232, 220) if way > 0 else (176, 28, 28), body)


def _body(rng: np.random.Generator) -> tuple[float, float, float, float, float, float]:
    return BODIES[str(rng.choice(list(BODIES), p=_BODY_SHARES))]


def _glass(canvas: Canvas, rng: np.random.Generator) -> Colour:
    return blend(GLASS, canvas.haze, float(rng.uniform(0.0, 0.4)))


def _upright(x: float, width: float, z: float, low: float, high: float) -> list[Point]:
    return [
        (x - width / 2, low, z), (x + width / 2, low, z), (x + width / 2, high, z), (x - width / 2, high, z),
    ]  # fmt: skip


def _wheel(x: float, z: float, radius: float) -> list[Point]:
    turn = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    return [(x, 0.33 + radius * float(np.sin(t)), z + radius * float(np.cos(t))) for t in turn]


def pedestrian(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, instance: int) -> None:
    """Paint a person who stands or walks at (x, z)."""
    tall, body = float(rng.uniform(1.45, 1.9)), code(PEDESTRIAN, instance)
    coat, legs, skin = choose(rng, CLOTHES), choose(rng, CLOTHES), choose(rng, SKIN, 0.05)
    stride, build, facing = rng.uniform(0.02, 0.3), rng.uniform(0.85, 1.2), rng.choice((-1, 1))
    hip, neck = 0.5 * tall, 0.84 * tall
    half = 0.115 * tall * build
    canvas.dim([(x - 0.3, 0, z - 0.1), (x + 0.3, 0, z - 0.1), (x + 0.3, 0, z + 0.2), (x - 0.3, 0, z + 0.2)], 0.4)
    for step in (-stride, stride):
        foot = (x + step + 0.04 * np.sign(step), 0.02, z)
        canvas.line([(x + 0.4 * half * np.sign(step), hip + 0.03, z), foot], 0.15 * build, legs, body)
        canvas.line([foot, (foot[0] + 0.14 * facing, 0.03, z)], 0.08, TYRE, body)
    hem = hip - rng.uniform(0.0, 0.22)
    torso = [(x - half, hem, z), (x + half, hem, z), (x + half * 1.1, neck, z), (x - half * 1.1, neck, z)]
    canvas.polygon(torso, coat, body)
    for arm in (-1, 1):
        hand = (x + arm * (half + 0.05) + facing * stride * 0.5 * arm, hip, z)
        canvas.line([(x + arm * half, neck - 0.06, z), hand], 0.09, shade(coat, 0.85), body)
    if rng.random() < 0.3:
        bag = x - facing * (half + 0.05)
        canvas.polygon(_upright(bag, 0.24, z, hip - 0.1, hip + 0.28), choose(rng, CLOTHES), body)
    canvas.disc((x, tall - 0.125, z), 0.095, 0.13, skin, body)
    canvas.disc((x - 0.02 * facing, tall - 0.07, z), 0.1, 0.085, choose(rng, CLOTHES), body)


def bicyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, instance: int, across: bool) -> None:
    """Paint a rider on a bicycle at (x, z), from the side if `across`, otherwise from the front or the back."""
    body, frame = code(BICYCLIST, instance), choose(rng, CLOTHES)
    coat, legs, skin = choose(rng, CLOTHES), choose(rng, CLOTHES), choose(rng, SKIN, 0.05)
    way = float(rng.choice((-1, 1)))
    canvas.dim([(x - 0.6, 0, z - 0.1), (x + 0.6, 0, z - 0.1), (x + 0.6, 0, z + 0.2), (x - 0.6, 0, z + 0.2)], 0.35)

    def at(forward: float, up: float) -> Point:
        return (x + way * forward, up, z)

    if across:
        for wheel in (-0.52, 0.52):
            canvas.ring(at(wheel, 0.34), 0.34, 0.34, 0.05, TYRE, body)
        canvas.line(
            [at(-0.52, 0.34), at(-0.12, 0.3), at(0.38, 0.85), at(-0.18, 0.82), at(-0.12, 0.3)], 0.05, frame, body
        )
        canvas.line([at(0.52, 0.34), at(0.38, 0.98), at(0.48, 1.02)], 0.05, frame, body)
        for knee, foot in (((0.22, 0.72), (0.05, 0.2)), ((0.14, 0.6), (-0.18, 0.38))):
            canvas.line([at(-0.2, 0.95), at(*knee), at(*foot)], 0.15, legs, body)
        canvas.line([at(-0.2, 0.92), at(0.12, 1.42)], 0.3, coat, body)
        canvas.line([at(0.1, 1.36), at(0.2, 1.1), at(0.42, 1.04)], 0.09, shade(coat, 0.85), body)
        head = at(0.22, 1.62)
    else:
        canvas.disc((x, 0.34, z), 0.05, 0.34, TYRE, body)
        canvas.line([(x, 0.4, z), (x, 0.9, z)], 0.08, frame, body)
        for leg in (-1, 1):
            sole = (x + leg * 0.13, 0.16 + 0.14 * (leg * way + 1), z)
            canvas.line([(x + leg * 0.09, 0.98, z), (x + leg * 0.17, 0.66, z), sole], 0.14, legs, body)
        canvas.polygon([(x - 0.17, 0.9, z), (x + 0.17, 0.9, z), (x + 0.23, 1.46, z), (x - 0.23, 1.46, z)], coat, body)
        for arm in (-1, 1):
            canvas.line([(x + arm * 0.21, 1.4, z), (x + arm * 0.29, 1.05, z)], 0.09, shade(coat, 0.85), body)
        head = (x, 1.62, z)
    canvas.disc(head, 0.1, 0.13, skin, body)
    canvas.disc((head[0], head[1] + 0.07, z), 0.12, 0.08, choose(rng, CLOTHES), body)


def pole(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, lamp: bool, lit: bool, metal: Colour) -> None:
    """Paint a bare post, or a street lamp whose arm reaches over the road."""
    tall = float(rng.uniform(5.5, 8.0)) if lamp else float(rng.uniform(2.4, 6.5))
    body = code(POLE)
    canvas.line([(x, 0, z), (x, tall, z)], rng.uniform(0.14, 0.24), metal, body)
    canvas.line([(x, 0, z), (x, 1.0, z)], 0.3, shade(metal, 0.85), body)
    if not lamp:
        return
    tip = x - np.sign(x) * rng.uniform(0.8, 1.8)
    canvas.line([(x, tall, z), (tip, tall + 0.25, z)], 0.12, metal, body)
    colour: Colour = (255, 226, 168) if lit else (206, 206, 200)
    canvas.polygon(_upright(tip, 0.75, z, tall + 0.1, tall + 0.32), colour, code(POLE, glow=lit))
    canvas.lamps.append((float(tip), tall, z))


def bollard(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, metal: Colour) -> None:
    """Paint a low post at the kerb."""
    canvas.line([(x, 0, z), (x, float(rng.uniform(0.8, 1.1)), z)], 0.15, metal, code(POLE))


def hoarding(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Paint a shop's board or banner on two posts, with lines of text."""
    wide, low, high = float(rng.uniform(0.6, 2.2)), float(rng.uniform(0.3, 2.4)), float(rng.uniform(1.0, 2.6))
    face = choose(rng, CLOTHES)
    for post in (x - wide / 2, x + wide / 2):
        canvas.line([(post, 0, z), (post, low + high, z)], 0.1, (90, 92, 94), code(POLE))
    board = _upright(x, wide, z - 0.01, low, low + high)
    canvas.polygon(board, face, code(SIGN))
    ink = (236, 234, 228) if sum(face) < 330 else (40, 40, 60)
    for line in np.arange(0.15, 0.85, 0.22):
        canvas.polygon(panel(board, 0.12, float(rng.uniform(0.5, 0.9)), line, line + 0.09), ink, code(SIGN))


def traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, lit: bool) -> None:
    """Paint a traffic light with one of three lamps on; its box counts as a sign, as in CamVid's eleven classes."""
    canvas.line([(x, 0, z), (x, 3.4, z)], 0.16, (70, 72, 74), code(POLE))
    canvas.polygon(_upright(x, 0.5, z - 0.01, 2.3, 3.5), (34, 35, 36), code(SIGN))
    burning = int(rng.integers(3))
    for index, colour in enumerate(((255, 50, 40), (255, 190, 50), (60, 240, 130))):
        on = index == burning
        centre = (x, 3.28 - 0.36 * index, z - 0.01)
        canvas.disc(centre, 0.14, 0.14, colour if on else shade(colour, 0.25), code(SIGN, glow=lit and on))


def sign(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, plates: Sequence[tuple[Colour, Colour]]
) -> None:
    """Paint a post with a round, triangular or rectangular plate, sometimes with a second plate below."""
    canvas.line([(x, 0, z), (x, 2.3, z)], 0.1, (130, 132, 134), code(POLE))
    border, face = plates[int(rng.integers(len(plates)))]
    shape, size, middle = rng.integers(3), rng.uniform(0.32, 0.5), 2.4
    front = z - 0.01
    for colour, scale in ((border, 1.0), (face, 0.68)):
        reach = size * scale
        if shape == 0:
            canvas.disc((x, middle, front), reach, reach, colour, code(SIGN))
        elif shape == 1:
            corners = [(x - reach, middle - 0.6 * reach, front), (x + reach, middle - 0.6 * reach, front)]
            canvas.polygon([*corners, (x, middle + 1.05 * reach, front)], colour, code(SIGN))
        else:
            canvas.polygon(_upright(x, 2.2 * reach, front, middle - reach, middle + reach), colour, code(SIGN))
    if rng.random() < 0.35:
        canvas.polygon(_upright(x, 0.6, front, 1.55, 1.85), (235, 235, 230), code(SIGN))
