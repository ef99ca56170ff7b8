"""Fine-tune a published network on films of CamVid, for the cells of `scripts.uda.real.cells`.

    python -m scripts.uda.real.train START.pth film-a/frozen/1 film-b/frozen/1 --camvid CAMVID --out DIR

Without names it trains all runs, all of them for the fewest steps before one goes further. A run is named
DATA/BN/SEED. It writes DIR/DATA/BN/SEED/steps-45.safetensors and so on, and a call that was killed goes on where it
stopped. Every step has its own random numbers, so that the result is the same, with as many threads on the same kind of
processor; with others a run of 45 steps ends up to 0.3 mIoU away.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from hf_lwmm.networks.grouping import grouped
from scripts.networks.espnetv2 import CAMVID, OUTPUTS, s10_camvid
from scripts.uda.real.films import Film, part, read_split

SETTINGS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "real.yaml").read_text())
SAVE_EVERY = 45  # steps
IGNORE = 255
log = logging.getLogger("real")


def runs() -> list[str]:
    """Return the names of all runs, seed by seed."""
    names = [(data, bn) for bn in SETTINGS["bn"] for data in SETTINGS["data"]]
    return [f"{data}/{bn}/{seed}" for data, bn in names for seed in SETTINGS["seeds"]]


def checkpoint(out: Path, run: str, steps: int) -> Path:
    """Return the file of a run after some steps."""
    return out / run / f"steps-{steps}.safetensors"


def start_network(start: Path) -> nn.Module:
    """Return the published network."""
    network = s10_camvid({}, OUTPUTS)
    network.load_state_dict(torch.load(start, map_location="cpu", weights_only=True))
    return network


def normalised(images: np.ndarray) -> Tensor:
    """Return (N, h, w, 3) uint8 pictures as the network takes them: (N, 3, h, w) float32."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (CAMVID.image_mean, CAMVID.image_std))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std


def draw(film: Film, seed: int, step: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the batch of a step: pictures (N, 3, h, w), half of them mirrored, and labels (N, h, w)."""
    rng = np.random.default_rng([seed, step])
    rows = rng.choice(len(film), count, replace=False)
    images, labels = film.images[rows].copy(), film.labels[rows].astype(np.int64)
    mirrored = rng.random(count) < 0.5
    images[mirrored], labels[mirrored] = images[mirrored, :, ::-1], labels[mirrored, :, ::-1]
    return normalised(images).to(memory_format=torch.channels_last), torch.from_numpy(labels)


def train(run: str, settings: Mapping[str, Any], start: Path, out: Path, film: Film, until: int) -> None:
    """Train a run until a number of steps, from where an earlier call stopped.

    Args:
        run: its name, DATA/BN/SEED.
        settings: those of real.yaml.
        start: the published checkpoint.
        out: the folder of all runs.
        film: the frames to learn from.
        until: the steps; nothing happens if the run has gone so far.
    """
    if checkpoint(out, run, until).exists():
        return
    _, bn, seed = run.split("/")
    network = start_network(start).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), settings["rate"])
    step, state_file = 0, out / run / "state.pt"
    state_file.parent.mkdir(parents=True, exist_ok=True)
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    network.train(bn == "updated")
    started, first = time.perf_counter(), step
    while step < until:
        images, labels = draw(film, int(seed), step, settings["batch"])
        for group in optimizer.param_groups:
            group["lr"] = settings["rate"] * min(1, (step + 1) / settings["warmup"])
        optimizer.zero_grad()
        loss: Any = functional.cross_entropy(grouped(network(images), CAMVID.rows), labels, ignore_index=IGNORE)
        loss.backward()
        optimizer.step()
        step += 1
        if step % SAVE_EVERY == 0 or step == until:
            if step in settings["steps"]:
                _replace(checkpoint(out, run, step), lambda path: save_file(_tensors(network), path))
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            _replace(state_file, lambda path, state=state: torch.save(state, path))
            pace = (time.perf_counter() - started) / (step - first)
            log.info("%s %d/%d loss %.3f, %.2f s a step", run, step, until, float(loss.detach()), pace)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}


def _replace(path: Path, write: Any) -> None:
    working = path.with_suffix(f".{os.getpid()}")
    write(working)
    working.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("start", type=Path, help="published checkpoint, espnetv2_s_1.0_city_512x256.pth")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="DATA/BN/SEED; all if none is named")
    parser.add_argument("--camvid", type=Path, required=True, help="folder with train/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, action="append", help="how far; all of real.yaml's if not given")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    everything = read_split(options.camvid / "train")
    train_all(options.runs or runs(), options.steps or SETTINGS["steps"], options.start, options.out, everything)


def train_all(names: Sequence[str], steps: Sequence[int], start: Path, out: Path, everything: Film) -> None:
    """Train runs, all of them for the fewest steps before one goes further."""
    for until in sorted(steps):
        for run in names:
            train(run, SETTINGS, start, out, part(everything, SETTINGS["data"][run.split("/")[0]]), until)


if __name__ == "__main__":
    main()
