"""Time class maps of 1024x2048 pixels, against logits that are resized as a whole, and check that they agree.

    python scripts/bench/class_map.py [--runs 9] [--threads 2]

The logits, of 19 classes at 256x512, are smooth noise: their neighbours disagree about the class in as many places as
those of trained networks on streets do. The plain way is `interpolate`, `softmax` and the mean where there are several
networks or views, and `argmax`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from hf_lwmm.evaluation.class_map import Logits, best_classes

CLASSES, SMALL, SIZE = 19, (256, 512), (1024, 2048)
COARSE = (12, 24)  # the noise has a value for each part of the picture
WINDOW = 1024  # with half of it shared with the next


def logits_of(seed: int, size: tuple[int, int] = SMALL) -> Tensor:
    """Return the logits of a network, which agrees with others in much."""
    noise = [torch.randn(1, CLASSES, *COARSE, generator=torch.Generator().manual_seed(each)) for each in (0, seed)]
    return interpolate(4 * noise[0] + noise[1], size, mode="bicubic", antialias=False)[0]


def plainly(networks: Sequence[Tensor]) -> NDArray[np.uint8]:
    """Return the class map by way of all values at all pixels."""
    full = [interpolate(each[None], SIZE, mode="bilinear") for each in networks]
    mean = full[0] if len(full) == 1 else torch.stack([each.softmax(1) for each in full]).mean(0)
    return mean.argmax(1)[0].byte().numpy()


def in_windows(parts: Sequence[Tensor], boxes: Sequence[tuple[int, int, int, int]]) -> NDArray[np.uint8]:
    """Return the class map of windows, whose logits are averaged where they overlap."""
    total, count = torch.zeros(1, CLASSES, *SIZE), torch.zeros(1, 1, *SIZE)
    for part, (top, bottom, left, right) in zip(parts, boxes, strict=True):
        total[..., top:bottom, left:right] += interpolate(part[None], (bottom - top, right - left), mode="bilinear")
        count[..., top:bottom, left:right] += 1
    return (total / count).argmax(1)[0].byte().numpy()


def cases() -> dict[str, tuple[Callable[[], NDArray[np.uint8]], Callable[[], NDArray[np.uint8]]]]:
    """Return each case's two ways, ours first."""
    one, two, three = (logits_of(seed) for seed in (1, 2, 3))
    lefts = range(0, SIZE[1] - WINDOW + 1, WINDOW // 2)
    boxes = [(0, SIZE[0], left, left + WINDOW) for left in lefts]
    parts = [logits_of(0, (WINDOW // 4, SIZE[1] // 4))[..., left // 4 : (left + WINDOW) // 4] for left in lefts]
    windows = Logits(tuple(part.contiguous() for part in parts), boxes=tuple(boxes), size=SIZE)

    def ours(*networks: Tensor) -> Callable[[], NDArray[np.uint8]]:
        return lambda: best_classes([Logits((each,)) for each in networks], SIZE)

    return {
        "a network": (ours(one), lambda: plainly([one])),
        "the mean of two, or of a picture and its mirror image": (ours(one, two), lambda: plainly([one, two])),
        "the mean of three": (ours(one, two, three), lambda: plainly([one, two, three])),
        f"{len(boxes)} windows": (lambda: best_classes([windows], SIZE), lambda: in_windows(parts, boxes)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"Medians of {options.runs} in ms, {options.threads} threads.\n")
    print("| class map of | hf-lwmm | plain | pixels that differ |\n| --- | --- | --- | --- |")
    with torch.inference_mode():
        for name, ways in cases().items():
            maps = [way() for way in ways]
            times: list[list[float]] = [[], []]
            for _ in range(options.runs):
                for place, way in enumerate(ways):
                    began = time.perf_counter()
                    way()
                    times[place].append(1000 * (time.perf_counter() - began))
            ours, plain = map(statistics.median, times)
            print(f"| {name} | {ours:.1f} | {plain:.1f} | {np.count_nonzero(maps[0] != maps[1])} |")


if __name__ == "__main__":
    main()
