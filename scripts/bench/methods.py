"""Compare our methods with mergekit's on equal inputs.

    python scripts/bench/methods.py [--peers /path/to/venv]

Merges three small random models with a common base by each method that both packages have, and prints the largest
difference of the results, absolute and relative to the tensor's largest value, and the number of elements that differ
by more than float32 rounding. mergekit runs in a virtual environment, which is made unless one is given
(`python -m venv VENV && VENV/bin/pip install torch mergekit==0.1.5`).

mergekit receives the masks that our DARE draws, in place of torch.bernoulli's. In a second row it rescales in its own
way, to the L1 norm before dropping, where the paper has 1 / density.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

import hf_lwmm
from hf_lwmm.methods import Slot, make_method

Arrays = Mapping[str, np.ndarray]
SHAPES = {
    "block.0.conv.weight": (64, 32, 3, 3),
    "block.0.conv.bias": (64,),
    "block.1.fc.weight": (256, 64),
    "block.1.fc.bias": (256,),
    "head.weight": (19, 256),
    "head.bias": (19,),
    "scale": (3,),
}
ROUNDING = 2e-6  # of a tensor's largest value: a few steps of float32

MERGEKIT = """
import json, sys
import torch
from mergekit.merge_methods.api import merge_tensors
from safetensors.torch import load_file, save_file
folder, jobs = sys.argv[1], json.loads(sys.argv[2])
models = [load_file(f"{folder}/model{i}.safetensors") for i in range(3)]
base, drawn = load_file(f"{folder}/base.safetensors"), load_file(f"{folder}/masks.safetensors")
own = torch.bernoulli
for place, job in enumerate(jobs):
    used = models[: job["models"]] if job["base"] != "base" else [base, *models[: job["models"]]]
    merged = {}
    for name in base:
        masks = iter(drawn[name])
        torch.bernoulli = lambda probabilities: next(masks).to(probabilities.dtype)
        merged[name] = merge_tensors(
            [model[name] for model in used], job["method"], parameters=job["parameters"],
            base_index=None if job["base"] is None else 0, name=name,
        )
    torch.bernoulli = own
    save_file(merged, f"{folder}/peer{place}.safetensors")
"""


@dataclass(frozen=True)
class Pair:
    """One of our methods and its counterpart in mergekit.

    `base` is mergekit's base model: the common base, our anchor, or None.
    """

    ours: str
    options: Mapping[str, float]
    theirs: str
    parameters: Mapping[str, Any]
    base: str | None = "base"
    models: int = 3
    note: str = ""


PAIRS = (
    Pair("isotropic", {}, "linear", {"weight": 1.0}, None),
    Pair("task-arithmetic", {"scale": 0.4}, "task_arithmetic", {"weight": 0.4}),
    Pair("ties", {"scale": 1.0, "density": 0.2}, "ties", {"weight": 1.0, "density": 0.2}),
    Pair("ties", {"scale": 0.7, "density": 0.5}, "ties", {"weight": 1.0, "density": 0.5, "lambda": 0.7}),
    Pair("dare", {"density": 0.5}, "dare_linear", {"weight": 0.8, "density": 0.5, "rescale": False}),
    Pair("dare", {"density": 0.5}, "dare_linear", {"weight": 0.4, "density": 0.5}, note="its own rescaling"),
    Pair("breadcrumbs", {}, "breadcrumbs", {"weight": 0.4, "density": 0.9, "gamma": 0.01}),
    Pair("breadcrumbs", {"density": 0.5, "outliers": 0.1}, "breadcrumbs",
         {"weight": 0.4, "density": 0.5, "gamma": 0.1}),
    Pair("slerp", {"t": 0.3}, "slerp", {"t": 0.3}, "anchor", 2),
    Pair("model-stock", {}, "model_stock", {}),
)  # fmt: skip


def make_inputs(folder: Path) -> None:
    """Write a base, three models around it, and the masks that our DARE draws for them."""
    draw = np.random.default_rng(0)
    base = {name: draw.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    save_file(base, folder / "base.safetensors")
    for model in range(3):
        moved = {name: array + 0.3 * draw.standard_normal(array.shape, np.float32) for name, array in base.items()}
        save_file(moved, folder / f"model{model}.safetensors")
    masks = {}
    for name, array in base.items():
        slot = Slot(name, 1, 1, (array,))
        drawn = [slot.generator(0, model).random(array.shape) < 0.5 for model in range(3)]
        masks[name] = np.stack(drawn).astype(np.uint8)
    save_file(masks, folder / "masks.safetensors")


def ours(pair: Pair, folder: Path) -> Arrays:
    """Merge with this package and return the tensors."""
    models = [folder / f"model{model}.safetensors" for model in range(pair.models)]
    knobs = hf_lwmm.Knobs(method=make_method(pair.ours, pair.options))
    inputs = hf_lwmm.MergeInputs(base=folder / "base.safetensors" if pair.base == "base" else None)
    out = folder / "ours"
    hf_lwmm.merge(models, knobs=knobs, inputs=inputs, output=out, writing=hf_lwmm.WriteOptions(overwrite=True))
    return load_file(out / "model.safetensors")


def theirs(pairs: tuple[Pair, ...], folder: Path, venv: Path) -> list[Arrays]:
    """Merge the same files with mergekit and return the tensors of each pair."""
    jobs = [{"method": p.theirs, "parameters": p.parameters, "base": p.base, "models": p.models} for p in pairs]
    command = [str(venv / "bin/python"), "-c", MERGEKIT, str(folder), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [load_file(folder / f"peer{place}.safetensors") for place in range(len(pairs))]


def compared(one: Arrays, other: Arrays) -> tuple[float, float, dict[str, int]]:
    """Compare two merges.

    Returns:
        The largest difference, the largest relative to a tensor's maximum, and the number of elements that differ by
        more than rounding in each tensor that has any.
    """
    largest = relative = 0.0
    beyond: dict[str, int] = {}
    for name, array in one.items():
        difference = np.abs(array.astype(np.float64) - other[name])
        scale = float(np.abs(array).max())
        largest, relative = max(largest, float(difference.max())), max(relative, float(difference.max()) / scale)
        if count := int((difference > ROUNDING * scale).sum()):
            beyond[name] = count
    return largest, relative, beyond


def install_mergekit(venv: Path) -> Path:
    """Install mergekit into a virtual environment, unless it exists, and return the environment."""
    if not (venv / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(venv / "bin/pip"), "install", "-q", "torch", "mergekit==0.1.5"], check=True)
    return venv


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path, help="virtual environment with mergekit")
    parser.add_argument("--work", type=Path, default=Path(".quickstart/bench"), help="folder for a new one")
    given = parser.parse_args()
    venv = given.peers or install_mergekit(given.work / "peers")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        print("| ours | mergekit | largest difference | relative | elements beyond rounding |")
        print("| --- | --- | --- | --- | --- |")
        for pair, peer in zip(PAIRS, theirs(PAIRS, folder, venv), strict=True):
            largest, relative, beyond = compared(ours(pair, folder), peer)
            options = ", ".join(f"{key}={value:g}" for key, value in pair.options.items())
            title = f"{pair.ours} ({options})" if options else pair.ours
            peer_title = f"{pair.theirs}, {pair.note}" if pair.note else pair.theirs
            where = ", ".join(f"{count} of {key}" for key, count in beyond.items()) or "none"
            print(f"| {title} | {peer_title} | {largest:.1e} | {relative:.1e} | {where} |")


if __name__ == "__main__":
    main()
