"""From painted colours to a photograph: light, wet reflections, lamps, rain, lens and sensor."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from scripts.uda.street_canvas import ROAD, Camera, Canvas, glow_of, labels_of
from scripts.uda.street_looks import Look


def finish_by_day(canvas: Canvas, codes: np.ndarray, rng: np.random.Generator, look: Look) -> np.ndarray:
    """(h, w, 3) uint8: tint, exposure and saturation, then lens blur and sensor noise."""
    return _photograph(np.asarray(canvas.colours, np.float32), canvas.camera, rng, look)


def finish_by_night(canvas: Canvas, codes: np.ndarray, rng: np.random.Generator, look: Look) -> np.ndarray:
    """(h, w, 3) uint8: what shines keeps its light, spreads it and mirrors on the wet road; the rest is dark."""
    camera, painted = canvas.camera, np.asarray(canvas.colours, np.float32)
    shining = painted * glow_of(codes)[..., None]
    scene = painted * _lamp_light(canvas, rng) * np.asarray((0.86, 0.92, 1.1), np.float32)
    wet = ((labels_of(codes) == ROAD) * np.float32(rng.uniform(0.25, 0.6)))[..., None]
    scene = scene * (1 - 0.5 * wet) + _mirror(scene + 1.5 * shining, camera) * wet
    halo = _blurred(shining, camera.width / 45) * 1.6 + _blurred(shining, camera.width / 130) * 0.9
    scene = np.maximum(scene, shining * 2) + halo
    return _photograph(scene + _rain(camera, rng)[..., None], camera, rng, look)


def _lamp_light(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """(h, w, 1) light on everything: dim sky, pools under street lamps, our own headlights."""
    camera = canvas.camera
    small_w, small_h = camera.width // 8, camera.height // 8
    v, u = np.mgrid[0:small_h, 0:small_w].astype(np.float32) * 8 + 4
    light = np.full((small_h, small_w), rng.uniform(0.7, 1.0), np.float32)
    for lamp in canvas.lamps:
        foot_u, foot_v = camera.project((lamp[0], 0.0, lamp[2]))
        scale = camera.focal / lamp[2]
        rise = np.where(v < foot_v, 5.0, 1.2) * scale
        light += 0.9 * np.exp(-(((u - foot_u) / (5 * scale)) ** 2) - ((v - foot_v) / rise) ** 2)
    below = np.maximum(v - camera.horizon, 1)
    depth = camera.focal * camera.above / below
    beam = np.exp(-(((depth - 9) / 9) ** 2)) * np.exp(-(((u - camera.centre) * depth / camera.focal / 4.5) ** 2))
    light += rng.uniform(0.2, 0.8) * beam * (v > camera.horizon)
    whole = Image.fromarray(light).resize((camera.width, camera.height), Image.Resampling.BILINEAR)
    return np.asarray(whole)[..., None]


def _mirror(scene: np.ndarray, camera: Camera) -> np.ndarray:
    """The scene upside down about the horizon, smeared along the rows' direction of travel."""
    rows = np.clip(2 * int(camera.horizon) - np.arange(camera.height), 0, camera.height - 1)
    flipped = np.minimum(scene[rows], 400)
    smear = max(camera.height // 16, 1)
    total = np.cumsum(np.concatenate([flipped, np.repeat(flipped[-1:], smear, 0)]), 0)
    return np.concatenate([total[smear : smear + 1], total[smear + 1 :] - total[: -smear - 1]])[: camera.height] / smear


def _rain(camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """(h, w) brightness of slanted streaks."""
    layer = Image.new("L", (camera.width, camera.height))
    pen, slant = ImageDraw.Draw(layer), rng.uniform(-0.3, 0.3)
    for _ in range(int(rng.uniform(30, 160) * camera.width / 320)):
        u, v = rng.uniform(-20, camera.width + 20), rng.uniform(-20, camera.height)
        length = rng.uniform(0.02, 0.07) * camera.height
        pen.line([(u, v), (u + slant * length, v + length)], fill=int(rng.uniform(12, 46)))
    return np.asarray(layer, np.float32)


def _blurred(light: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)).filter(ImageFilter.BoxBlur(radius)), np.float32)


def _photograph(scene: np.ndarray, camera: Camera, rng: np.random.Generator, look: Look) -> np.ndarray:
    warmth = rng.uniform(*look.warmth) ** 0.5
    scene = scene * (np.asarray((warmth, 1.0, 1 / warmth), np.float32) * np.float32(rng.uniform(*look.exposure)))
    grey = scene.mean(-1, keepdims=True)
    scene = grey + (scene - grey) * np.float32(rng.uniform(*look.saturation))
    image = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))
    blur, noise = rng.uniform(*look.blur) * camera.width / 320, np.float32(rng.uniform(*look.noise))
    if blur > 0:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    if noise <= 0:
        return np.array(image)
    sensor = np.asarray(image, np.float32) + noise * rng.standard_normal(scene.shape, np.float32)
    return np.clip(sensor, 0, 255).astype(np.uint8)
