"""Rendered driving scenes with semantic and instance labels, from a seed and nothing else.

    scene = render("gta", seed=7)          # Scene(image, labels, instances), 320x240
    python -m scripts.uda.streets 12 /tmp/sheet.png   # a contact sheet of every style

Three styles share one world and differ in camera, palette, light and weather: "gta" (day, photographic),
"synthia" (raised camera, flat bright colours, 9 of the 11 classes labelled) and "night" (rain, lamps and
reflections). Classes are CamVid's eleven, in its order; 255 is ignored.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.uda.street_canvas import (
    BUILDING,
    CLASSES,
    FENCE,
    PAVEMENT,
    ROAD,
    SIGN,
    SKY,
    TREE,
    Camera,
    Canvas,
    Colour,
    choose,
    code,
    far_to_near,
    grain,
    instances_of,
    labels_of,
    shade,
)
from scripts.uda.street_finish import finish_by_day, finish_by_night
from scripts.uda.street_looks import LOOKS, Look
from scripts.uda.street_things import bicyclist, car, pedestrian, pole, sign, traffic_light, tree
from scripts.uda.street_walls import facade, paint_facade, paint_fence, paint_hedge

__all__ = ["CLASSES", "IGNORE", "STYLES", "THINGS", "Scene", "render"]

STYLES = tuple(LOOKS)
IGNORE = 255
THINGS = (8, 9, 10)

_UNLABELLED = {"synthia": (SIGN, FENCE)}
_FAR = 120.0  # metres to the end of the street


@dataclass(frozen=True)
class Scene:
    """A rendered frame. `instances` holds 0 or an id that is unique in the frame, on THINGS only."""

    image: np.ndarray  # (h, w, 3) uint8
    labels: np.ndarray  # (h, w) uint8: 0..10 or 255
    instances: np.ndarray  # (h, w) int32


@dataclass(frozen=True)
class Street:
    """The road's cross-section, symmetric about x = 0, and the light that falls on it."""

    half: float  # carriageway, middle to kerb
    kerb: float  # width of the pavement
    parking: bool
    verge: bool  # grass, not paving, beyond the pavement
    sun: float  # 1 = clear, 0 = overcast
    sun_side: int  # -1: the sun stands on the left
    built: tuple[np.ndarray, np.ndarray]  # far end and height of each plot, left and right

    @property
    def edge(self) -> float:
        return self.half + self.kerb


def render(style: str, seed: int, size: tuple[int, int] = (320, 240), *, every_class: bool = False) -> Scene:
    """Render one street; the same style, seed and size give the same scene.

    `size` is (width, height). "synthia" leaves signs and fences at 255 unless `every_class`.
    """
    look = LOOKS[style]
    rng = np.random.default_rng([STYLES.index(style), seed])
    street = _street(rng, look)
    canvas = _open_canvas(rng, look, street, size)
    _paint_skyline(canvas, rng, look)
    _paint_plots(canvas, rng, look, street)
    for _, paint in far_to_near(_furniture(rng, look, street) + _traffic(rng, look, street)):
        paint(canvas)
    codes = np.asarray(canvas.codes)
    image = (finish_by_night if look.night else finish_by_day)(canvas, codes, rng, look)
    labels, instances = labels_of(codes), instances_of(codes)
    if not every_class:
        labels[np.isin(labels, _UNLABELLED.get(style, ()))] = IGNORE
    if rng.random() < 0.5:  # half of the world drives on the left
        image, labels, instances = (np.ascontiguousarray(part[:, ::-1]) for part in (image, labels, instances))
    return Scene(image, labels, instances)


def _street(rng: np.random.Generator, look: Look) -> Street:
    parking = bool(rng.random() < 0.6)
    lanes = int(rng.choice((1, 2), p=(0.75, 0.25)))
    density = rng.uniform(0.5, 0.97)
    return Street(
        half=lanes * rng.uniform(3.0, 3.6) + 2.2 * parking,
        kerb=float(rng.uniform(1.8, 4.5)),
        parking=parking,
        verge=bool(rng.random() < look.verge),
        sun=float(rng.uniform(*look.sun)),
        sun_side=int(rng.choice((-1, 1))),
        built=(_plots(rng, look, density), _plots(rng, look, density)),
    )


def _plots(rng: np.random.Generator, look: Look, density: float) -> np.ndarray:
    """(plots, 2): where each plot along one side ends, and its building's height, 0 for none."""
    ends, heights, storeys = [rng.uniform(2, 14)], [], rng.uniform(*look.heights)
    while ends[-1] < _FAR:
        ends.append(ends[-1] + rng.uniform(7, 20))
    for _ in ends:
        heights.append(storeys * rng.uniform(0.7, 1.4) if rng.random() < density else 0.0)
    return np.asarray([np.minimum(ends, _FAR), heights], np.float32).T


def _open_canvas(rng: np.random.Generator, look: Look, street: Street, size: tuple[int, int]) -> Canvas:
    width, height = size
    camera = Camera(
        width=width,
        height=height,
        focal=width * rng.uniform(*look.focal),
        centre=width * rng.uniform(0.4, 0.6),
        horizon=height * rng.uniform(*look.horizon),
        x=(street.half - 2.2 * street.parking) * rng.uniform(0.35, 0.6),
        above=float(rng.uniform(*look.eye)),
        curve=float(rng.normal(0, 0.0004)),
    )
    zenith, low = look.skies[int(rng.integers(len(look.skies)))]
    sky = _sky(rng, camera, choose(rng, (zenith,), 0.08), choose(rng, (low,), 0.05), look)
    colours, codes = _ground(rng, camera, look, street)
    split = int(np.clip(np.ceil(camera.horizon), 0, height))
    image = np.concatenate([sky[:split], colours[split:]])
    labels = np.where(np.arange(height)[:, None] < split, code(SKY), codes).astype(np.int32)
    return Canvas(
        camera,
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)),
        Image.fromarray(labels),
        haze=low,
        sight=float(rng.uniform(*look.sight)),
    )


def _sky(rng: np.random.Generator, camera: Camera, zenith: Colour, low: Colour, look: Look) -> np.ndarray:
    """(h, w, 3) gradient with clouds that flatten towards the horizon."""
    rows = np.clip(np.arange(camera.height, dtype=np.float32) / max(camera.horizon, 1), 0, 1)[:, None, None]
    sky = np.asarray(zenith, np.float32) * (1 - rows) + np.asarray(low, np.float32) * rows
    sky = np.broadcast_to(sky, (camera.height, camera.width, 3))
    cells = Image.fromarray(rng.normal(0, 1, (9, 5)).astype(np.float32))
    finer = Image.fromarray(rng.normal(0, 0.5, (24, 12)).astype(np.float32))
    size = (camera.width, camera.height)
    clouds = sum(np.asarray(part.resize(size, Image.Resampling.BICUBIC)) for part in (cells, finer))
    cover = np.clip((clouds - rng.uniform(-0.6, 1.2)) * look.clouds, 0, 0.85)[..., None]
    return sky * (1 - cover) + np.asarray(look.cloud, np.float32) * cover


def _ground(rng: np.random.Generator, camera: Camera, look: Look, street: Street) -> tuple[np.ndarray, np.ndarray]:
    """(h, w, 3) colours and (h, w) codes of road, markings, kerbs, pavements, verges and their shadows."""
    rows = np.maximum(np.arange(camera.height, dtype=np.float32) - camera.horizon, 0.3)[:, None]
    z = camera.focal * camera.above / rows
    columns = np.arange(camera.width, dtype=np.float32)[None] - camera.centre
    x = columns * z / camera.focal - camera.curve * z**2 + camera.x
    side = np.abs(x)
    deep = np.broadcast_to(z, x.shape)
    road, paved = side < street.half, side < street.edge

    asphalt, paving = np.float32(choose(rng, look.asphalt)), np.float32(choose(rng, look.paving))
    colours = np.where(road[..., None], asphalt, paving)
    if street.verge:
        colours = np.where(paved[..., None], colours, np.float32(choose(rng, look.leaves)))
    near = np.exp(-z / 14)
    speckle = grain(deep * 9, x * 14) * near * look.rough
    wear = grain(deep * 0.8 + rng.uniform(0, 99), x * 3 + 40) * look.rough * 0.9
    slabs = ((deep / 0.9) % 1 < 0.07) | ((side / 0.7) % 1 < 0.06)
    colours = colours + (speckle + wear * np.exp(-z / 40) - 16 * (slabs & ~road & paved & (deep < 16)))[..., None]
    kerb = np.abs(side - street.half - 0.1) < 0.13
    colours = np.where(kerb[..., None], np.float32(shade(tuple(paving), 1.16)), colours)
    marks = _markings(rng, street, x, deep)
    paint = np.float32(choose(rng, look.marking)) * (1 - 0.12 * np.clip(grain(deep * 9, x * 9), 0, 2))[..., None]
    colours = np.where((marks & road)[..., None], paint, colours)
    colours = colours * _ground_light(rng, camera, street, x, z)[..., None]

    clear = np.exp(-z / (1.4 * look.sight[1]))[..., None]
    colours = colours * clear + np.float32(look.skies[0][1]) * (1 - clear)
    beyond = code(TREE) if street.verge else code(PAVEMENT)
    return colours, np.where(road, code(ROAD), np.where(paved, code(PAVEMENT), beyond))


def _markings(rng: np.random.Generator, street: Street, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(h, w) where the road is painted: middle line, lane and edge lines, perhaps a crossing."""
    drive = street.half - 2.2 * street.parking
    dash, phase = rng.uniform(3, 8), rng.uniform(0, 8)
    dashed = ((z + phase) / dash % 1) < rng.uniform(0.4, 0.6)
    middle = np.abs(x) < 0.09
    marks = middle & (dashed | (rng.random() < 0.2))
    if drive > 5:
        marks |= (np.abs(np.abs(x) - drive / 2) < 0.08) & dashed
    if rng.random() < 0.6:
        marks |= np.abs(np.abs(x) - drive + 0.15) < 0.08
    if rng.random() < 0.25:
        crossing = rng.uniform(7, 25)
        marks |= (np.abs(z - crossing) < 1.5) & ((x / 1.1) % 1 < 0.5)
    return marks & (z < 80)


def _ground_light(rng: np.random.Generator, camera: Camera, street: Street, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(h, w) light on the ground: buildings on the sun's side cast their shadow across the road."""
    ends, heights = street.built[(street.sun_side + 1) // 2].T
    tall = heights[np.searchsorted(ends, np.minimum(z + rng.uniform(-6, 6), _FAR - 1))]
    reach = tall * rng.uniform(0.2, 1.1)
    shaded = x * street.sun_side > street.edge - reach
    return np.where(shaded, 1 - 0.45 * street.sun, 1.0).astype(np.float32)


def _paint_skyline(canvas: Canvas, rng: np.random.Generator, look: Look) -> None:
    """Distant blocks and trees, so that the street does not end in the sky."""
    for _ in range(int(rng.integers(6, 14))):
        x, z = rng.uniform(-110, 110), rng.uniform(125, 170)
        wide, tall = rng.uniform(8, 26), rng.uniform(4, 22)
        wall = choose(rng, look.walls)
        corners = [(x, -1, z), (x + wide, -1, z), (x + wide, tall, z), (x, tall, z)]
        canvas.polygon(corners, wall, code(BUILDING))
    green = choose(rng, look.leaves)
    for _ in range(int(rng.integers(5, 22))):
        x, z = rng.uniform(-90, 90), rng.uniform(121, 128)
        canvas.disc((x, 1.5, z), rng.uniform(3, 8), rng.uniform(2.5, 6), shade(green, rng.uniform(0.7, 1)), code(TREE))


def _paint_plots(canvas: Canvas, rng: np.random.Generator, look: Look, street: Street) -> None:
    """Both sides of the street from far to near: facades, and gaps with trees behind a fence or a hedge."""
    for side, plots in zip((-1, 1), street.built, strict=True):
        sunlit = 1 - 0.3 * street.sun * (side == street.sun_side)
        starts = np.concatenate([[2.0], plots[:-1, 0]])
        for near, (far, tall) in reversed(list(zip(starts, plots, strict=True))):
            if far - near < 0.5:
                continue
            if tall:
                _paint_building(canvas, rng, look, side * street.edge, (float(near), float(far)), float(tall), sunlit)
            else:
                _paint_gap(canvas, rng, look, side * street.edge, (float(near), float(far)), sunlit)


def _paint_building(
    canvas: Canvas,
    rng: np.random.Generator,
    look: Look,
    x: float,
    span: tuple[float, float],
    tall: float,
    sunlit: float,
) -> None:
    front = facade(rng, look.walls, (tall, tall), look.lit)
    near, far = span
    outer = x + np.sign(x) * 11
    end_wall = canvas.front_plane(min(x, outer), max(x, outer), near, front.height)
    if end_wall:
        paint_facade(canvas, end_wall, front, 0.78)
    plane = canvas.side_plane(x, near, far, front.height)
    if plane:
        paint_facade(canvas, plane, front, sunlit)


def _paint_gap(
    canvas: Canvas, rng: np.random.Generator, look: Look, x: float, span: tuple[float, float], sunlit: float
) -> None:
    near, far = span
    spots = [(float(rng.uniform(near, far)), float(rng.uniform(2.5, 12))) for _ in range(rng.integers(1, 5))]
    for z, behind in far_to_near(spots):
        tree(canvas, rng, x + np.sign(x) * behind, max(z, 3.0), leaves=look.leaves)
    kind, height = rng.random(), float(rng.uniform(0.9, 1.9))
    plane = canvas.side_plane(x, near, far, height + 0.3)
    if plane is None or kind > 0.85:
        return
    if kind < 0.6:
        paint_fence(canvas, plane, choose(rng, look.fences), height, float(rng.uniform(0.15, 0.4)), sunlit)
    else:
        paint_hedge(canvas, plane, choose(rng, look.leaves), height, sunlit)


Painter = Callable[[Canvas], None]


def _furniture(rng: np.random.Generator, look: Look, street: Street) -> list[tuple[float, Painter]]:
    """Street lamps, posts, signs, lights, railings and trees along both kerbs."""
    items: list[tuple[float, Painter]] = []
    metal = choose(rng, look.metal)
    spacing, trees = rng.uniform(14, 32), rng.random() < look.planted
    for side in (-1, 1):
        kerb = side * (street.half + 0.45)
        for z in np.arange(rng.uniform(4, 18), 95, spacing):
            items.append((z, lambda c, x=kerb, z=z: pole(c, rng, x, z, lamp=True, lit=look.night, metal=metal)))
        for z in rng.uniform(5, 60, rng.poisson(2.2)):
            items.append((z, lambda c, x=kerb, z=z: sign(c, rng, x, z, plates=look.plates)))
        for z in rng.uniform(5, 50, rng.poisson(0.8)):
            items.append((z, lambda c, x=kerb, z=z: pole(c, rng, x, z, lamp=False, lit=False, metal=metal)))
        if trees:
            for z in np.arange(rng.uniform(6, 16), 95, rng.uniform(8, 18)):
                items.append((z, lambda c, x=kerb + side * 0.5, z=z: tree(c, rng, x, z, leaves=look.leaves)))
        if rng.random() < 0.3:
            items.append(_railing(rng, look, kerb - side * 0.2))
        if rng.random() < 0.3:
            z = float(rng.uniform(8, 35))
            items.append((z, lambda c, x=kerb, z=z: traffic_light(c, rng, x, z, lit=look.night)))
    return items


def _railing(rng: np.random.Generator, look: Look, x: float) -> tuple[float, Painter]:
    near = float(rng.uniform(3, 20))
    far, colour, slats = near + rng.uniform(6, 20), choose(rng, look.fences), float(rng.uniform(0.2, 0.5))

    def paint(canvas: Canvas) -> None:
        plane = canvas.side_plane(x, near, far, 1.1)
        if plane:
            paint_fence(canvas, plane, colour, 1.1, slats, 1.0)

    return far, paint


def _traffic(rng: np.random.Generator, look: Look, street: Street) -> list[tuple[float, Painter]]:
    """Parked and driving cars, riders near the kerb, and people on pavements and crossing; numbered from 1."""
    drive = street.half - 2.2 * street.parking
    cars: list[tuple[float, float, bool]] = []
    for side in (-1, 1):
        if street.parking:
            slots = np.arange(rng.uniform(3, 9), 75, rng.uniform(5.6, 7.5))
            taken = slots[rng.random(len(slots)) < rng.uniform(0.2, 0.9)]
            cars += [(side * (street.half - 1.1), z, side < 0) for z in taken]
        lane = side * drive / 2
        first = rng.uniform(7, 30) if side > 0 else rng.uniform(5, 25)
        cars += [(lane, z, side < 0) for z in first + np.cumsum(rng.uniform(8, 30, rng.poisson(1.5)))]
    riders = [
        (rng.choice((-1, 1)) * drive * rng.uniform(0.3, 0.95), rng.uniform(5, 32), bool(rng.random() < 0.4))
        for _ in range(rng.poisson(1.3))
    ]
    people = [
        (rng.choice((-1, 1)) * rng.uniform(street.half + 0.3, street.edge - 0.2), rng.uniform(4, 40))
        for _ in range(rng.poisson(look.crowd))
    ]
    people += [(rng.uniform(-drive, drive), rng.uniform(8, 30)) for _ in range(rng.poisson(0.5))]

    items: list[tuple[float, Painter]] = []
    for x, z, oncoming in cars:
        number = len(items) + 1
        items.append(
            (z, lambda c, x=x, z=z, o=oncoming, i=number: car(
                c, rng, x + rng.uniform(-0.2, 0.2), z, instance=i, paint=look.cars, oncoming=o, lit=look.night))
        )  # fmt: skip
    for x, z, across in riders:
        number = len(items) + 1
        items.append((z, lambda c, x=x, z=z, a=across, i=number: bicyclist(c, rng, x, z, instance=i, across=a)))
    for x, z in people:
        number = len(items) + 1
        items.append((z, lambda c, x=x, z=z, i=number: pedestrian(c, rng, x, z, instance=i)))
    return items


def _contact_sheet(frames: int, path: Path) -> None:
    rows = [np.concatenate([render(style, seed).image for seed in range(frames)], 1) for style in STYLES]
    Image.fromarray(np.concatenate(rows)).save(path)


if __name__ == "__main__":
    _contact_sheet(int(sys.argv[1]), Path(sys.argv[2]))
