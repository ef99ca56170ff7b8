"""Measure what a merge of training checkpoints on the Hub sends over the wire, and how long it takes.

    python scripts/bench/remote.py --work DIR [--rate 50e6] [--latency 0.05] [--runs 3] [--layers 1.0] [--peers VENV]
                                   [--only WAY]

Makes two training checkpoints of DAFormer with MiT-B5 (student, teacher, ImageNet copy, Adam's state: 1.7 GB each) with
random values, puts them on a local Hub whose line has `--rate` bytes a second and `--latency` seconds, and merges them
in turn, each time from an empty cache: with the ranges that the merge reads, with --full-download, and after
`hf_hub_download` with plain torch and with mergekit-pytorch (if its environment is given), for which the students are
first written as files of their own. `--layers` below 1 makes smaller tensors, to try this script.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "tests/golden/key_manifests/daformer_mitb5.json.gz"
TOKEN = "hf_bench"

MERGE = """
import sys
from hf_lwmm.__main__ import main
sys.argv = ["hf-lwmm", "merge", "bench/a", "bench/b", "--output", sys.argv[1], *sys.argv[2:]]
main()
"""

TORCH = """
import sys, torch
from huggingface_hub import hf_hub_download
states = []
for repo in ("bench/a", "bench/b"):
    found = torch.load(hf_hub_download(repo, "latest.pth"), weights_only=True)["state_dict"]
    states.append({name[6:]: tensor for name, tensor in found.items() if name.startswith("model.")})
merged = {name: tensor if not tensor.is_floating_point() else (tensor + states[1][name]) / 2
          for name, tensor in states[0].items()}
torch.save({"state_dict": merged}, sys.argv[1] + ".pth")
if len(sys.argv) > 2:
    import subprocess
    for index, state in enumerate(states):
        torch.save(state, f"{sys.argv[1]}-{index}.pth")
    models = "".join(f"  - model: {sys.argv[1]}-{i}.pth\\n    parameters: {{weight: 0.5}}\\n" for i in (0, 1))
    open(sys.argv[1] + ".yml", "w").write(f"merge_method: linear\\nmodels:\\n{models}dtype: float32\\n")
    subprocess.run([sys.argv[2], sys.argv[1] + ".yml", sys.argv[1]], check=True, stdout=subprocess.DEVNULL)
"""


def make_checkpoints(folder: Path, layers: float) -> list[Path]:
    """Write two training checkpoints, unless they exist, and return their paths."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    keys = json.loads(gzip.decompress(MANIFEST.read_bytes()))["keys"]
    paths = [folder / f"{name}-{layers}.pth" for name in "ab"]
    for seed, path in enumerate(paths):
        if path.exists():
            continue
        torch.manual_seed(seed)

        def tensors(prefix: str, keys: list[tuple[str, list[int], str]]) -> dict[str, torch.Tensor]:
            found = {}
            for name, shape, dtype in keys:
                size = [max(1, int(each * layers)) if each > 8 else each for each in shape]
                whole = torch.tensor(0) if "int" in dtype else torch.randn(size)
                found[prefix + name] = whole.abs() if name.endswith("running_var") else whole
            return found

        student = tensors("model.", keys)
        backbone = [entry for entry in keys if entry[0].startswith("backbone.")]
        moments = [tensor for tensor in student.values() if tensor.is_floating_point()]
        content = {
            "meta": {"CLASSES": [f"class {i}" for i in range(19)], "iter": 40000},
            "state_dict": student | tensors("ema_model.", keys) | tensors("imnet_model.", backbone),
            "optimizer": {
                "state": {
                    index: {"step": 40000, "exp_avg": torch.randn_like(each), "exp_avg_sq": torch.rand_like(each)}
                    for index, each in enumerate(moments)
                },
                "param_groups": [{"lr": 6e-5, "params": list(range(len(moments)))}],
            },
        }
        torch.save(content, path)
    return paths


def needed_bytes(paths: list[Path]) -> int:
    """Return the bytes of the tensors that the merge reads."""
    import hf_lwmm
    from hf_lwmm.planning.tensor_recipes import tensors_read

    plan = hf_lwmm.plan(paths)
    return sum(
        checkpoint.tensors[name].nbytes
        for checkpoint, names in zip(plan.sources, tensors_read(plan), strict=True)
        for name in names
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".quickstart/bench"), help="folder for about 10 GB of files")
    parser.add_argument("--rate", type=float, default=50e6, help="bytes a second of the Hub's line")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each response")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=float, default=1.0, help="part of each layer's width")
    parser.add_argument("--peers", type=Path, help="virtual environment with mergekit")
    parser.add_argument("--only", metavar="WAY", help="the one way to measure, such as ranges")
    options = parser.parse_args()
    os.environ["HF_HUB_DISABLE_XET"] = "1"  # read when the client is imported
    from huggingface_hub import HfApi

    from hf_lwmm.localhub import LocalHub

    paths = make_checkpoints(options.work / "training", options.layers)
    needed = needed_bytes(paths)
    root = options.work / f"hub-{options.layers}"
    with LocalHub(root, faults=False) as hub:
        hub.add_user("bench", token=TOKEN)
        api = HfApi(endpoint=hub.endpoint, token=TOKEN)
        for name, path in zip("ab", paths, strict=True):
            api.create_repo(f"bench/{name}", exist_ok=True)
            api.upload_file(path_or_fileobj=path, path_in_repo="latest.pth", repo_id=f"bench/{name}")
        hub.throttle.rate, hub.throttle.latency = options.rate, options.latency
        ways = {"ranges": [MERGE], "--full-download": [MERGE, "--full-download"], "hf_hub_download, torch": [TORCH]}
        if options.peers:
            ways["hf_hub_download, mergekit"] = [TORCH, str((options.peers / "bin/mergekit-pytorch").resolve())]
        if options.only:
            ways = {options.only: ways[options.only]}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        sent: dict[str, int] = {}
        for _ in range(options.runs):
            for name, (code, *arguments) in ways.items():
                home, out = (options.work / "home").resolve(), (options.work / "merged").resolve()
                for folder in (home, out):
                    shutil.rmtree(folder, ignore_errors=True)
                environment = {
                    **os.environ, "HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN,
                    "HF_HUB_DISABLE_XET": "1",
                }  # fmt: skip
                environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages are compiled
                before, started = hub.throttle.bytes_sent, time.perf_counter()
                command = [sys.executable, "-c", code, str(out), *arguments]
                subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - started)
                sent[name] = hub.throttle.bytes_sent - before
    total, least = sum(path.stat().st_size for path in paths), needed / options.rate
    print(
        f"two files of {total / 2e6:,.0f} MB, {needed / 1e6:,.0f} MB needed: {least:.2f} s at {options.rate:g} bytes/s"
    )
    for name, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{name:26}{sent[name] / 1e6:8,.0f} MB, {sent[name] / needed:6.3f} of the needed; "
            f"{median:7.2f} s, {median / least:6.2f} of bytes/rate"
        )


if __name__ == "__main__":
    main()
