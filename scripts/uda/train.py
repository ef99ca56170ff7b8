"""Train runs of the benchmark: a network and a strategy on rendered sources and an unlabelled target.

    python -m scripts.uda.train RUN --target CAMVID --out DIR                # resumes an interrupted run
    python -m scripts.uda.train RUN --target CAMVID --out DIR --score val
    python -m scripts.uda.train RUN@2 --target CAMVID --out DIR              # the same run with another seed

bench.yaml describes the runs. Each saves its network after every quarter of the steps, as the model folders
DIR/RUN/quarter-1 to quarter-4. Several runs can share a machine; `--threads` is the number of cores of each.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, SegformerConfig, SegformerForSemanticSegmentation

from hf_lwmm.demo.streets import CLASSES
from hf_lwmm.networks.daformer import DAFormerConfig, DAFormerForSemanticSegmentation
from hf_lwmm.networks.deeplab import DeepLabV2Config, DeepLabV2ForSemanticSegmentation
from hf_lwmm.networks.edaps import EDAPSConfig, EDAPSForPanopticSegmentation
from hf_lwmm.networks.hrda import HRDAConfig, HRDAForSemanticSegmentation
from hf_lwmm.networks.image_processing import SegmentationImageProcessor
from scripts.uda.data import Frames, View, draw_batch, folder_of_images, joined, rendered
from scripts.uda.losses import STRATEGIES, forward

NETWORKS: dict[str, tuple[type, type[PreTrainedModel]]] = {
    "deeplab": (DeepLabV2Config, DeepLabV2ForSemanticSegmentation),
    "edaps": (EDAPSConfig, EDAPSForPanopticSegmentation),
    "daformer": (DAFormerConfig, DAFormerForSemanticSegmentation),
    "hrda": (HRDAConfig, HRDAForSemanticSegmentation),
    "segformer": (SegformerConfig, SegformerForSemanticSegmentation),
}
HEADS = ("decode_head.", "neck.", "rpn_head.", "roi_head.", "layer5.", "layer6.")
QUARTERS = 4
SAVE_EVERY = 250  # steps
log = logging.getLogger("train")


def read_runs(path: Path) -> dict[str, dict[str, Any]]:
    """Read the runs of bench.yaml, with defaults filled in and network names replaced by the networks' settings."""
    bench = yaml.safe_load(path.read_text())
    runs = {name: {**bench["defaults"], **run} for name, run in bench["runs"].items()}
    for run in runs.values():
        run["network"] = bench["networks"][run["network"]]
    return runs


def run_of(runs: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Return a run by its name; RUN@SEED is RUN with another seed, started from the same pre-training."""
    base, _, seed = name.partition("@")
    return {**runs[base], "seed": int(seed)} if seed else runs[base]


def build(network: dict[str, Any]) -> PreTrainedModel:
    """Build an untrained network from its settings in bench.yaml."""
    config_class, model_class = NETWORKS[network["kind"]]
    names = dict(enumerate(CLASSES))
    fields = {key: value for key, value in network.items() if key != "kind"}
    torch.manual_seed(0)
    model = model_class(config_class(**fields, id2label=names, label2id={name: i for i, name in names.items()}))
    # Convolutional networks train a third faster in this format; MiT, with its depthwise convolutions, trains slower.
    return model.to(memory_format=torch.channels_last) if network["kind"] == "deeplab" else model


def start_from(model: PreTrainedModel, folder: Path) -> None:
    """Copy into `model` every tensor that the network in `folder` has in the same shape."""
    _, model_class = next(kind for kind in NETWORKS.values() if kind[0].model_type == _model_type(folder))
    earlier = model_class.from_pretrained(folder).state_dict()
    # HRDA holds DAFormer's head one level deeper.
    earlier |= {name.replace("decode_head.", "decode_head.head."): value for name, value in earlier.items()}
    mine = model.state_dict()
    taken = {k: v for k, v in earlier.items() if k in mine and v.shape == mine[k].shape}
    log.info("%d of %d tensors from %s", len(taken), len(mine), folder.parent.name)
    model.load_state_dict({**mine, **taken})


def _model_type(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["model_type"]


def train(name: str, run: dict[str, Any], out: Path, cache: Path, target: Frames) -> PreTrainedModel:
    """Train a run to its end, from where an earlier call stopped, and return its network (the teacher, if it has one).

    Args:
        name: the run's name.
        run: its settings, as from `run_of`.
        out: folder of all runs.
        cache: folder for rendered frames.
        target: the unlabelled images.
    """
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    model = build(run["network"])
    if run.get("start"):
        start_from(model, out / run["start"] / f"quarter-{QUARTERS}")
    source = joined([rendered(cache, style, 0, run["frames"]) for style in run["sources"]])
    torch.manual_seed(run["seed"])
    strategy = STRATEGIES[run["strategy"]](model, class_weights(source, run["balance"]), **run.get("knobs", {}))
    learned = [parameter for parameter in strategy.parameters() if parameter.requires_grad]
    body = [p for n, p in model.named_parameters() if not n.startswith(HEADS)]
    head = [p for n, p in model.named_parameters() if n.startswith(HEADS)]
    groups = [{"params": body + learned, "rate": 1.0}, {"params": head, "rate": run["head_rate"]}]
    optimizer = torch.optim.AdamW(groups, lr=run["rate"], weight_decay=0.01)
    parts = {"model": model, "strategy": strategy, "optimizer": optimizer}

    step, steps, state_file = 0, run["steps"], folder / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for key, part in parts.items():
            part.load_state_dict(state[key])
        step = state["step"]
    view = View(**{k: tuple(v) if isinstance(v, list) else v for k, v in run["view"].items()})
    started, first, losses = time.time(), step, []
    while step < steps:
        # Every step has its own seed, so a resumed run gives the same result as an uninterrupted one.
        rng = np.random.default_rng([run["seed"], step])
        torch.manual_seed(int(rng.integers(1 << 62)))
        batch = draw_batch(source, target, run["batch"], view, rng)
        for group in optimizer.param_groups:
            group["lr"] = run["rate"] * group["rate"] * min(1, (step + 1) / 50) * (1 - step / steps) ** 0.9
        set_training(model, frozen=run["frozen"])
        optimizer.zero_grad()
        for loss in strategy.losses(model, batch):
            loss.backward()
            losses.append(float(loss.detach()))
        optimizer.step()
        strategy.after_step(model, step)
        step += 1
        if step % 100 == 0 or step == steps:
            pace = (time.time() - started) / (step - first)
            log.info("%s %d/%d loss %.3f, %.3f s a step", name, step, steps, float(np.mean(losses)), pace)
            losses.clear()
        quarter = step * QUARTERS // steps
        if quarter > (step - 1) * QUARTERS // steps:
            save_model(getattr(strategy, "teacher", model), folder / f"quarter-{quarter}")
        if step % SAVE_EVERY == 0 or step == steps:
            state = {key: part.state_dict() for key, part in parts.items()} | {"step": step}
            working = state_file.with_suffix(f".{os.getpid()}")
            torch.save(state, working)
            working.replace(state_file)
    return getattr(strategy, "teacher", model).eval()


def set_training(model: nn.Module, *, frozen: bool) -> None:
    """Put a network into training mode; if `frozen`, BatchNorm uses its running statistics and leaves them alone."""
    model.train()
    if frozen:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def class_weights(frames: Frames, balance: float) -> torch.Tensor:
    """Return class weights in proportion to frequency ** -balance, with mean 1 over all pixels: (classes,) float32."""
    frequency = frames.shares.mean(0)
    weights = np.where(frequency > 0, np.maximum(frequency, 1e-4) ** -balance, 1)
    return torch.from_numpy(weights / (frequency * weights).sum() * frequency.sum()).float()


def target_frames(run: dict[str, Any], folder: Path, cache: Path) -> Frames:
    """Return the unlabelled images that a run adapts to: the train split of a folder, or a rendered style."""
    if run["target"] == "folder":
        return folder_of_images(folder / "train", labelled=False)
    return Frames(np.array(rendered(cache, run["target"], 0, 400).images))


def scored_frames(run: dict[str, Any], folder: Path, cache: Path) -> Frames:
    """Return labelled frames of the target that no run trains on."""
    if run["target"] == "folder":
        return folder_of_images(folder, labelled=True)
    return rendered(cache, run["target"], 100_000, 60)


def save_model(model: nn.Module, folder: Path) -> None:
    """Save a network with its image processor, under a temporary name until the folder is complete."""
    if folder.exists():
        return
    working = folder.with_name(f"{folder.name}.{os.getpid()}")
    model.save_pretrained(working)
    SegmentationImageProcessor().save_pretrained(working)
    working.rename(folder)


@torch.inference_mode()
def class_ious(model: nn.Module, frames: Frames) -> np.ndarray:
    """Return the IoU of each class over labelled frames: (classes,) float64, nan for a class that does not occur."""
    classes = len(CLASSES)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for image, truth in zip(frames.images, frames.labels, strict=True):
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        logits = forward(model, pixels).logits
        logits = functional.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)
        label, guess = torch.from_numpy(truth.astype(np.int64)), logits[0].argmax(0)
        valid = label < classes
        confusion += torch.bincount(label[valid] * classes + guess[valid], minlength=classes**2).view_as(confusion)
    hits = confusion.diagonal().double()
    return (hits / (confusion.sum(0) + confusion.sum(1) - hits)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--target", type=Path, required=True, help="folder with train/images and, for --score, a split")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/hf-lwmm/uda").expanduser())
    parser.add_argument("--bench", type=Path, default=Path(__file__).parent / "bench.yaml")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--score", metavar="SPLIT", help="labelled split to print the mIoU on")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    runs = read_runs(options.bench)
    for name in options.runs:
        run = run_of(runs, name)
        model = train(name, run, options.out, options.cache, target_frames(run, options.target, options.cache))
        if options.score:
            ious = class_ious(model, scored_frames(run, options.target / options.score, options.cache))
            rows = ", ".join(f"{label} {100 * iou:.1f}" for label, iou in zip(CLASSES, ious, strict=True))
            log.info("%s %s mIoU %.2f: %s", name, options.score, 100 * np.nanmean(ious), rows)


if __name__ == "__main__":
    main()
