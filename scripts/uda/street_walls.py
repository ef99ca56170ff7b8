"""What lines a street: facades with windows, fences and hedges, painted on upright planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scripts.uda.street_canvas import BUILDING, FENCE, TREE, Canvas, Colour, Patch, choose, code, grain


@dataclass(frozen=True)
class Facade:
    """A building's front: lengths in metres, colours as in daylight."""

    height: float
    storey: float
    ground_floor: float
    bay: float  # distance from window to window
    window: tuple[float, float]  # share of a bay's width, share of a storey's height
    wall: Colour
    shop: Colour
    glass: Colour
    frame: Colour
    rough: float  # how much the wall's texture shows
    bricks: bool
    lit: float  # share of the windows with light on
    seed: int


def facade(rng: np.random.Generator, walls: Sequence[Colour], heights: tuple[float, float], lit: float) -> Facade:
    storey = float(rng.uniform(2.8, 3.7))
    storeys = max(1, round(rng.uniform(*heights) / storey))
    wall = choose(rng, walls)
    return Facade(
        height=storeys * storey + rng.uniform(0.6, 1.4),
        storey=storey,
        ground_floor=float(rng.choice((0.0, 3.2, 3.8))),
        bay=float(rng.uniform(1.8, 3.6)),
        window=(float(rng.uniform(0.35, 0.75)), float(rng.uniform(0.4, 0.65))),
        wall=wall,
        shop=choose(rng, ((60, 62, 66), (120, 40, 36), (40, 70, 60), (190, 180, 160), (44, 54, 90), wall)),
        glass=choose(rng, ((58, 68, 80), (92, 108, 124), (40, 44, 50), (130, 146, 160))),
        frame=choose(rng, ((230, 228, 220), (90, 84, 78), wall)),
        rough=float(rng.uniform(3, 9)),
        bricks=bool(rng.random() < 0.4),
        lit=lit * float(rng.uniform(0.3, 1.4)),
        seed=int(rng.integers(1 << 16)),
    )


def paint_facade(canvas: Canvas, patch: Patch, front: Facade, light: float) -> None:
    """Paint the front on a plane that faces the sun by `light` (1 = fully)."""
    along, up = patch.along, patch.up
    column, row = along / front.bay, up / front.storey
    across, within = column % 1, row % 1
    wide, tall = front.window
    glazed = (np.abs(across - 0.5) < wide / 2) & (np.abs(within - 0.52) < tall / 2)
    framed = (np.abs(across - 0.5) < wide / 2 + 0.06) & (np.abs(within - 0.52) < tall / 2 + 0.05)
    shop = up < front.ground_floor
    # A shop's window is one pane per two bays under a sign board.
    pane = shop & (np.abs(column / 2 % 1 - 0.5) < 0.42) & (up > 0.5) & (up < front.ground_floor - 0.9)
    ledge = (up > front.height - 0.55) | (np.abs(up - front.ground_floor - 0.12) < 0.12)
    below_eaves = up < front.height - 0.8
    glazed &= ~shop & below_eaves
    framed &= ~shop & below_eaves

    texture = front.rough * grain(along * 6 + front.seed, up * 6)
    if front.bricks:
        texture -= 10 * (((up * 4) % 1 < 0.22) & (patch.depth < 18))
    colours = np.empty((*along.shape, 3), np.float32)
    colours[:] = front.wall
    colours[shop] = front.shop
    colours[ledge] *= 0.82
    colours[framed] = front.frame
    lightness = light * (1 + 0.05 * grain(along * 0.7 + front.seed, up * 0.7)) * (0.86 + 0.14 * np.minimum(up / 3, 1))
    colours = (colours + texture[..., None]) * lightness[..., None]
    # Each pane reflects its own piece of sky or room.
    mirror = 1 + 0.22 * grain(column + front.seed, row * 3 + front.seed) + 0.25 * (within - 0.5)
    panes = glazed | pane
    colours[panes] = (np.asarray(front.glass, np.float32) * mirror[..., None])[panes]

    codes = np.full(along.shape, code(BUILDING), np.int32)
    if front.lit:
        shown = (grain(column * 7 + front.seed, row * 7) > 1.3 - 2 * front.lit) & panes
        warm = 190 + 40 * grain(column * 3, row * 3 + front.seed)
        colours[shown] = warm[shown][:, None] * np.asarray((1.0, 0.82, 0.5), np.float32)
        codes[shown] = code(BUILDING, glow=True)
    canvas.paste(patch, colours, (up >= 0) & (up <= front.height), codes)


def paint_fence(canvas: Canvas, patch: Patch, colour: Colour, height: float, slats: float, light: float) -> None:
    """Slats, rails and gaps; the gaps belong to the fence, as annotators have it."""
    slat = (patch.along / slats % 1) < 0.55
    rail = (np.abs(patch.up - 0.25) < 0.08) | (np.abs(patch.up - height + 0.12) < 0.1)
    lightness = np.where(slat | rail, 1.0, 0.42) * light + 0.05 * grain(patch.along * 9, patch.up * 3)
    colours = np.asarray(colour, np.float32) * lightness[..., None].astype(np.float32)
    canvas.paste(patch, colours, (patch.up >= 0) & (patch.up <= height), code(FENCE))


def paint_hedge(canvas: Canvas, patch: Patch, colour: Colour, height: float, light: float) -> None:
    """A trimmed hedge with a ragged top."""
    lightness = light * (0.75 + 0.2 * grain(patch.along * 9, patch.up * 9) + 0.25 * patch.up / height)
    colours = np.asarray(colour, np.float32) * lightness[..., None].astype(np.float32)
    ragged = height + 0.12 * grain(patch.along * 5, np.zeros_like(patch.along))
    canvas.paste(patch, colours, (patch.up >= 0) & (patch.up <= ragged), code(TREE))
