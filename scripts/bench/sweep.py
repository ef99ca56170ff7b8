"""Time a sweep of 30 candidates on frames of 1024x2048, and the part of it that is not inference.

    python scripts/bench/sweep.py [--network nothing] [--frames 24] [--place FOLDER]

Two models of one architecture, the second with noise on its weights, merge by layer-wise schedules of many strengths.
Inference is the time inside the networks' `forward`; imports are not counted.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

from frames import save_frames, save_network


def save_noisy(model: Path, folder: Path) -> None:
    """Save a network whose weights are those of another with one percent of noise."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(1)
    tensors = load_file(model / "model.safetensors")
    noisy = {
        name: tensor + 0.01 * tensor.std(correction=0) * torch.randn_like(tensor) if tensor.ndim > 1 else tensor
        for name, tensor in tensors.items()
    }
    folder.mkdir()
    save_file(noisy, folder / "model.safetensors", {"format": "pt"})
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((model / name).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="nothing")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--merges", type=int, default=28, help="beside the two models themselves")
    parser.add_argument("--place", help="a folder that keeps networks and frames for other runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(options.place or temporary)
        data, models = (
            place / f"{options.frames}-png-False",
            [place / options.network, place / f"{options.network}-noisy"],
        )
        if not data.exists():
            save_frames(data, "png", options.frames, segments=False)
        if not models[0].exists():
            save_network(options.network, models[0], data)
        if not models[1].exists():
            save_noisy(*models)
        report(models, data, Path(temporary, "sweep.parquet"), options)


def report(models: list[Path], data: Path, output: Path, options: argparse.Namespace) -> None:
    """Sweep, and print its time and that of the networks."""
    import hf_lwmm

    inside = 0.0
    kind: Any = type(hf_lwmm.load(models[0]).model)
    forward = kind.forward

    @functools.wraps(forward)
    def timed(*args: Any, **named: Any) -> Any:
        nonlocal inside
        started = time.perf_counter()
        result = forward(*args, **named)
        inside += time.perf_counter() - started
        return result

    kind.forward = timed
    starts = tuple(round(0.3 + 0.5 * step / options.merges, 4) for step in range(options.merges))
    started = time.perf_counter()
    images = hf_lwmm.ImageSource(str(data), split="val")
    found = hf_lwmm.sweep(models, images, output, axes=hf_lwmm.SweepAxes(start=starts, anchors="first"))
    seconds = time.perf_counter() - started
    each = seconds / len(found.rows) / options.frames
    print(f"{options.network}: {len(found.rows)} candidates on {options.frames} frames of 1024x2048: {seconds:.1f} s")
    print(f"{each:.3f} s an image and candidate; {1 - inside / seconds:.1%} of the time is not inference")


if __name__ == "__main__":
    main()
