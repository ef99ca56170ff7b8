"""From pictures to class maps: whole images or windows, flips and scales, one network or several averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from hf_lwmm.datasets.labels import normalise
from hf_lwmm.errors import PlanError
from hf_lwmm.models.loading import LoadedModel
from hf_lwmm.models.windows import slide_inference

ClassMap = NDArray[np.uint8]
Size = tuple[int, int]  # height, width
_STRIP = 32  # rows of the full-size logits that exist at a time


@dataclass(frozen=True)
class View:
    """How a network looks at a picture: resized by a factor, mirrored."""

    scale: float = 1.0
    mirrored: bool = False


PLAIN = (View(),)


@dataclass(frozen=True)
class Scores:
    """A network's logits (C, h, w), at whatever size, and how its code base resizes them."""

    logits: Tensor
    align_corners: bool = False


def views(flip: bool = False, scales: Sequence[float] = (1.0,)) -> tuple[View, ...]:
    """Every scale, with its mirror image if `flip`."""
    return tuple(View(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,)))


@torch.inference_mode()
def look(loaded: LoadedModel, picture: Image.Image, view: View = PLAIN[0]) -> Scores:
    """The logits of one view of a picture.

    The image processor's `window` and `stride`, if it has them, ask for sliding windows; a picture that is smaller
    than a window is one.
    """
    pixels = _pixels(loaded, picture, view)
    window = getattr(loaded.image_processor, "window", None)
    corners = bool(getattr(loaded.image_processor, "align_corners", False))
    if window:
        stride = getattr(loaded.image_processor, "stride", None) or window
        logits = slide_inference(loaded.model, pixels, window, stride, align_corners=corners)[0]
    else:
        logits = loaded.model(pixels).logits[0]
    return Scores((logits.flip(-1) if view.mirrored else logits).float(), corners)


def _pixels(loaded: LoadedModel, picture: Image.Image, view: View) -> Tensor:
    pixels: Tensor = loaded.image_processor(picture, return_tensors="pt")["pixel_values"]
    if view.scale != 1:
        size = [round(length * view.scale) for length in pixels.shape[-2:]]
        pixels = nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
    weight: Any = next(loaded.model.parameters())
    return (pixels.flip(-1) if view.mirrored else pixels).to(weight.device, weight.dtype)


@torch.inference_mode()
def best_classes(scores: Sequence[Scores], size: Size, gather: Sequence[Tensor | None] = ()) -> ClassMap:
    """The most probable class of every pixel, (height, width) uint8; several scores average their softmax.

    Full-size logits exist only strip by strip. `gather` are, for networks with other label sets, the rows that the
    first network's classes have in them, -1 where a class is unknown; such a class is averaged over the others.
    """
    result = np.empty(size, np.uint8)
    for top in range(0, size[0], _STRIP):
        rows = slice(top, min(top + _STRIP, size[0]))
        strips = [resized_rows(each, size, rows) for each in scores]
        combined = strips[0] if len(strips) == 1 else _average(strips, gather or [None] * len(strips))
        result[rows] = combined.argmax(0).to(torch.uint8).cpu().numpy()
    return result


def _average(strips: Sequence[Tensor], gather: Sequence[Tensor | None]) -> Tensor:
    total, known = torch.zeros_like(strips[0]), torch.zeros(len(strips[0]), 1, 1, device=strips[0].device)
    for strip, rows in zip(strips, gather, strict=True):
        probabilities = strip.softmax(0)
        if rows is None:
            total += probabilities
            known += 1
        else:
            there = rows >= 0
            total[there] += probabilities[rows[there]]
            known[there] += 1
    return total / known.clamp(min=1)


def resized_rows(scores: Scores, size: Size, rows: slice) -> Tensor:
    """Some rows of the logits, resized bilinearly to (height, width): (C, rows, width)."""
    logits = scores.logits
    if logits.shape[-2:] == size:
        return logits[:, rows]
    height, scale = logits.shape[-2], _ratio(logits.shape[-2], size[0], scores.align_corners)
    wanted = torch.arange(rows.start, rows.stop, dtype=torch.float32, device=logits.device)
    place = wanted * scale if scores.align_corners else ((wanted + 0.5) * scale - 0.5).clamp(min=0)
    upper = place.floor().long().clamp(max=height - 1)
    lower = (upper + 1).clamp(max=height - 1)
    part = (place - upper)[:, None]
    strip = logits[:, upper] * (1 - part) + logits[:, lower] * part
    width = (strip.shape[1], size[1])
    return nn.functional.interpolate(strip[None], width, mode="bilinear", align_corners=scores.align_corners)[0]


def _ratio(length: int, wanted: int, align_corners: bool) -> float:
    if not align_corners:
        return length / wanted
    return (length - 1) / (wanted - 1) if wanted > 1 else 0.0


def segment(
    models: Sequence[LoadedModel], picture: Image.Image, size: Size | None = None, looks: Sequence[View] = PLAIN
) -> ClassMap:
    """The class map of a picture, (height, width) uint8, by one network or the average of several (paper, Table 1).

    Args:
        size: of the map; the picture's own if None.
        looks: views to average over.

    Raises:
        PlanError: if a network shares no class name with the first.
    """
    scores = [look(loaded, picture, view) for loaded in models for view in looks]
    gather = [rows_of_classes(models[0], loaded) for loaded in models for _ in looks]
    return best_classes(scores, size or (picture.height, picture.width), gather)


def rows_of_classes(first: LoadedModel, other: LoadedModel) -> Tensor | None:
    """The other network's row for each class of the first, -1 where it has none; None if they are the same."""
    mine, theirs = ([normalise(name) for name in loaded.classes] for loaded in (first, other))
    if mine == theirs:
        return None
    rows = [theirs.index(name) if name in theirs else -1 for name in mine]
    if max(rows) < 0:
        raise PlanError(f"{first.label} and {other.label} share no class name, so their outputs cannot be averaged.")
    return torch.tensor(rows)


@torch.inference_mode()
def classify(models: Sequence[LoadedModel], picture: Image.Image, looks: Sequence[View] = PLAIN) -> int:
    """The most probable class of a whole picture, by one network or the average of several networks' softmax."""
    total: Tensor | None = None
    for loaded in models:
        rows = rows_of_classes(models[0], loaded)
        for view in looks:
            weights: Tensor = loaded.model(_pixels(loaded, picture, view)).logits[0].float().softmax(0)
            if rows is not None:
                weights = torch.where(rows >= 0, weights[rows.clamp(min=0)], 0)
            total = weights if total is None else total + weights
    assert total is not None
    return int(total.argmax())


@torch.inference_mode()
def panoptic(loaded: LoadedModel, picture: Image.Image, size: Size | None = None) -> NDArray[np.int64]:
    """The panoptic map of a picture, (height, width): class * label_divisor + number, 255 * label_divisor for void."""
    model: Any = loaded.model
    outputs = model(_pixels(loaded, picture, PLAIN[0]))
    codes: Tensor = model.post_process_panoptic(outputs, [size or (picture.height, picture.width)])[0]
    return codes.cpu().numpy()
