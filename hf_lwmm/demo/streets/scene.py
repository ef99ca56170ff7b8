"""Render driving scenes with semantic and instance labels from a seed.

    scene = render("gta", seed=7)          # Scene(image, labels, instances), 320x240

Five styles share one world but differ in camera, palette, light and weather: "gta" (day, photographic), "synthia"
(raised camera, flat bright colours, 9 of the 11 classes labelled), "night" (rain, lamps and reflections), "evening"
(the same lamps under a bright sky) and "fog". The classes are CamVid's eleven, in its order; 255 is unlabelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np
from PIL import Image

from hf_lwmm.demo.streets.canvas import (
    BICYCLIST,
    BUILDING,
    CAR,
    CLASSES,
    FENCE,
    PEDESTRIAN,
    SIGN,
    SKY,
    Camera,
    Canvas,
    choose,
    code,
    far_to_near,
    instances_of,
    labels_of,
)
from hf_lwmm.demo.streets.finish import finish_by_day, finish_by_night
from hf_lwmm.demo.streets.ground import Plot, Street, ground, plan_street, sky
from hf_lwmm.demo.streets.looks import LOOKS, Look
from hf_lwmm.demo.streets.things import (
    bicyclist,
    bollard,
    car,
    crossing_car,
    hoarding,
    pedestrian,
    pole,
    sign,
    traffic_light,
)
from hf_lwmm.demo.streets.trees import bush, tree
from hf_lwmm.demo.streets.walls import facade, paint_facade, paint_fence, paint_hedge, paint_low_wall

__all__ = ["CLASSES", "IGNORE", "STYLES", "THINGS", "Scene", "render"]

STYLES = tuple(LOOKS)
IGNORE = 255
THINGS = (CAR, PEDESTRIAN, BICYCLIST)

_UNLABELLED = {"synthia": (SIGN, FENCE)}


@dataclass(frozen=True)
class Scene:
    """A rendered frame. Pixels of THINGS have an instance id that is unique in the frame, other pixels 0."""

    image: np.ndarray  # (h, w, 3) uint8
    labels: np.ndarray  # (h, w) uint8: 0..10 or 255
    instances: np.ndarray  # (h, w) int32


def render(style: str, seed: int, size: tuple[int, int] = (320, 240), *, every_class: bool = False) -> Scene:
    """Render a street; the same arguments give the same scene.

    Args:
        style: one of STYLES.
        seed: seed of everything in the scene.
        size: (width, height) in pixels.
        every_class: also label the signs and fences of "synthia", which are 255 otherwise.
    """
    look = LOOKS[style]
    rng = np.random.default_rng([STYLES.index(style), seed])
    street = plan_street(rng, look)
    canvas, numbers = _open_canvas(rng, look, street, size), count(1)
    _paint_skyline(canvas, rng, look, street)
    for side in (-1, 1):
        plots = street.plots[(side + 1) // 2]
        for plot, nearer in reversed(list(zip(plots, (None, *plots), strict=False))):
            _paint_plot(canvas, rng, look, street, side, plot, nearer, numbers)
    for _, paint in far_to_near(_furniture(rng, look, street) + _traffic(rng, look, street, numbers)):
        paint(canvas)
    codes = np.asarray(canvas.codes)
    image = (finish_by_night if look.night else finish_by_day)(canvas, codes, rng, look)
    labels, instances = labels_of(codes), instances_of(codes)
    if not every_class:
        for label in _UNLABELLED.get(style, ()):
            labels[labels == label] = IGNORE
    if rng.random() < 0.5:  # in half of the frames, people drive on the left
        image, labels, instances = (np.ascontiguousarray(part[:, ::-1]) for part in (image, labels, instances))
    return Scene(image, labels, instances)


def _open_canvas(rng: np.random.Generator, look: Look, street: Street, size: tuple[int, int]) -> Canvas:
    width, height = size
    camera = Camera(
        width=width,
        height=height,
        focal=width * rng.uniform(*look.focal),
        centre=width * rng.uniform(0.32, 0.68),
        horizon=height * rng.uniform(*look.horizon),
        x=street.drive * rng.uniform(0.35, 0.6),
        above=float(rng.uniform(*look.eye)),
        curve=float(rng.normal(0, 0.0004)),
    )
    zenith, haze = look.skies[int(rng.integers(len(look.skies)))]
    above = sky(rng, camera, choose(rng, (zenith,), 0.08), choose(rng, (haze,), 0.05), look)
    below, codes = ground(rng, camera, look, street, haze)
    colours = np.concatenate([above, below])[:height]
    np.clip(colours, 0, 255, out=colours)
    codes = np.concatenate([np.full(above.shape[:2], code(SKY), np.int32), codes])[:height]
    return Canvas(
        camera,
        Image.fromarray(colours.astype(np.uint8)),
        Image.fromarray(codes),
        haze=haze,
        sight=float(rng.uniform(*look.sight)),
    )


def _paint_skyline(canvas: Canvas, rng: np.random.Generator, look: Look, street: Street) -> None:
    """Paint distant blocks and trees behind the street, and a row of houses across the crossing that ends it."""
    for _ in range(int(rng.integers(3, 9))):
        x, z = rng.uniform(-110, 110), rng.uniform(125, 170)
        wide, tall = rng.uniform(8, 26), rng.uniform(3, 18)
        corners = [(x, -1, z), (x + wide, -1, z), (x + wide, tall, z), (x, tall, z)]
        canvas.polygon(corners, choose(rng, look.walls), code(BUILDING))
    for _ in range(int(rng.integers(2, 4 if street.ends else 10))):
        tree(
            canvas, rng, float(rng.uniform(-90, 90)), float(rng.uniform(121, 128)), leaves=look.leaves, bare=street.bare
        )
    if not street.ends:
        return
    x, usual = -0.8 * street.length, rng.uniform(*look.heights)
    density, light = rng.uniform(0.3, 1), street.facing * (1 - 0.4 * street.sun * rng.random())
    while x < 0.8 * street.length:
        wide = rng.uniform(6, 20)
        if rng.random() < density:
            front = facade(rng, look.walls, usual * rng.uniform(0.7, 1.3), look.lit, look.pitched)
            plane = canvas.front_plane(x, x + wide, street.length, front.height)
            if plane:
                paint_facade(canvas, plane, front, light)
        else:
            for _ in range(rng.integers(1, 4)):
                tree(canvas, rng, x + wide * rng.random(), street.length, leaves=look.leaves, bare=street.bare)
        x += wide


def _paint_plot(
    canvas: Canvas,
    rng: np.random.Generator,
    look: Look,
    street: Street,
    side: int,
    plot: Plot,
    nearer: Plot | None,
    numbers: Iterator[int],
) -> None:
    """Paint a building, or a gap with trees or parked cars, perhaps behind a fence, a hedge or a wall."""
    sunlit = street.facing * (1 - 0.5 * street.sun * (side == street.sun_side))
    if plot.tall:
        _paint_building(canvas, rng, look, side * (street.edge + plot.setback), plot, nearer, sunlit)
    elif not plot.side_road:
        _paint_gap(canvas, rng, look, street, side, plot, numbers)
    if not plot.side_road and (plot.setback > 1.5 or not plot.tall):
        _paint_boundary(canvas, rng, look, side * street.edge, plot, sunlit)


def _paint_building(
    canvas: Canvas, rng: np.random.Generator, look: Look, x: float, plot: Plot, nearer: Plot | None, sunlit: float
) -> None:
    front = facade(rng, look.walls, plot.tall, look.lit, look.pitched)
    hidden = nearer and nearer.tall >= plot.tall and nearer.setback <= plot.setback + 0.5
    outer = x + np.sign(x) * 11
    end_wall = canvas.front_plane(min(x, outer), max(x, outer), plot.near, front.height)
    if end_wall and not hidden:
        paint_facade(canvas, end_wall, front, 0.85 * sunlit)
    plane = canvas.side_plane(x, plot.near, plot.far, front.height)
    if plane:
        paint_facade(canvas, plane, front, sunlit)


def _paint_gap(
    canvas: Canvas, rng: np.random.Generator, look: Look, street: Street, side: int, plot: Plot, numbers: Iterator[int]
) -> None:
    things: list[tuple[float, Painter]] = []
    car_park = rng.random() < 0.25
    for _ in range(rng.integers(1, 6)):
        z, x = max(3.0, float(rng.uniform(plot.near, plot.far))), side * (street.edge + float(rng.uniform(2, 13)))
        if car_park:
            paint: Painter = partial(crossing_car, rng=rng, x=x, z=z, instance=next(numbers), paint=look.cars)
        elif rng.random() < 0.35:
            paint = partial(bush, rng=rng, x=x, z=z, leaves=look.leaves)
        else:
            paint = partial(tree, rng=rng, x=x, z=z, leaves=look.leaves, bare=street.bare)
        things.append((z, paint))
    for _, paint in far_to_near(things):
        paint(canvas)


def _paint_boundary(canvas: Canvas, rng: np.random.Generator, look: Look, x: float, plot: Plot, sunlit: float) -> None:
    kind, height, slats = rng.random(), float(rng.uniform(0.8, 1.9)), float(rng.uniform(0.15, 0.4))
    colour = choose(rng, look.fences if kind < 0.45 else look.walls if kind < 0.65 else look.leaves)
    plane = canvas.side_plane(x, plot.near, plot.far, height + 0.3)
    if plane is None or kind > 0.85:
        return
    if kind < 0.45:
        paint_fence(canvas, plane, colour, height, slats, sunlit)
    elif kind < 0.65:
        paint_low_wall(canvas, plane, colour, height, sunlit)
    else:
        paint_hedge(canvas, plane, colour, height, sunlit)


Painter = Callable[[Canvas], None]


def _furniture(rng: np.random.Generator, look: Look, street: Street) -> list[tuple[float, Painter]]:
    """Return painters of lamps, posts, signs, lights, railings and trees along the kerbs, with depths in metres."""
    items: list[tuple[float, Painter]] = []
    metal, last = choose(rng, look.metal), min(95.0, street.length - 3)
    spacing, trees = rng.uniform(14, 32), rng.random() < look.planted
    for side in (-1, 1):
        kerb = side * (street.half + 0.45)
        for z in np.arange(rng.uniform(4, 18), last, spacing):
            items.append((z, partial(pole, rng=rng, x=kerb, z=z, lamp=True, lit=look.night, metal=metal)))
        for z in rng.uniform(5, min(60, last), rng.poisson(2.2)):
            items.append((z, partial(sign, rng=rng, x=kerb, z=z, plates=look.plates)))
        for z in rng.uniform(5, min(50, last), rng.poisson(0.8)):
            items.append((z, partial(pole, rng=rng, x=kerb, z=z, lamp=False, lit=False, metal=metal)))
        for z in rng.uniform(6, min(40, last), rng.poisson(0.6)):
            items.append((z, partial(hoarding, rng=rng, x=side * (street.edge - 0.6), z=z)))
        if rng.random() < 0.25:
            first = rng.uniform(4, 15)
            for z in np.arange(first, min(first + rng.uniform(6, 20), last), rng.uniform(1.5, 2.5)):
                items.append((z, partial(bollard, rng=rng, x=kerb, z=z, metal=metal)))
        if trees:
            for z in np.arange(rng.uniform(6, 16), last, rng.uniform(8, 18)):
                x = kerb + side * 0.5
                items.append((z, partial(tree, rng=rng, x=x, z=z, leaves=look.leaves, bare=street.bare)))
        if rng.random() < 0.3:
            items.append(_railing(rng, look, kerb - side * 0.2))
        for z in rng.uniform(6, min(45, last), rng.poisson(0.6)):
            items.append((z, partial(traffic_light, rng=rng, x=kerb, z=z, lit=look.night)))
    return items


def _railing(rng: np.random.Generator, look: Look, x: float) -> tuple[float, Painter]:
    near = float(rng.uniform(3, 20))
    far, colour, slats = near + rng.uniform(6, 20), choose(rng, look.fences), float(rng.uniform(0.2, 0.5))

    def paint(canvas: Canvas) -> None:
        plane = canvas.side_plane(x, near, far, 1.1)
        if plane:
            paint_fence(canvas, plane, colour, 1.1, slats, 1.0)

    return far, paint


def _traffic(
    rng: np.random.Generator, look: Look, street: Street, numbers: Iterator[int]
) -> list[tuple[float, Painter]]:
    """Return painters of cars (parked, driving, crossing), riders and pedestrians, with depths in metres."""
    drive, last = street.drive, street.length - 4
    cars: list[tuple[float, float, bool]] = []
    for side in (-1, 1):
        if street.parking:
            slots = np.arange(rng.uniform(3, 9), min(75, last - 10), rng.uniform(5.6, 7.5))
            taken = slots[rng.random(len(slots)) < rng.uniform(0.2, 0.9)]
            cars += [(side * (street.half - 1.1), z, side < 0) for z in taken]
        lane = side * drive / 2
        first = rng.uniform(7, 30) if side > 0 else rng.uniform(5, 25)
        cars += [(lane, z, side < 0) for z in first + np.cumsum(rng.uniform(8, 30, rng.poisson(1.5)))]
    turning = [(rng.uniform(-1, 1) * street.half, rng.uniform(10, 35)) for _ in range(rng.poisson(0.35))]
    if street.ends:
        turning += [
            (x, street.length - rng.choice((3.0, 6.0))) for x in rng.uniform(-1, 1, rng.poisson(1.5)) * street.edge
        ]
    riders = [
        (rng.choice((-1, 1)) * drive * rng.uniform(0.3, 0.95), rng.uniform(5, 32), bool(rng.random() < 0.4))
        for _ in range(rng.poisson(1.6))
    ]
    people = [
        (rng.choice((-1, 1)) * rng.uniform(street.half + 0.3, street.edge - 0.2), rng.uniform(4, 40))
        for _ in range(rng.poisson(look.crowd))
    ]
    people += [(rng.uniform(-drive, drive), rng.uniform(8, 30)) for _ in range(rng.poisson(0.5))]

    items: list[tuple[float, Painter]] = []
    for lane, z, oncoming in cars:
        x = lane + rng.uniform(-0.2, 0.2)
        items.append(
            (
                z,
                partial(
                    car, rng=rng, x=x, z=z, instance=next(numbers), paint=look.cars, oncoming=oncoming, lit=look.night
                ),
            )
        )
    for x, z in turning:
        items.append((z, partial(crossing_car, rng=rng, x=x, z=z, instance=next(numbers), paint=look.cars)))
    for x, z, across in riders:
        items.append((z, partial(bicyclist, rng=rng, x=x, z=z, instance=next(numbers), across=across)))
    for x, z in people:
        items.append((z, partial(pedestrian, rng=rng, x=x, z=z, instance=next(numbers))))
    return [item for item in items if item[0] < last]
