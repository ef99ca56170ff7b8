"""Prepare pictures for a network as its own code base does, and turn its outputs into maps of classes or boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import BatchFeature, TensorType
from transformers.image_processing_utils import BaseImageProcessor

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

Picture = Image.Image | NDArray[Any] | Tensor

_SIZES = ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"})


class SegmentationImageProcessor(BaseImageProcessor):
    """Resize, crop, order the channels, and normalise: (value * rescale_factor - mean) / std.

    Args:
        size: {"height", "width"} in pixels; or {"shortest_edge"}, optionally with a {"longest_edge"} that must not be
            exceeded, which keeps proportions; None leaves images as large as they are.
        resample: PIL's number of the filter; 2 is bilinear, 3 bicubic.
        crop_size: {"height", "width"} of the centre that is kept after resizing; None keeps all.
        channel_order: "RGB" or "BGR"; mean and std are in this order.
        rescale_factor: factor for values from 0 to 255, before mean and std.
        align_corners: whether logits are resized to the image with aligned corners (bilinear).
        window, stride: (height, width) of the sliding windows that the network is applied to, and the step between
            them; None for the whole image at once.

    Raises:
        ValueError: for another order of channels, or a size with other keys.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  (transformers' own interface)

    def __init__(
        self,
        size: Mapping[str, int] | None = None,
        resample: int = 2,
        crop_size: Mapping[str, int] | None = None,
        channel_order: str = "RGB",
        rescale_factor: float = 1.0,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        align_corners: bool = False,
        window: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        # The mixin's own constructor keeps what it does not know; the one between prepares backends that are not used.
        super(BaseImageProcessor, self).__init__(**kwargs)
        if channel_order not in ("RGB", "BGR"):
            raise ValueError(f"channel_order is {channel_order!r}; it can be RGB or BGR.")
        if size and set(size) not in _SIZES:
            raise ValueError(f"size has {', '.join(size)}; it can have height and width, or shortest_edge.")
        if crop_size and set(crop_size) != _SIZES[0]:
            raise ValueError(f"crop_size has {', '.join(crop_size)}; it can have height and width.")
        self.size = dict(size) if size else None
        self.resample = resample
        self.crop_size = dict(crop_size) if crop_size else None
        self.channel_order = channel_order
        self.rescale_factor = rescale_factor
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.align_corners = align_corners
        self.window = list(window) if window else None
        self.stride = list(stride) if stride else None

    def to_dict(self) -> dict[str, Any]:
        """Return the content of preprocessor_config.json."""
        return {**vars(self), "image_processor_type": type(self).__name__}

    def preprocess(
        self, images: Picture | Sequence[Picture], return_tensors: str | TensorType | None = None
    ) -> BatchFeature:
        """Prepare a picture or a list of pictures.

        Args:
            images: pictures as `as_rgb` takes them.
            return_tensors: "pt" or "np" for one array, or None for a list, as in the processors of transformers.

        Returns:
            `pixel_values`: a float32 tensor (N, 3, H, W), such an array, or a list of N float32 arrays (3, H, W), which
            may differ in size.

        Raises:
            ValueError: for something that is no picture, or if pictures of several sizes should make one array.
        """
        pictures: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        arrays = [self._normalised(as_rgb(picture)) for picture in pictures]
        if return_tensors is not None and len({array.shape for array in arrays}) > 1:
            sizes = sorted({f"{array.shape[2]}x{array.shape[1]}" for array in arrays})
            raise ValueError(f"Images of several sizes ({', '.join(sizes)}) make no batch; give them one by one.")
        return BatchFeature({"pixel_values": arrays}, tensor_type=return_tensors)

    def _normalised(self, picture: Image.Image) -> NDArray[np.float32]:
        if self.size:
            picture = picture.resize(_resized(picture.size, self.size), self.resample)
        if self.crop_size:
            width, height = self.crop_size["width"], self.crop_size["height"]
            left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
            picture = picture.crop((left, top, left + width, top + height))
        values = np.asarray(picture, np.float32)
        if self.channel_order == "BGR":
            values = values[..., ::-1]
        scale, mean, std = (np.asarray(x, np.float32) for x in (self.rescale_factor, self.image_mean, self.image_std))
        return np.ascontiguousarray(((values * scale - mean) / std).transpose(2, 0, 1), np.float32)

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[Tensor]:
        """Return the best class of every pixel, a (height, width) int64 map for each image.

        Args:
            outputs: a network's output with `logits` (N, C, h, w).
            target_sizes: (height, width) of each map; the logits' own size if None.
        """
        logits = outputs.logits
        if target_sizes is None:
            return list(logits.argmax(dim=1))
        return [
            nn.functional.interpolate(one[None], size, mode="bilinear", align_corners=self.align_corners)[0].argmax(0)
            for one, size in zip(logits, map(tuple, target_sizes), strict=True)
        ]

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.5, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, Tensor]]:
        """Return the objects in each image: `boxes` (K, 4) x1, y1, x2, y2 of their edges, `scores` and `labels` (K,).

        Args:
            outputs: the output of a network whose `boxes` end at their last pixels.
            threshold: the score that boxes must be above.
            target_sizes: (height, width) of the images that boxes are scaled to; the network's input if None.
        """
        found = []
        sizes = target_sizes or [outputs.input_size] * len(outputs.boxes)
        for boxes, labels, size in zip(outputs.boxes, outputs.box_labels, sizes, strict=True):
            y, x = (int(wanted) / given for wanted, given in zip(size, outputs.input_size, strict=True))
            edges = boxes[:, :4].double() * boxes.new_tensor([x, y, x, y], dtype=torch.float64)
            edges[:, 2:] += 1  # in pixels of the image, as maskrcnn-benchmark's evaluation counts
            kept = boxes[:, 4] > threshold
            found.append({"boxes": edges[kept].to(boxes.dtype), "scores": boxes[kept, 4], "labels": labels[kept]})
        return found


def _resized(size: tuple[int, int], wanted: Mapping[str, int]) -> tuple[int, int]:
    """Return (width, height) after resizing; proportions are kept, and halves are rounded up, as mmcv does."""
    if "height" in wanted:
        return wanted["width"], wanted["height"]
    scale = wanted["shortest_edge"] / min(size)
    if "longest_edge" in wanted:
        scale = min(scale, wanted["longest_edge"] / max(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def as_rgb(picture: Picture) -> Image.Image:
    """Convert any picture to 8-bit RGB: of 16-bit values the upper 8 bits are kept, and transparency is dropped.

    Args:
        picture: a PIL image, or an array or tensor (H, W), (H, W, 1 | 3 | 4) or (1 | 3 | 4, H, W). Integers count as
            16-bit if their dtype is, or if a value is above 255; floats range from 0 to 1.

    Raises:
        ValueError: for something that is no picture, or for values that no picture has.
    """
    if isinstance(picture, Image.Image) and picture.mode[0] not in "IF":
        return picture.convert("RGB")
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu()
        picture = picture.float() if picture.is_floating_point() else picture
    values = np.asarray(picture)
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[2] not in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or not values.size:
        raise ValueError(f"An array of shape {values.shape} is no picture: give (H, W), (H, W, 3) or (3, H, W).")
    return Image.fromarray(_as_bytes(values)).convert("RGB")


def _as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "buif":
        raise ValueError(f"An array of type {values.dtype} is no picture: give integers, or floats from 0 to 1.")
    low, high = values.min(), values.max()
    if values.dtype.kind in "bf":
        if not (low >= 0 and high <= 1):  # so written, it refuses NaN too
            raise ValueError("Pictures of floats have values from 0 to 1; give uint8 for values to 255.")
        return np.round(values * 255.0).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"A picture has values from 0 to 255, or to 65535; this one has some from {low} to {high}.")
    deep = high > 255 or (values.dtype.kind == "u" and values.dtype.itemsize == 2)
    return (values >> 8 if deep else values).astype(np.uint8)
