"""Facades with windows, shops and roofs, fences, hedges and walls, painted on upright planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_lwmm.demo.streets.canvas import BUILDING, FENCE, TREE, Canvas, Colour, Patch, choose, code, grain

_WALL, _GLASS, _FRAME, _SHOP, _LEDGE, _ROOF, _FASCIA, _LAMP = range(8)


@dataclass(frozen=True)
class Facade:
    """The front of a building. Lengths are in metres, colours as in daylight."""

    eaves: float
    roof: float  # height above the eaves
    gable: float  # width of each gable that faces the street; 0 = the eaves run along the street
    chimneys: float
    storey: float
    ground_floor: float  # height of the shops; 0 = none
    bay: float  # distance between the middles of windows
    window: tuple[float, float]  # fractions of a bay's width and of a storey's height
    palette: np.ndarray  # (8, 3) float32: wall, glass, frame, shop, ledge, roof, fascia, lit glass
    rough: float  # strength of the wall's texture
    bricks: bool
    lit: float  # fraction of windows with the light on
    seed: int

    @property
    def height(self) -> float:
        """The height with roof and chimneys."""
        return self.eaves + self.roof + 1.4 * (self.chimneys > 0)


ROOFS: tuple[Colour, ...] = ((70, 66, 68), (92, 70, 60), (112, 76, 60), (84, 86, 92))
SHOPS: tuple[Colour, ...] = ((60, 62, 66), (120, 40, 36), (40, 70, 60), (190, 180, 160), (44, 54, 90), (28, 28, 32))
FASCIAS: tuple[Colour, ...] = (
    (170, 30, 34), (30, 60, 140), (24, 90, 60), (230, 226, 214), (34, 34, 38), (220, 170, 40), (120, 60, 110),
)  # fmt: skip


def facade(rng: np.random.Generator, walls: Sequence[Colour], tall: float, lit: float, pitched: float) -> Facade:
    """Draw the front of a building of about `tall` metres.

    Args:
        rng: generator of everything about the front.
        walls: colours of walls.
        tall: height in metres, rounded to whole storeys.
        lit: typical fraction of lit windows.
        pitched: probability that the roof of a low building shows.
    """
    draw = rng.random(12)
    storey = 2.8 + 0.9 * draw[0]
    storeys = max(1, round(tall / storey))
    wall = choose(rng, walls)
    office = draw[1] < 0.15
    roof = (1.0 + 2.5 * draw[2]) if storeys < 6 and draw[3] < pitched and not office else 0.0
    glass = choose(rng, ((58, 68, 80), (92, 108, 124), (34, 38, 44), (130, 146, 160)))
    frame = choose(rng, ((230, 228, 220), (90, 84, 78), wall))
    ledge = tuple(0.82 * part for part in wall)
    shop, cover, fascia = choose(rng, (*SHOPS, wall)), choose(rng, ROOFS), choose(rng, FASCIAS)
    palette = (wall, glass, frame, shop, ledge, cover, fascia, (225.0, 184.0, 112.0))
    return Facade(
        eaves=storeys * storey + 0.6,
        roof=roof,
        gable=5 + 5 * draw[4] if roof and draw[5] < 0.35 else 0.0,
        chimneys=roof and float(draw[6] < 0.6),
        storey=storey,
        ground_floor=0.0 if draw[7] < 0.4 or storeys < 2 else 3.0 + 0.8 * draw[7],
        bay=1.6 + 2.0 * draw[8],
        window=(0.9, 0.55 + 0.3 * draw[9]) if office else (0.32 + 0.4 * draw[9], 0.4 + 0.25 * draw[10]),
        palette=np.asarray(palette, np.float32),
        rough=3 + 6 * draw[11],
        bricks=bool(draw[10] < 0.4),
        lit=lit * float(0.3 + 1.1 * draw[6]),
        seed=int(rng.integers(1 << 16)),
    )


def paint_facade(canvas: Canvas, patch: Patch, front: Facade, light: float) -> None:
    """Paint a front on a plane, in the fraction `light` of full light."""
    along, up = patch.along, patch.up
    column, row = along * np.float32(1 / front.bay), up * np.float32(1 / front.storey)
    bay, level = np.floor(column), np.floor(row)
    across, within = np.abs(column - bay - 0.5), row - level
    wide, tall = front.window
    high = np.abs(within - 0.52)
    parts = np.full(up.shape, _WALL, np.uint8)
    parts[np.abs(up - front.eaves + 0.15) < 0.15] = _LEDGE
    parts[(across < wide / 2 + 0.06) & (high < tall / 2 + 0.05)] = _FRAME
    panes = (across < wide / 2) & (high < tall / 2)
    parts[panes] = _GLASS
    parts[up > front.eaves - 0.3] = _LEDGE
    if front.ground_floor:
        shop = up < front.ground_floor
        parts[shop] = _SHOP
        parts[shop & (across < 0.42) & (up > 0.35)] = _GLASS
        parts[shop & (up > front.ground_floor - 0.8)] = _FASCIA
    parts[up > front.eaves] = _ROOF

    # Walls have stains in large patches; each pane has its own reflection, room or lamp.
    lightness = grain(along * 5 + front.seed, up * 5) * np.float32(front.rough / 160)
    lightness += np.float32(0.97)
    if front.bricks:
        lightness -= np.float32(0.07) * (((up * 4) % 1 < 0.22) & (patch.depth < 18))
    if light != 1:
        lightness *= np.float32(light)
    glass = parts == _GLASS
    room = grain(bay + front.seed, level * 3 + front.seed)
    mirror = room * np.float32(0.25) + np.float32(0.5 + 0.4 * light) + np.float32(0.3) * (within - np.float32(0.5))
    np.copyto(lightness, np.maximum(mirror, np.float32(0.25)), where=glass)
    codes: np.ndarray | int = code(BUILDING)
    if front.lit:
        shown = (room > 1.3 - 2 * front.lit) & glass
        parts[shown] = _LAMP
        codes = np.where(shown, np.int32(code(BUILDING, glow=True)), np.int32(code(BUILDING)))
    colours = front.palette.take(parts, axis=0)
    colours *= lightness[..., None]
    canvas.paste(patch, colours, (up >= 0) & (up <= _skyline(front, along)), codes)


def _skyline(front: Facade, along: np.ndarray) -> np.ndarray:
    """Return the height of the front with gables and chimneys along the plane: (1, w) float32."""
    top = np.full(along.shape, front.eaves + front.roof, np.float32)
    if front.gable:
        top -= front.roof * np.abs((along / front.gable) % 1 - 0.5) * 2
    if front.chimneys:
        top[(along / 6.5 + front.seed / 7) % 1 < 0.16] = front.height
    return top


def paint_fence(canvas: Canvas, patch: Patch, colour: Colour, height: float, slats: float, light: float) -> None:
    """Paint the slats, rails and gaps of a fence; the gaps have its code, as annotators draw it."""
    slat = (patch.along / slats % 1) < 0.55
    rail = (np.abs(patch.up - 0.25) < 0.08) | (np.abs(patch.up - height + 0.12) < 0.1)
    lightness = np.where(slat | rail, np.float32(light), np.float32(0.42 * light))
    lightness += np.float32(0.05) * grain(patch.along * 9, patch.up * 3)
    _paint_strip(canvas, patch, colour, lightness, patch.up <= height, code(FENCE))


def paint_hedge(canvas: Canvas, patch: Patch, colour: Colour, height: float, light: float) -> None:
    """Paint a trimmed hedge with a ragged top."""
    lightness = light * (0.7 + 0.25 * grain(patch.along * 9, patch.up * 9) + 0.3 * patch.up / height)
    ragged = height + 0.12 * grain(patch.along * 5, np.zeros_like(patch.along))
    _paint_strip(canvas, patch, colour, lightness, patch.up <= ragged, code(TREE))


def paint_low_wall(canvas: Canvas, patch: Patch, colour: Colour, height: float, light: float) -> None:
    """Paint a rough stone wall with a coping; it counts as a building, as in CamVid's eleven classes."""
    lightness = light * (0.85 + 0.1 * grain(patch.along * 7, patch.up * 12) + 0.2 * (patch.up > height - 0.15))
    _paint_strip(canvas, patch, colour, lightness, patch.up <= height, code(BUILDING))


def _paint_strip(
    canvas: Canvas, patch: Patch, colour: Colour, lightness: np.ndarray, below: np.ndarray, painted: int
) -> None:
    colours = np.asarray(colour, np.float32) * lightness[..., None].astype(np.float32)
    canvas.paste(patch, colours, (patch.up >= 0) & below, painted)
