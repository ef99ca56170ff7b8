"""Pictures with class maps that follow from a number, and data sets that hold them in order."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hf_lwmm.data.samples import LabelledImages


def scene(seed: int, classes: int = 4) -> tuple[Image.Image, np.ndarray]:
    draw = np.random.default_rng(seed)
    label = draw.integers(0, classes, (6, 8), np.uint8)
    return Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)), np.kron(label, np.ones((2, 2), np.uint8))


def check(images: LabelledImages, count: int = 3) -> None:
    """The samples are the scenes, in order."""
    assert images.count == count
    for seed, sample in enumerate(images):
        assert np.array_equal(np.asarray(sample.image), np.asarray(scene(seed)[0])) and sample.index == seed
        assert np.array_equal(sample.label, scene(seed)[1])
