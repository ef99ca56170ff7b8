"""Turn painted colours into a photograph: light, wet reflections, lamps, rain, lens and sensor."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from hf_lwmm.demo.streets.canvas import ROAD, SKY, Camera, Canvas, glow_of, labels_of
from hf_lwmm.demo.streets.looks import Look

_NOISE = np.random.default_rng(1).standard_normal(1 << 20, np.float32)  # frames start at random places
_COLD = [round(tone * gain) for gain in (0.86, 0.92, 1.1) for tone in range(256)]
_HALF = [tone // 2 for tone in range(256)] * 3


def finish_by_day(canvas: Canvas, codes: np.ndarray, rng: np.random.Generator, look: Look) -> np.ndarray:
    """Return a photograph by day, perhaps with a dark street at dusk: (h, w, 3) uint8."""
    scene = canvas.colours
    if rng.random() < look.dusk:
        share = rng.uniform(0.4, 0.8)
        shadow = scene.point([round(tone * share) for tone in range(256)] * 3)
        scene = Image.composite(scene, shadow, Image.fromarray(labels_of(codes) == SKY))
    return _photograph(scene, rng, look)


def finish_by_night(canvas: Canvas, codes: np.ndarray, rng: np.random.Generator, look: Look) -> np.ndarray:
    """Return a photograph by night, with lamps, halos, rain and reflections on the wet road: (h, w, 3) uint8."""
    size, glow = canvas.colours.size, Image.fromarray(glow_of(codes))
    cold = canvas.colours.point(_COLD)
    light = _lamp_light(canvas, rng).resize(size, Image.Resampling.BILINEAR)
    scene = ImageChops.multiply(cold, Image.merge("RGB", [light] * 3))
    scene.paste(canvas.colours, mask=glow)
    _wet_road(scene, int(canvas.camera.horizon), labels_of(codes) == ROAD, rng)
    scene = ImageChops.add(scene, _halo(Image.composite(canvas.colours, Image.new("RGB", size), glow)))
    scene = ImageChops.add(scene, _rain(canvas.camera, rng).convert("RGB"))
    return _photograph(scene, rng, look)


def _wet_road(scene: Image.Image, horizon: int, road: np.ndarray, rng: np.random.Generator) -> None:
    """Mirror the part of the scene above the horizon, blurred, on the road below it."""
    width, height = scene.size
    small, deep = (width // 8, max(height // 12, 1)), height - horizon
    ahead = scene.crop((0, 0, width, horizon)).resize(small, Image.Resampling.BOX)
    mirror = ahead.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((width, deep), Image.Resampling.BILINEAR)
    darker = scene.crop((0, horizon, width, height)).point(_HALF)
    share = Image.fromarray(road[horizon:] * np.uint8(255 * rng.uniform(0.25, 0.6)))
    scene.paste(ImageChops.add(mirror, darker), (0, horizon), share)


def _lamp_light(canvas: Canvas, rng: np.random.Generator) -> Image.Image:
    """Return the light from the dim sky, street lamps and our headlights, at an eighth of the resolution."""
    camera = canvas.camera
    wide, tall = camera.width // 8, camera.height // 8
    v, u = np.arange(tall, dtype=np.float32)[:, None] * 8 + 4, np.arange(wide, dtype=np.float32) * 8 + 4
    light = np.full((tall, wide), rng.uniform(0.2, 0.5), np.float32)
    for lamp in canvas.lamps:
        foot_u, foot_v = camera.project((lamp[0], 0.0, lamp[2]))
        scale = camera.focal / lamp[2]
        rise = np.where(v < foot_v, np.float32(5 * scale), np.float32(1.2 * scale))
        light += 0.4 * np.exp(-(((v - foot_v) / rise) ** 2)) * np.exp(-(((u - foot_u) / (5 * scale)) ** 2))
    below = np.maximum(v - camera.horizon, 1)
    depth = camera.focal * camera.above / below
    beam = np.exp(-(((depth - 9) / 9) ** 2)) * np.exp(-(((u - camera.centre) * depth / camera.focal / 4.5) ** 2))
    light += np.float32(rng.uniform(0.1, 0.4)) * beam * (v > camera.horizon)
    return _picture(255 * light)


def _picture(scene: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))


def _halo(shining: Image.Image) -> Image.Image:
    """Return the glow around shining pixels: the sum of a wide and a narrow one."""
    small = shining.reduce(4)
    wide, narrow = (_twice_blurred(small, small.width / share) for share in (45, 130))
    glow = 0.7 * np.asarray(wide, np.float32) + 0.6 * np.asarray(narrow, np.float32)
    return _picture(glow).resize(shining.size, Image.Resampling.BILINEAR)


def _twice_blurred(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.BoxBlur(radius)).filter(ImageFilter.BoxBlur(radius))


def _rain(camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Return an image of slanted streaks of rain."""
    layer = Image.new("L", (camera.width, camera.height))
    pen, slant = ImageDraw.Draw(layer), rng.uniform(-0.3, 0.3)
    streaks = rng.random((int(rng.uniform(30, 160) * camera.width / 320), 4))
    for u, v, long, bright in streaks:
        u, v, length = u * (camera.width + 40) - 20, v * camera.height, (0.02 + 0.05 * long) * camera.height
        pen.line([(u, v), (u + slant * length, v + length)], fill=int(6 + 18 * bright))
    return layer


def _photograph(scene: Image.Image, rng: np.random.Generator, look: Look) -> np.ndarray:
    """Apply tint, exposure, saturation, contrast, lens blur and sensor noise: (h, w, 3) uint8."""
    warmth, exposure = rng.uniform(*look.warmth) ** 0.5, rng.uniform(*look.exposure)
    gains = np.asarray((warmth, 1.0, 1 / warmth)) * exposure
    keep = rng.uniform(*look.saturation)
    matrix = np.zeros((3, 4))
    matrix[:, :3] = (keep * np.eye(3) + (1 - keep) / 3) * gains
    image = scene.convert("RGB", tuple(matrix.ravel().tolist()))
    contrast = rng.uniform(*look.contrast)
    tones = np.arange(256) / 255
    curve = tones + contrast * (tones * tones * (3 - 2 * tones) - tones)
    image = image.point(np.rint(255 * curve).astype(int).tolist() * 3)
    blur, noise = rng.uniform(*look.blur) * scene.width / 320, np.float32(rng.uniform(*look.noise))
    if blur > 0:
        image = image.filter(ImageFilter.BoxBlur(blur))
    if noise <= 0:
        return np.array(image)
    start, values = int(rng.integers(len(_NOISE) // 2)), 3 * image.width * image.height
    sensor = np.resize(_NOISE[start : start + values], (image.height, image.width, 3)) * noise
    sensor += np.asarray(image)
    np.clip(sensor, 0, 255, out=sensor)
    noisy: np.ndarray = sensor.astype(np.uint8)
    return noisy
