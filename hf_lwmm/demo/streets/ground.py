"""The plan of a street, and its background: the sky, the road with its markings, pavements and shadows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from hf_lwmm.demo.streets.canvas import PAVEMENT, ROAD, TREE, Camera, Colour, choose, code, grain, shade
from hf_lwmm.demo.streets.looks import Look

FAR = 120.0  # metres to the end of a street without a crossing


@dataclass(frozen=True)
class Plot:
    """A section of one side of the street, from `near` to `far` metres along the road."""

    near: float
    far: float
    tall: float  # height of its building; 0 = no building
    setback: float  # metres from the pavement to the building
    side_road: bool


@dataclass(frozen=True)
class Street:
    """A street: its cross-section, symmetric about x = 0, the plots along it, and its light. Lengths are in metres."""

    half: float  # from the middle of the carriageway to the kerb
    kerb: float  # width of the pavement
    parking: bool
    verge: bool  # grass, not paving, beyond the pavement
    length: float  # up to the crossing that ends it, or FAR
    bare: bool  # winter
    sun: float  # 1 = clear, 0 = overcast
    facing: float  # light on walls, as a fraction of full light
    sun_side: int  # -1: the sun is on the left; 1: on the right
    plots: tuple[tuple[Plot, ...], tuple[Plot, ...]]  # left and right

    @property
    def edge(self) -> float:
        """The distance from the middle to the outer edge of the pavement."""
        return self.half + self.kerb

    @property
    def drive(self) -> float:
        """The distance from the middle to the edge of the moving traffic."""
        return self.half - 2.2 * self.parking

    @property
    def ends(self) -> bool:
        """True if a crossing ends the street."""
        return self.length < FAR


def plan_street(rng: np.random.Generator, look: Look) -> Street:
    """Draw the plan of a street."""
    parking = bool(rng.random() < 0.5)
    lanes = int(rng.choice((1, 2, 3), p=(0.75, 0.2, 0.05)))
    length = float(rng.uniform(28, 80)) if rng.random() < 0.4 else FAR
    density = rng.uniform(0.4, 0.97)
    return Street(
        half=lanes * rng.uniform(2.8, 3.6) + 2.2 * parking,
        kerb=float(rng.uniform(1.8, 5.5)),
        parking=parking,
        verge=bool(rng.random() < look.verge),
        length=length,
        bare=bool(rng.random() < look.bare),
        sun=float(rng.uniform(*look.sun)),
        facing=float(rng.uniform(*look.facing)),
        sun_side=int(rng.choice((-1, 1))),
        plots=(_plots(rng, look, density, length), _plots(rng, look, density, length)),
    )


def _plots(rng: np.random.Generator, look: Look, density: float, length: float) -> tuple[Plot, ...]:
    plots: list[Plot] = []
    near, last = 2.0, length - 8 * (length < FAR)
    usual, setback = rng.uniform(*look.heights), rng.uniform(0, 8) * (rng.random() < 0.35)
    while near < last - 3:
        far = min(near + rng.uniform(6, 22), last)
        side_road = bool(rng.random() < 0.12 and near > 4)
        built = not side_road and rng.random() < density
        tall = usual * rng.uniform(0.65, 1.4) if built else 0.0
        plots.append(Plot(near, far, tall, setback * rng.uniform(0.8, 1.1), side_road))
        near = far
    return tuple(plots)


def sky(rng: np.random.Generator, camera: Camera, zenith: Colour, low: Colour, look: Look) -> np.ndarray:
    """Return the sky from the top of the image to the horizon, with clouds that flatten: (h, w, 3) float32."""
    height = int(np.clip(np.ceil(camera.horizon), 1, camera.height))
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    clear = np.asarray(zenith, np.float32) * (1 - rows) + np.asarray(low, np.float32) * rows
    coarse = Image.fromarray(rng.standard_normal((6, 5), np.float32)).resize((12, 16), Image.Resampling.BICUBIC)
    clouds = np.asarray(coarse) + 0.5 * rng.standard_normal((16, 12), np.float32) - np.float32(rng.uniform(-0.6, 1.2))
    whole = Image.fromarray(clouds).resize((camera.width, height), Image.Resampling.BICUBIC)
    cover = np.clip(np.asarray(whole) * np.float32(look.clouds), 0, 0.85)[..., None]
    cloud = np.asarray(look.cloud, np.float32) * np.float32(rng.uniform(0.8, 1.05))
    seen: np.ndarray = clear + (cloud - clear) * cover
    return seen


def ground(
    rng: np.random.Generator, camera: Camera, look: Look, street: Street, haze: Colour
) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours (h, w, 3) float32 and codes (h, w) int32 from the horizon to the bottom of the image."""
    top = int(np.clip(np.ceil(camera.horizon), 1, camera.height))
    rows = np.maximum(np.arange(top, camera.height, dtype=np.float32) - np.float32(camera.horizon), 0.3)[:, None]
    z = np.float32(camera.focal * camera.above) / rows
    columns = np.arange(camera.width, dtype=np.float32) - np.float32(camera.centre)
    x = columns * (z / np.float32(camera.focal)) + (np.float32(camera.x) - np.float32(camera.curve) * z * z)
    side = np.abs(x)

    parts = np.full(x.shape, 2, np.uint8)  # 0 road, 1 pavement, 2 beyond it, 3 kerb, 4 white paint, 5 yellow paint
    parts[side < street.edge] = 1
    parts[np.abs(side - street.half - 0.1) < 0.13] = 3
    parts[side < street.half] = 0
    for way, plots in zip((-1, 1), street.plots, strict=True):
        for plot in plots:
            if plot.side_road:
                parts[(z > plot.near + 1) & (z < plot.far - 1) & (x * way > street.half - 1)] = 0
    if street.ends:
        parts[np.broadcast_to((z > street.length - 8) & (z < street.length - 2), x.shape)] = 0
    road = parts == 0
    white, yellow = _markings(rng, street, x, side, z)
    parts[white & road] = 4
    parts[yellow & road] = 5

    asphalt, paving = choose(rng, look.asphalt), choose(rng, look.paving)
    beyond = choose(rng, look.leaves) if street.verge else choose(rng, look.paving)
    marking = choose(rng, look.marking)
    yellowish = choose(rng, ((214, 180, 90),))
    palette = np.asarray((asphalt, paving, beyond, shade(paving, 1.16), marking, yellowish), np.float32)
    clear = np.exp(z / np.float32(-1.4 * look.sight[1]))
    colours = palette.take(parts, axis=0)
    colours *= (_lightness(rng, look, street, parts, x, side, z) * clear)[..., None]
    colours += np.asarray(haze, np.float32) * (1 - clear[..., None])
    flat = code(TREE) if street.verge else code(PAVEMENT)
    codes = np.asarray([code(ROAD), code(PAVEMENT), flat, code(PAVEMENT), code(ROAD), code(ROAD)], np.int32)
    return colours, codes.take(parts)


def _lightness(
    rng: np.random.Generator,
    look: Look,
    street: Street,
    parts: np.ndarray,
    x: np.ndarray,
    side: np.ndarray,
    z: np.ndarray,
) -> np.ndarray:
    """Return the lightness of the ground, from texture, wear, joints, tracks and shadows: (h, w) float32."""
    rough = np.float32(look.rough / 110)
    light = grain(z * 9, x * 14) * (rough * np.exp(z / np.float32(-14)))
    light += grain(z * 0.8 + rng.uniform(0, 99), x * 3 + 40) * (rough * np.exp(z / np.float32(-40)))
    light += 1
    lane = street.drive / max(1, round(street.drive / 3.2))
    light -= np.float32(rng.uniform(-0.05, 0.12)) * (np.abs((side / lane) % 1 - 0.5) < 0.16) * (parts == 0)
    slabs = ((z / 0.9) % 1 < 0.07) | ((side / 0.7) % 1 < 0.06)
    light -= np.float32(0.12) * (slabs & (parts == 1) & (z < 16))
    patches = grain(z * 0.25 + rng.uniform(0, 99), x * 0.5 + 20) > rng.uniform(0.8, 3)
    light -= np.float32(rng.uniform(-0.15, 0.2)) * (patches & (parts == 0))

    plots = street.plots[(street.sun_side + 1) // 2]
    far = np.asarray([plot.far for plot in plots] or [0.0])
    tall = np.asarray([plot.tall or rng.uniform(0, 7) for plot in plots] or [0.0], np.float32)
    reach = tall[np.minimum(np.searchsorted(far, z + rng.uniform(-6, 6)), len(tall) - 1)] * rng.uniform(0.2, 1.4)
    ragged = np.float32(0.25) * grain(z * 6, x * 9) * (tall.min() < 7)
    shaded = x * street.sun_side + ragged > street.edge - reach
    light *= 1 - np.float32(0.62 * street.sun) * shaded
    floor: np.ndarray = np.maximum(light, 0.05)
    return floor


def _markings(
    rng: np.random.Generator, street: Street, x: np.ndarray, side: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of white and of yellow paint on the road: (h, w) bool."""
    drive, draw = street.drive, rng.random(12)
    dash, phase = rng.uniform(3, 8), rng.uniform(0, 8)
    dashed = ((z + phase) / dash % 1) < rng.uniform(0.3, 0.6)
    wander = 0.3 * (np.abs((z / 2) % 2 - 1) - 0.5) if draw[0] < 0.2 else np.zeros_like(z)
    shift = 0.0 if draw[1] < 0.7 else float(rng.uniform(-1.5, 1.5))
    white = (np.abs(x - shift + wander) < 0.08) & (dashed | (draw[2] < 0.25))
    if drive > 5:
        white |= (np.abs(side - drive / 2) < 0.07) & dashed
    if draw[3] < 0.4:
        white |= np.abs(side - drive + 0.2 + wander) < 0.07
    if draw[4] < 0.25:
        white |= (np.abs(z - rng.uniform(7, 25)) < 1.5) & ((x / 1.1) % 1 < 0.5)
    if draw[5] < 0.3:
        white |= (np.abs(z - rng.uniform(6, 30)) < 0.2) & (x > 0)
    if draw[6] < 0.35:
        for middle in (-drive / 2, drive / 2):
            start = z - rng.uniform(4, 20)
            off = np.abs(x - middle)
            white |= (off < 0.09) & (start > 0) & (start < 2.2)
            white |= (start > 2.2) & (off < (3.6 - start) * 0.28)
    yellow = np.zeros(x.shape, bool)
    if draw[7] < 0.4:
        yellow |= np.abs(np.abs(side - street.half + 0.4) - 0.1) < 0.05
    if draw[8] < 0.12:
        start = z - rng.uniform(5, 15)
        lattice = ((x + z) / 1.8 % 1 < 0.09) | ((x - z) / 1.8 % 1 < 0.09)
        yellow |= lattice & (start > 0) & (start < 8)
    near = z < 80
    return white & near, yellow & near
