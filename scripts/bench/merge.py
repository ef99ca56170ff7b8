"""Measure time and memory of merging MiT-B5 checkpoints, against the speed of the disk and against mergekit.

    python scripts/bench/merge.py --work DIR [--runs 7] [--peers /path/to/venv]

Makes SegFormer-B5 float32 checkpoints with random values, keeps them in the page cache, and times in turn: the floor
(`cat` the inputs, `cp` one of them), the engine alone, plain torch, the whole command, and mergekit-pytorch, which is
installed into a new virtual environment unless one is given. Ratios are medians over paired runs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "tests/golden/key_manifests/transformers_segformer_b5_hub_legacy.json.gz"
# Packages are compiled when they are installed. A checkout is compiled in the first run, which does not count.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

ENGINE = """
import json, sys, time
from pathlib import Path
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.engine.streaming import write_tensors
from hf_lwmm.planning.knobs import Knobs
from hf_lwmm.planning.plan import make_plan
from hf_lwmm.planning.tensor_recipes import tensor_recipes
def memory(field):  # in MiB; this peak can be reset, while ru_maxrss begins with the parent's
    return int(next(l for l in open("/proc/self/status") if l.startswith(field)).split()[1]) / 1024
plan = make_plan([open_checkpoint(hub.resolve(hub.parse_ref(p))) for p in sys.argv[2:]], 0, Knobs())
tensors = tensor_recipes(plan)
open("/proc/self/clear_refs", "w").write("5")
before, started = memory("VmRSS"), time.perf_counter()
write_tensors(plan.sources, tensors, Path(sys.argv[1]))
print(json.dumps({"seconds": time.perf_counter() - started, "MiB": memory("VmHWM") - before}))
"""

TORCH = """
import json, resource, sys, time
import torch
from safetensors.torch import load_file, save_file
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter()
models = [load_file(path) for path in sys.argv[2:]]
merged = {}
for name, tensor in models[0].items():
    if tensor.is_floating_point():
        merged[name] = sum(model[name] * (1 / len(models)) for model in models)
    else:
        merged[name] = tensor
save_file(merged, sys.argv[1] + "/model.safetensors", metadata={"format": "pt"})
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before}))
"""


def make_checkpoints(folder: Path, count: int) -> list[Path]:
    """Write SegFormer-B5 files of 339 MB each, unless they exist, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = json.loads(gzip.decompress(MANIFEST.read_bytes()))["keys"]
    paths = []
    for seed in range(count):
        path = folder / f"b5-{seed}.safetensors"
        if not path.exists():
            draw = np.random.default_rng(seed)
            # mergekit rejects models whose BatchNorm counters differ, and hf-lwmm variances below 0.
            arrays = {
                name: np.array(0, np.int64) if "int" in dtype else draw.standard_normal(shape, np.float32)
                for name, shape, dtype in keys
            }
            arrays |= {name: np.abs(array) for name, array in arrays.items() if name.endswith("running_var")}
            save_file(arrays, path, metadata={"format": "pt"})
        paths.append(path)
    return paths


def as_torch_files(paths: list[Path]) -> list[Path]:
    """Write the same tensors as `.pth` files beside them, unless they exist, and return their paths."""
    import torch
    from safetensors.torch import load_file

    made = [path.with_suffix(".pth") for path in paths]
    for path, target in zip(paths, made, strict=True):
        if not target.exists():
            torch.save(load_file(path), target)
    return made


def timed(command: list[str]) -> float:
    """Run a command and return its time in seconds."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - started


def floor(paths: list[Path], out: Path) -> float:
    """Return the seconds that it takes to read all inputs with cat and to write one output with cp."""
    return timed(["cat", *map(str, paths)]) + timed(["cp", str(paths[0]), str(out / "copy.safetensors")])


def child(code: str, out: Path, paths: list[Path]) -> dict[str, float]:
    """Run a script that prints its time in seconds and its memory in MiB as JSON, and return them."""
    done = subprocess.run([sys.executable, "-c", code, str(out), *map(str, paths)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout))


def fresh(folder: Path) -> Path:
    """Empty a folder and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def ratio(first: list[float], second: list[float]) -> str:
    """Return the median ratio of paired runs, with the range."""
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"


def bench_engine(work: Path, runs: int, models: int) -> None:
    """Time the engine alone, and the same merge in plain torch, against the floor."""
    paths = make_checkpoints(work / "models", models)
    floors, engines, naive, memory, naive_memory = [], [], [], [], []
    for run in range(runs + 1):
        times = (floor(paths, fresh(work / "out")), child(ENGINE, fresh(work / "out"), paths))
        if run == 0:
            continue  # it warms the page cache
        floors.append(times[0])
        engines.append(times[1]["seconds"])
        memory.append(times[1]["MiB"])
        if run <= 3:
            plain = child(TORCH, fresh(work / "out"), paths)
            naive.append(plain["seconds"])
            naive_memory.append(plain["MiB"])
    print(f"M = {models}: floor {statistics.median(floors):.2f} s")
    rows = (("engine", engines, max(memory)), ("plain torch", naive, max(naive_memory)))
    for name, seconds, most in rows:
        times = ratio(seconds, floors[: len(seconds)])
        print(f"  {name:<12} {statistics.median(seconds):.2f} s, {times} x the floor, {most:.0f} MiB")


def install_mergekit(work: Path) -> Path:
    """Install mergekit into a virtual environment, unless it exists, and return the environment."""
    venv = work / "peers"
    if not (venv / "bin/mergekit-pytorch").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(venv / "bin/pip"), "install", "-q", "torch==2.14.1", "mergekit"], check=True)
    return venv


def bench_command(work: Path, runs: int, venv: Path, paths: list[Path]) -> None:
    """Time the whole command, with hashes, card and plot, against mergekit-pytorch's linear merge of the same files."""
    config = work / "linear.yml"
    listed = "".join(f"  - model: {path}\n    parameters: {{weight: 0.5}}\n" for path in paths)
    config.write_text(f"merge_method: linear\nmodels:\n{listed}dtype: float32\n")
    commands: dict[str, Callable[[Path], list[str]]] = {
        "hf-lwmm merge": lambda out: [sys.executable, "-m", "hf_lwmm", "merge", *map(str, paths), "--output", str(out)],
        "mergekit-pytorch": lambda out: [str(venv / "bin/mergekit-pytorch"), str(config), str(out)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(runs + 1):
        for name, command in commands.items():
            shutil.rmtree(work / "out", ignore_errors=True)
            elapsed = timed(command(work / "out"))
            if run:
                seconds[name].append(elapsed)
    print(f"two {paths[0].suffix} files")
    for name, values in seconds.items():
        print(f"  {name:<17} {statistics.median(values):.2f} s")
    print(f"  mergekit-pytorch takes {ratio(seconds['mergekit-pytorch'], seconds['hf-lwmm merge'])} x as long")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".quickstart/bench"), help="folder for about 3 GB of files")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--peers", type=Path, help="virtual environment with mergekit")
    options = parser.parse_args()
    for models in (2, 4):
        bench_engine(options.work, options.runs, models)
    peers, paths = options.peers or install_mergekit(options.work), make_checkpoints(options.work / "models", 2)
    for files in (paths, as_torch_files(paths)):
        bench_command(options.work, max(2, options.runs // 2), peers, files)


if __name__ == "__main__":
    main()
