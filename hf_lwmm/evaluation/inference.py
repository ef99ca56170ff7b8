"""Run networks on pictures, whole or in windows, and average the softmax of views and of several networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from hf_lwmm.data.annotations import Boxes
from hf_lwmm.errors import HfLwmmError, PlanError, first_line, reason
from hf_lwmm.evaluation.class_map import ClassMap, Logits, Size, average, best_classes
from hf_lwmm.evaluation.pictures import PLAIN, Picture, View, prepared
from hf_lwmm.labels import matching_rows, normalise
from hf_lwmm.networks.finite import check_outputs
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.networks.one_row import with_background
from hf_lwmm.networks.windows import window_boxes

_SMALLEST = 64  # pixels of a side that every network takes


@torch.inference_mode()
def predict_logits(
    loaded: LoadedModel, pictures: Sequence[Image.Image | Picture], view: View = PLAIN[0]
) -> list[Logits]:
    """Return the logits of one view of each picture.

    Pictures that the image processor brings to the same size pass the network together. Its `window` and `stride`, if
    it has them, ask for sliding windows. Pictures that are too small for a network are continued by their last row and
    column. A head of one row has the logits of two classes, as `LoadedModel.classes` has their names.

    Raises:
        PlanError: if the network cannot take pictures of this size.
        OutputError: if logits are not finite.
    """
    found: dict[int, Logits] = {}
    ready = prepared(pictures, [loaded], [view])
    for members, pixels in _batches(loaded, ready, view):
        with naming_size(loaded, pixels):
            logits = _logits_of_any_size(loaded, pixels)
        for member, each in zip(members, logits, strict=True):
            check_outputs(loaded, each.logits, pixels, ready[member].name)
        if loaded.task == "semantic":
            logits = [replace(each, logits=tuple(map(with_background, each.logits))) for each in logits]
        found |= zip(members, map(_mirrored, logits) if view.mirrored else logits, strict=True)
    return [found[index] for index in range(len(pictures))]


def _logits_of_any_size(loaded: LoadedModel, pixels: Tensor) -> list[Logits]:
    processor = loaded.image_processor
    window, corners = getattr(processor, "window", None), bool(getattr(processor, "align_corners", False))
    stride, (height, width) = getattr(processor, "stride", None), pixels.shape[-2:]
    try:
        return window_logits(loaded.model, pixels, window, stride, align_corners=corners)
    except RuntimeError:
        if min(height, width) >= _SMALLEST:
            raise
    tall, wide = max(height, _SMALLEST), max(width, _SMALLEST)
    continued = nn.functional.pad(pixels, (0, wide - width, 0, tall - height), mode="replicate")
    found = window_logits(loaded.model, continued, window, stride, align_corners=corners)
    return [replace(each, boxes=each.boxes or ((0, tall, 0, wide),), size=(height, width)) for each in found]


@torch.inference_mode()
def window_logits(
    model: Callable[[Tensor], Any],
    pixels: Tensor,
    window: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    *,
    align_corners: bool = False,
) -> list[Logits]:
    """Return the logits of a network for each of N images, whole or in windows.

    Args:
        model: the network.
        pixels: (N, 3, H, W), as the image processor makes them.
        window: height and width of the windows; None for whole images. An image smaller than a window is one window.
        stride: the vertical and the horizontal step from one window to the next; the size of the window if None.
        align_corners: how the code base of the network resizes logits.
    """
    size = (pixels.shape[-2], pixels.shape[-1])
    boxes = window_boxes(size, window, stride or window) if window else [(0, size[0], 0, size[1])]
    logits = [model(pixels[..., y1:y2, x1:x2]).logits.float() for y1, y2, x1, x2 in boxes]
    placed = tuple(boxes) if window else ()
    return [Logits(tuple(each[row] for each in logits), align_corners, placed, size) for row in range(len(pixels))]


@contextmanager
def naming_size(loaded: LoadedModel, pixels: Tensor, where: str = "") -> Iterator[None]:
    """Name the network and the size of (N, 3, H, W) pixels if it cannot take them: too few, or too many.

    `where` begins the message.

    Raises:
        PlanError: in place of torch's RuntimeError, and of any error of a network of the user's own code.
    """
    height, width = pixels.shape[-2:]
    size = f"{height} x {width} pixels"
    try:
        yield
    except RuntimeError as error:
        raise PlanError(f"{where}{loaded.label} cannot take {size}: {first_line(error)}") from error
    except HfLwmmError:
        raise
    except Exception as error:
        if not loaded.own_code:
            raise
        raise PlanError(f"{where}{loaded.label}: its network fails on {size}: {reason(error)}") from error


def _mirrored(found: Logits) -> Logits:
    boxes = tuple((y1, y2, found.size[1] - x2, found.size[1] - x1) for y1, y2, x1, x2 in found.boxes)
    return replace(found, logits=tuple(each.flip(-1) for each in found.logits), boxes=boxes)


def _batches(loaded: LoadedModel, pictures: Sequence[Picture], view: View) -> list[tuple[list[int], Tensor]]:
    """The numbers of the images of each size, with their pixels, (N, 3, h, w)."""
    pixels = [each.pixels(loaded, view) for each in pictures]
    sizes: dict[Size, list[int]] = {}
    for index, each in enumerate(pixels):
        sizes.setdefault((each.shape[-2], each.shape[-1]), []).append(index)
    # Joined, they are a copy, even of one: networks of others may overwrite what they are given.
    return [(members, torch.cat([pixels[index] for index in members])) for members in sizes.values()]


def segment(
    models: Sequence[LoadedModel],
    pictures: Sequence[Image.Image | Picture],
    sizes: Sequence[Size] | None = None,
    views: Sequence[View] = PLAIN,
) -> list[ClassMap]:
    """Return the class map of each picture, (height, width) uint8, in the classes of the first network.

    Args:
        models: one network, or several whose softmax outputs are averaged, like the ensembles of the paper's Table 1.
        pictures: the pictures.
        sizes: height and width of each map; those of the pictures if None.
        views: the views of each picture to average over.

    Raises:
        PlanError: if a network shares no class name with the first.
        OutputError: if a network computes what is not finite.
    """
    ready = prepared(pictures, models, views)
    logits = [predict_logits(loaded, ready, view) for loaded in models for view in views]
    gather = [rows_of_classes(models[0], loaded) for loaded in models for _ in views]
    sizes = sizes or [picture.size for picture in ready]
    return [best_classes([each[i] for each in logits], size, gather) for i, size in enumerate(sizes)]


def rows_of_classes(first: LoadedModel, other: LoadedModel) -> Tensor | None:
    """Return the row in another network's output for each class of the first, -1 for a class that it does not know.

    Classes are the same if their names are, or mean the same. None stands for networks with the same classes.

    Raises:
        PlanError: if the networks share no class.
    """
    mine, theirs = ([normalise(name) for name in loaded.classes] for loaded in (first, other))
    if mine == theirs:
        return None
    rows = matching_rows(mine, theirs)
    if max(rows) < 0:
        raise PlanError(f"{first.label} and {other.label} share no class name, so their outputs cannot be averaged.")
    return torch.tensor(rows)


@torch.inference_mode()
def classify(
    models: Sequence[LoadedModel], pictures: Sequence[Image.Image | Picture], views: Sequence[View] = PLAIN
) -> list[int]:
    """Return the most probable class of each whole picture, an index of the first network's classes.

    The softmax outputs of several networks and views are averaged; one row is a sigmoid, and the first class then the
    background.

    Raises:
        PlanError: if a network shares no class name with the first.
        OutputError: if a network computes what is not finite.
    """
    ready = prepared(pictures, models, views)
    found: list[list[Tensor]] = [[] for _ in pictures]
    gather: list[Tensor | None] = []
    for loaded in models:
        for view in views:
            gather.append(rows_of_classes(models[0], loaded))
            for members, pixels in _batches(loaded, ready, view):
                with naming_size(loaded, pixels):
                    outputs = with_background(loaded.model(pixels).logits.float().cpu(), -1)
                for member, logits in zip(members, outputs, strict=True):
                    check_outputs(loaded, logits, pixels, ready[member].name)
                    found[member].append(logits[None])
    return [int(average(each, gather).argmax()) for each in found]


@torch.inference_mode()
def panoptic(loaded: LoadedModel, picture: Image.Image | Picture, size: Size | None = None) -> NDArray[np.int64]:
    """Return the panoptic map of a picture, (height, width) int64, which is as large as the picture if `size` is None.

    Ids are class * label_divisor + number, and 255 * label_divisor where there is no segment; `label_divisor` is in the
    configuration of the network.

    Raises:
        OutputError: if the network computes what is not finite.
    """
    model: Any = loaded.model
    (ready,) = prepared([picture], [loaded])
    pixels = ready.pixels(loaded)
    with naming_size(loaded, pixels):
        outputs = model(pixels)
    check_outputs(loaded, outputs, pixels, ready.name)
    codes: Tensor = model.post_process_panoptic(outputs, [size or ready.size])[0]
    return codes.cpu().numpy()


@torch.inference_mode()
def detect(loaded: LoadedModel, picture: Image.Image | Picture) -> Boxes:
    """Return all objects that a network offers for a picture, however low their scores; boxes are in its pixels.

    Raises:
        OutputError: if the network computes what is not finite.
    """
    (ready,) = prepared([picture], [loaded])
    inputs = ready.on_device(loaded)
    pixels = ready.pixels(loaded)
    with naming_size(loaded, pixels):
        outputs = loaded.model(**inputs)
    check_outputs(loaded, outputs, pixels, ready.name)
    processed = loaded.image_processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[ready.size])[
        0
    ]
    boxes, labels, scores = (processed[name].float().cpu().numpy() for name in ("boxes", "labels", "scores"))
    return Boxes(boxes.reshape(-1, 4), labels.astype(np.int64), scores)
