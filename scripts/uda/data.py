"""Training data: frames rendered into a cache or read from a folder, and batches of their crops.

Stored images are (height, width, 3) uint8; the images of a batch are (N, 3, height, width) float32 in [0, 1]. Labels
are the indices of `streets.CLASSES`, and 255 for unlabelled pixels.
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

from hf_lwmm.demo import streets
from hf_lwmm.demo.streets import CLASSES, IGNORE, render

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frames:
    """Images of one size, with labels and instances if known."""

    images: np.ndarray  # (n, h, w, 3) uint8
    labels: np.ndarray | None = None  # (n, h, w) uint8
    instances: np.ndarray | None = None  # (n, h, w) uint8; 0 = no instance

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def shares(self) -> np.ndarray:
        """The share of each frame's pixels that each class has: (n, classes) float64."""
        assert self.labels is not None
        counts = [np.bincount(labels.ravel(), minlength=256)[: len(CLASSES)] for labels in self.labels]
        return np.asarray(counts, np.float64) / self.labels[0].size


@dataclass(frozen=True)
class View:
    """Settings for drawing crops from frames, and for changing their colours."""

    size: tuple[int, int]  # height and width of a crop
    zoom: tuple[float, float] = (1.0, 1.0)  # range of scales, drawn log-uniformly
    rarity: float = 0.0  # temperature of the preference for source frames with rare classes; 0 = none
    jitter: float = 0.0  # strength of random exposure, contrast, colour, blur and noise on source images
    transfer: float = 0.0  # probability of moving a source image's colours towards those of a target image


@dataclass(frozen=True)
class Batch:
    """Crops of the source with labels, and crops of the unlabelled target."""

    images: Tensor  # (N, 3, h, w)
    labels: Tensor  # (N, h, w) int64
    instances: Tensor  # (N, h, w) int64; 0 = no instance
    target: Tensor  # (N, 3, h, w)


def rendered(cache: Path, style: str, first: int, count: int, size: tuple[int, int] = (320, 240)) -> Frames:
    """Return rendered frames, from the cache if this version of the renderer has drawn them before.

    Several processes may render the same frames at once.

    Args:
        cache: folder of the cache.
        style: one of `streets.STYLES`.
        first, count: the seeds are `first` to `first + count - 1`.
        size: (width, height) in pixels.
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
    """Join several sets of rendered frames, in memory."""
    parts = zip(*((frames.images, frames.labels, frames.instances) for frames in sets), strict=True)
    return Frames(*(np.concatenate(arrays) for arrays in parts))


def _renderer_version() -> str:
    sources = sorted(Path(streets.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


def folder_of_images(folder: Path, *, labelled: bool) -> Frames:
    """Read the images/ of a split and, if `labelled`, its labels/, where class 11 (void) becomes 255."""
    names = sorted(path for path in (folder / "images").iterdir() if path.suffix in {".webp", ".png", ".jpg"})
    images = np.stack([np.asarray(Image.open(name).convert("RGB")) for name in names])
    if not labelled:
        return Frames(images)
    labels = np.stack([np.asarray(Image.open(folder / "labels" / f"{name.stem}.png")) for name in names])
    return Frames(images, np.where(labels >= len(CLASSES), np.uint8(IGNORE), labels.astype(np.uint8)))


def draw_batch(source: Frames, target: Frames, count: int, view: View, rng: np.random.Generator) -> Batch:
    """Draw a batch that depends only on the arguments, `rng` and torch's global generator.

    Args:
        source: labelled frames.
        target: frames without labels.
        count: number of crops of each.
        view: settings of the crops.
        rng: generator of the crops.
    """
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
    """Draw a frame, with the class it was chosen for (rare class sampling, Hoyer et al., CVPR 2022, Sec. 3.2)."""
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
    """Draw a scaled crop of image, labels and instances, mirrored half of the time; unknown maps are all 0.

    If a class is wanted, this is the crop, out of four, with the most pixels of it.
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
    """Move the mean and deviation of each channel part of the way to the reference's (after Reinhard et al., 2001)."""
    share = rng.uniform(0.3, 1)
    pixels, other = image.astype(np.float32), reference[::4, ::4].reshape(-1, 3).astype(np.float32)
    mean, deviation = pixels.mean((0, 1)), pixels.std((0, 1)) + 4
    moved = (pixels - mean) * ((other.std(0) + 4) / deviation) + other.mean(0)
    return np.clip(pixels + share * (moved - pixels), 0, 255).astype(np.uint8)


def jitter(images: Tensor, strength: float) -> Tensor:
    """Change exposure, gamma, contrast, saturation and tint of each image at random, and blur or add noise to some.

    Args:
        images: (N, 3, H, W) in [0, 1].
        strength: range of the changes; 0 leaves only blur and noise.

    Returns:
        (N, 3, H, W) in [0, 1], drawn with torch's global generator.
    """

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
