"""Time Pillow and kornia-rs on the kinds of files that an evaluation reads, in one process with one thread.

    python scripts/bench/decoding.py [--runs 15] [--no-inference]

Each file holds one frame of 1024x2048 pixels. The two decoders take turns, and the last column says whether they give
the same values. Beside it stands what a frame costs SegFormer-B0 on this processor, with the labels of one frame and
its camera picture as a share of that.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from metrics import CELLS, HEIGHT, ONE_THREAD, WIDTH, Frame, make_frame, measure, segformer
from PIL import Image

Decoder = Callable[[bytes], np.ndarray]


def camera(frame: Frame) -> Image.Image:
    """Paint each segment in a colour that fades over the frame, and add the noise of a sensor."""
    random = np.random.default_rng(1)
    colours = random.integers(40, 215, (CELLS + 1, 3))[frame.truth.ids]
    shade = np.linspace(-30, 30, WIDTH)[None, :, None] + random.normal(0, 2, (HEIGHT, WIDTH, 3))
    return Image.fromarray((colours + shade).clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def files(frame: Frame) -> dict[str, tuple[bytes, str]]:
    """The files by the names of their kinds, each with what kornia-rs calls their channels."""
    ids = frame.truth.ids
    segments = np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
    palette = Image.fromarray(frame.label)
    palette.putpalette(np.random.default_rng(2).integers(0, 256, 768, np.uint8).tobytes())
    picture = camera(frame)
    return {
        "label PNG, grey": (encoded(Image.fromarray(frame.label), "PNG"), "mono"),
        "label PNG, palette": (encoded(palette, "PNG"), "mono"),
        "label PNG, grey of 16 bits": (encoded(Image.fromarray(ids.astype(np.uint16)), "PNG"), "mono"),
        "panoptic PNG, colours": (encoded(Image.fromarray(segments), "PNG"), "rgb"),
        "camera PNG": (encoded(picture, "PNG"), "rgb"),
        "camera JPEG": (encoded(picture, "JPEG", quality=90), "rgb"),
        "camera JPEG, progressive": (encoded(picture, "JPEG", quality=90, progressive=True), "rgb"),
    }


def with_pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture)


def with_kornia(channels: str, kind: str) -> Decoder:
    module = importlib.import_module("kornia_rs.io")
    if "JPEG" in kind:
        return lambda content: np.asarray(module.decode_image_jpegturbo(content, channels))
    decode = module.decode_image_png_u16 if "16 bits" in kind else module.decode_image_png_u8

    def read(content: bytes) -> np.ndarray:
        values = np.asarray(decode(content, (HEIGHT, WIDTH), channels))
        return values[..., 0] if channels == "mono" else values

    return read


def agreement(content: bytes, other: Decoder) -> str:
    """Say whether a decoder gives the values that Pillow gives."""
    expected, found = with_pillow(content), other(content)
    if expected.shape != found.shape:
        return f"no, {found.shape} in place of {expected.shape}"
    unlike = int((expected != found).sum())
    return f"no, {unlike / expected.size:.1%} of the values differ" if unlike else "yes"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--no-inference", action="store_true", help="do not run SegFormer-B0 for comparison")
    arguments = parser.parse_args()
    if not ONE_THREAD.items() <= os.environ.items():  # libraries read it when they are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    frame = make_frame(0)
    spent: dict[str, dict[str, float]] = {}
    for kind, (content, channels) in files(frame).items():
        decoders: dict[str, Callable[[], Decoder]] = {
            "Pillow": lambda: with_pillow,
            "kornia-rs": lambda channels=channels, kind=kind: with_kornia(channels, kind),
        }
        spent[kind] = measure(kind, {name: timed(make, content) for name, make in decoders.items()}, arguments.runs)
        try:
            print(f"\nThe same values: {agreement(content, with_kornia(channels, kind))}.")
        except Exception as error:  # what keeps a decoder from reading a kind is what there is to say about it
            print(f"\nThe same values: not read ({str(error).splitlines()[0][:80]}).")
    if arguments.no_inference:
        return
    (inference,) = measure(
        "Inference, 1 image", {"SegFormer-B0 on this processor": lambda: segformer(frame)}, 2
    ).values()
    for label, picture in (("label PNG, grey", "camera PNG"), ("panoptic PNG, colours", "camera JPEG")):
        for decoder in spent[label].keys() & spent[picture].keys():
            both = spent[label][decoder] + spent[picture][decoder]
            print(f"\n{decoder}: {label} and {picture} take {both:.1f} ms, {both / inference:.2%} of inference.")


def timed(make: Callable[[], Decoder], content: bytes) -> Callable[[], Callable[[], float]]:
    """Adapt a decoder to what `measure` runs: a maker of functions that run once and give a score."""

    def maker() -> Callable[[], float]:
        decode = make()

        def once() -> float:
            decode(content)
            return float("nan")

        return once

    return maker


if __name__ == "__main__":
    main()
