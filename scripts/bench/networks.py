"""Memory and time of one image on the CPU, for every network at its published size, each in a process of its own.

    python scripts/bench/networks.py [--size 1024x2048] [--threads 2] [NAME ...]

Weights are random: neither depends on them. Memory is the peak of the whole process, and what of it came with the
forward pass alone.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import Any

CITY = {"id2label": {i: str(i) for i in range(19)}}
MIT_B0: dict[str, Any] = {"depths": [2, 2, 2, 2], "hidden_sizes": [32, 64, 160, 256]}
MIT_B5: dict[str, Any] = {"depths": [3, 6, 40, 3], "hidden_sizes": [64, 128, 320, 512]}


def networks() -> dict[str, Any]:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from hf_lwmm import networks as m

    return {
        "SegFormer-B0": lambda: SegformerForSemanticSegmentation(SegformerConfig(**MIT_B0, **CITY)),
        "SegFormer-B5": lambda: SegformerForSemanticSegmentation(
            SegformerConfig(decoder_hidden_size=768, **MIT_B5, **CITY)
        ),
        "DAFormer-B5": lambda: m.DAFormerForSemanticSegmentation(m.DAFormerConfig(**MIT_B5, **CITY)),
        "HRDA-B5": lambda: m.HRDAForSemanticSegmentation(m.HRDAConfig(**MIT_B5, **CITY)),
        "EDAPS-B5": lambda: m.EDAPSForPanopticSegmentation(m.EDAPSConfig(**MIT_B5, **CITY)),
        "DeepLabV2-R101": lambda: m.DeepLabV2ForSemanticSegmentation(m.DeepLabV2Config(**CITY)),
        "DeepLabV2-VGG16": lambda: m.DeepLabV2ForSemanticSegmentation(m.DeepLabV2Config(backbone="vgg16", **CITY)),
        "DIGA-R101": lambda: m.DeepLabV2ForSemanticSegmentation(m.DeepLabV2Config(head="diga", **CITY)),
    }


def measure(name: str, size: tuple[int, int], threads: int) -> None:
    import torch

    from hf_lwmm.evaluation.class_map import best_classes
    from hf_lwmm.evaluation.inference import window_logits

    torch.set_num_threads(threads)
    model = networks()[name]().eval()
    pixels = torch.randn(1, 3, *size)
    before, start = _peak(), time.perf_counter()
    with torch.inference_mode():
        if name.startswith("HRDA"):
            best_classes(window_logits(model, pixels, (1024, 1024), (512, 512)), size)
        else:
            model(pixels)
    seconds = time.perf_counter() - start
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"| {name} | {parameters:.1f} | {seconds:.1f} | {_peak():.2f} | {_peak() - before:.2f} |")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--size", default="1024x2048")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    if options.alone:
        measure(options.names[0], (height, width), options.threads)
        return
    print(f"One image of {height}x{width} pixels, float32, {options.threads} threads; HRDA in windows of 1024x1024.\n")
    print("| network | million parameters | seconds | peak GiB | of it the forward pass |")
    print("| --- | --- | --- | --- | --- |")
    for name in options.names or networks():
        command = [sys.executable, __file__, name, "--size", options.size, "--threads", str(options.threads), "--alone"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(done.stdout.strip() or f"| {name} | {done.stderr.strip().splitlines()[-1]} | | | |", flush=True)


if __name__ == "__main__":
    main()
