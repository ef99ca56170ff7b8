"""Frames for training: rendered ones from a cache, a target's from a folder, and the views that batches show of them.

Images are uint8 (height, width, 3) at rest and float32 (N, 3, height, width) in [0, 1] in a batch; labels hold the
eleven classes of `streets.CLASSES` and 255.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from torch import Tensor
from torch.nn import functional

from scripts.uda.streets import CLASSES, IGNORE, render

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frames:
    """Images of one size, with labels and instances where there are any."""

    images: np.ndarray  # (n, h, w, 3) uint8
    labels: np.ndarray | None = None  # (n, h, w) uint8
    instances: np.ndarray | None = None  # (n, h, w) uint8; 0 = none

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def shares(self) -> np.ndarray:
        """(n, classes) share of each frame that shows each class."""
        assert self.labels is not None
        counts = [np.bincount(labels.ravel(), minlength=256)[: len(CLASSES)] for labels in self.labels]
        return np.asarray(counts, np.float64) / self.labels[0].size


@dataclass(frozen=True)
class View:
    """How a batch looks at frames."""

    size: tuple[int, int]  # height, width of a crop
    zoom: tuple[float, float] = (1.0, 1.0)  # size of the frame, drawn log-uniformly
    rarity: float = 0.0  # temperature at which source frames with rare classes are preferred; 0 = never
    jitter: float = 0.0  # strength of random exposure, contrast, colour, blur and noise on source images
    transfer: float = 0.0  # chance that a source image takes the colour statistics of a target image


@dataclass(frozen=True)
class Batch:
    """Source crops with labels, and crops of the unlabelled target."""

    images: Tensor  # (N, 3, h, w)
    labels: Tensor  # (N, h, w) int64
    instances: Tensor  # (N, h, w) int64; 0 where there is none
    target: Tensor  # (N, 3, h, w)


def rendered(cache: Path, style: str, first: int, count: int, size: tuple[int, int] = (320, 240)) -> Frames:
    """Frames of seeds first..first + count - 1, rendered once for each version of the renderer.

    `size` is (width, height). Another process that renders the same frames meanwhile does no harm.
    """
    folder = cache / f"{style}-{first}-{count}-{size[0]}x{size[1]}-{_renderer_version()}"
    if not folder.exists():
        log.info("rendering %d frames into %s", count, folder)
        working = folder.with_name(f"{folder.name}.{os.getpid()}")
        working.mkdir(parents=True, exist_ok=True)
        width, height = size
        images = open_memmap(working / "images.npy", "w+", np.uint8, (count, height, width, 3))
        labels = open_memmap(working / "labels.npy", "w+", np.uint8, (count, height, width))
        instances = open_memmap(working / "instances.npy", "w+", np.uint8, (count, height, width))
        for index in range(count):
            scene = render(style, first + index, size)
            images[index], labels[index], instances[index] = scene.image, scene.labels, scene.instances
        for array in (images, labels, instances):
            array.flush()
        if not folder.exists():
            working.rename(folder)
    return Frames(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels", "instances")))


def joined(sets: Sequence[Frames]) -> Frames:
    """Several sets of rendered frames as one, in memory."""
    parts = zip(*((frames.images, frames.labels, frames.instances) for frames in sets), strict=True)
    return Frames(*(np.concatenate(arrays) for arrays in parts))


def _renderer_version() -> str:
    sources = sorted(Path(__file__).parent.glob("street*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


def folder_of_images(folder: Path, *, labelled: bool) -> Frames:
    """The images/ of a split, and its labels/ only where they are asked for; class 11 (void) becomes 255."""
    names = sorted(path for path in (folder / "images").iterdir() if path.suffix in {".webp", ".png", ".jpg"})
    images = np.stack([np.asarray(Image.open(name).convert("RGB")) for name in names])
    if not labelled:
        return Frames(images)
    labels = np.stack([np.asarray(Image.open(folder / "labels" / f"{name.stem}.png")) for name in names])
    return Frames(images, np.where(labels >= len(CLASSES), np.uint8(IGNORE), labels.astype(np.uint8)))


def draw_batch(source: Frames, target: Frames, count: int, view: View, rng: np.random.Generator) -> Batch:
    """A batch that depends on nothing but its arguments and `rng`."""
    target_crops = [_crop(target, int(rng.integers(len(target))), view, rng)[0] for _ in range(count)]
    images, labels, instances = [], [], []
    for _ in range(count):
        index, wanted = _preferred(source, view, rng)
        image, label, instance = _crop(source, index, view, rng, wanted)
        if rng.random() < view.transfer:
            image = _transfer(image, target.images[int(rng.integers(len(target)))], rng)
        images.append(image)
        labels.append(label)
        instances.append(instance)
    shown = _tensor(images)
    if view.jitter:
        shown = jitter(shown, view.jitter)
    return Batch(shown, _integers(labels), _integers(instances), _tensor(target_crops))


def _tensor(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255).contiguous()


def _integers(maps: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(maps).astype(np.int64))


def _preferred(source: Frames, view: View, rng: np.random.Generator) -> tuple[int, int | None]:
    """A frame, and the class it was chosen for (rare class sampling, Hoyer et al., CVPR 2022, Sec. 3.2)."""
    if not view.rarity:
        return int(rng.integers(len(source))), None
    frequency = source.shares.mean(0)
    present = frequency > 0
    weight = np.where(present, np.exp((1 - frequency) / view.rarity - (1 - frequency[present].min()) / view.rarity), 0)
    wanted = int(rng.choice(len(CLASSES), p=weight / weight.sum()))
    return int(rng.choice(np.flatnonzero(source.shares[:, wanted] > 0.001))), wanted


def _crop(
    frames: Frames, index: int, view: View, rng: np.random.Generator, wanted: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A zoomed, perhaps mirrored crop of image, labels and instances, zeros where there are none.

    Of a few tries it is the one that shows the wanted class most.
    """
    frame_height, frame_width = frames.images.shape[1:3]
    zoom = float(np.exp(rng.uniform(*np.log(view.zoom))))
    height, width = min(view.size[0] / zoom, frame_height), min(view.size[1] / zoom, frame_width)
    blank = np.zeros((frame_height, frame_width), np.uint8)
    labels = blank if frames.labels is None else frames.labels[index]
    instances = blank if frames.instances is None else frames.instances[index]
    best, box = -1, (0.0, 0.0, 0.0, 0.0)
    for _ in range(4 if wanted is not None else 1):
        top, left = rng.uniform(0, frame_height - height), rng.uniform(0, frame_width - width)
        shown = labels[int(top) : int(top + height) : 2, int(left) : int(left + width) : 2]
        seen = int((shown == wanted).sum())
        if seen > best:
            best, box = seen, (left, top, left + width, top + height)
    size = (view.size[1], view.size[0])
    image = np.asarray(Image.fromarray(frames.images[index]).resize(size, Image.Resampling.BILINEAR, box))
    label, instance = (
        np.asarray(Image.fromarray(part).resize(size, Image.Resampling.NEAREST, box)) for part in (labels, instances)
    )
    way = -1 if rng.random() < 0.5 else 1
    return image[:, ::way], label[:, ::way], instance[:, ::way]


def _transfer(image: np.ndarray, reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Part of the way to the reference's mean and deviation of each channel (after Reinhard et al., 2001)."""
    share = rng.uniform(0.3, 1)
    pixels, other = image.astype(np.float32), reference[::4, ::4].reshape(-1, 3).astype(np.float32)
    mean, deviation = pixels.mean((0, 1)), pixels.std((0, 1)) + 4
    moved = (pixels - mean) * ((other.std(0) + 4) / deviation) + other.mean(0)
    return np.clip(pixels + share * (moved - pixels), 0, 255).astype(np.uint8)


def jitter(images: Tensor, strength: float) -> Tensor:
    """Random exposure, gamma, contrast, saturation and tint of each image, and blur or noise of some; torch's seed."""

    def spread(*shape: int) -> Tensor:
        return 1 + strength * (2 * torch.rand(len(images), *shape) - 1)

    images = (images * spread(1, 1, 1) * (1 + 0.3 * (spread(3, 1, 1) - 1))).clamp(1e-4, 1)
    images = images ** spread(1, 1, 1).clamp(min=0.3)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * spread(1, 1, 1)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * spread(1, 1, 1).clamp(min=0)
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = torch.lerp(images, blurred, (torch.rand(len(images), 1, 1, 1) < 0.4) * torch.rand(len(images), 1, 1, 1))
    noise = 0.04 * torch.rand(len(images), 1, 1, 1) * (torch.rand(len(images), 1, 1, 1) < 0.4)
    return (images + noise * torch.randn_like(images)).clamp(0, 1)
