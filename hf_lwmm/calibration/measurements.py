"""What some methods must know of a model besides its weights: Fisher information, or its layers' Gram matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hf_lwmm import hub
from hf_lwmm._version import __version__
from hf_lwmm.checkpoints.atomic import check_target, staged
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.data.loading import LabelledImages
from hf_lwmm.data.pictures import Images
from hf_lwmm.errors import PlanError
from hf_lwmm.labels import label_set_of_ids, match_classes, read_label_set
from hf_lwmm.layouts import Atom, map_slots
from hf_lwmm.networks.loading import LoadedModel
from hf_lwmm.planning.provenance import MeasuredModel
from hf_lwmm.progress import Progress

KINDS = ("fisher", "grams")
LARGEST_GRAM = 4096  # inputs of a layer; a larger matrix would not fit beside the others


def measure(
    loaded: LoadedModel,
    images: Images,
    target: str | Path,
    *,
    kind: str = "fisher",
    count: int = 64,
    protocol: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> int:
    """Measure a model on the first images of a data set and write a file for `--measurements`; gives their number.

    The file records which model it was measured of, so that it is not taken for another's.

    Args:
        images: of `open_images`, with labels of pixels or, for a classifier, of images; for `grams` also of
            `open_unlabelled_images`.
        kind: `fisher` (labelled images and gradients; slots' shapes) or `grams` (images alone; (inputs, inputs)).
        count: how many images.
        protocol: the label set that the images' ids stand for, if the data set does not name it.

    Raises:
        PlanError: for an unknown kind, or images without the labels that the network learns from.
        MergeError: if the target exists (unless `overwrite`).
    """
    if kind not in KINDS:
        raise PlanError(f"--kind {kind} is none of {', '.join(KINDS)}.")
    task = "classification" if loaded.task == "classification" else "semantic"
    labelled = images if isinstance(images, LabelledImages) and images.task == task else None
    if kind == "fisher" and labelled is None:
        wanted = "image" if task == "classification" else "pixel"
        raise PlanError(f"{images.name}: has no {wanted} labels, which Fisher information of {loaded.label} needs.")
    path = Path(target)
    if path.suffix != ".safetensors":
        raise PlanError(f"{path}: name a file that ends in .safetensors.")
    check_target(path, overwrite)
    used = min(count, images.count)
    if kind == "fisher" and labelled is not None:
        measured = fisher(loaded, labelled, used, protocol, progress)
    else:
        measured = grams(loaded, images, used, progress)
    metadata = {"format": "pt", "hf_lwmm": __version__, "kind": kind, "images": str(used)}
    metadata |= MeasuredModel(loaded.label, _weight_hashes(loaded)).to_metadata()
    with staged(path) as folder:
        save_file({slot: tensor.contiguous() for slot, tensor in measured.items()}, folder / path.name, metadata)
    return used


def _weight_hashes(loaded: LoadedModel) -> dict[str, str]:
    checkpoint = open_checkpoint(loaded.source)
    checkpoint.close()
    return {name: hub.sha256(path) for name, path in checkpoint.paths.items()}


def fisher(
    loaded: LoadedModel, images: LabelledImages, count: int, protocol: str | None, progress: Progress
) -> dict[str, Tensor]:
    """Mean squared gradient of the labels' log-likelihood (mean over an image's pixels), by slot (diagonal Fisher).

    Labels are maps of a segmentation network's images, or numbers of a classifier's.

    Source: Matena & Raffel 2022, with the true labels as the paper uses it.
    """
    model: Any = loaded.model
    space = read_label_set(protocol).classes if protocol else images.classes or loaded.classes
    raw = np.arange(256, dtype=np.uint8)
    if images.ids:
        labels = label_set_of_ids(images.ids)
        space, raw = labels.classes, labels.table(images.ids)
    rows = match_classes(space, loaded.classes, images.name, loaded.label)[raw]  # stored id -> the model's row
    squares = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for index in range(count):
        progress("Measuring", index, count)
        sample = images.read(index)
        label = torch.as_tensor(rows[np.clip(sample.label, 0, 255)].astype(np.int64))
        if (label == 255).all():
            continue  # nothing in it that the model knows
        pixels = loaded.image_processor(sample.image, return_tensors="pt")["pixel_values"]
        model.zero_grad(set_to_none=True)
        logits = model(pixels).logits
        if label.ndim:
            logits = nn.functional.interpolate(logits, label.shape, mode="bilinear", align_corners=False)
        loss: Any = nn.functional.cross_entropy(logits, label[None], ignore_index=255)
        loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                squares[name] += parameter.grad**2
    model.zero_grad(set_to_none=True)
    return _by_slot(model, {name: total / count for name, total in squares.items()})


@torch.no_grad()
def grams(loaded: LoadedModel, images: Images, count: int, progress: Progress) -> dict[str, Tensor]:
    """X^T X of every linear layer's and convolution's inputs, mean over images, by the slot of its weight.

    Source: Jin et al. 2023 (RegMean); a convolution's inputs are its windows. Depthwise convolutions and layers of
    more than `LARGEST_GRAM` inputs have none, and are averaged.
    """
    model: Any = loaded.model
    totals: dict[str, Tensor] = {}
    with _watched(model, totals):
        for index in range(count):
            progress("Measuring", index, count)
            model(loaded.image_processor(images.read(index).image, return_tensors="pt")["pixel_values"])
    atoms = map_slots({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}).atoms
    found = {}
    for name, total in totals.items():
        for atom in atoms[f"{name}.weight"]:  # layers that are stored as one share their inputs
            found[atom.slot] = (total / count).clone()
    return found


@contextmanager
def _watched(model: nn.Module, totals: dict[str, Tensor]) -> Iterator[None]:
    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = _rows(layer, inputs[0])
            totals[name] = totals.get(name, 0) + rows.T @ rows

        return add

    handles = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and getattr(layer, "groups", 1) == 1:
            weight: Any = layer.weight
            if math.prod(weight.shape[1:]) <= LARGEST_GRAM:
                handles.append(layer.register_forward_pre_hook(watch(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A layer's inputs as rows of a matrix: (positions, inputs)."""
    if isinstance(layer, nn.Conv2d):
        padding: Any = layer.padding
        windows = nn.functional.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)
        return windows.transpose(1, 2).reshape(-1, windows.shape[1])
    return inputs.reshape(-1, inputs.shape[-1])


def _by_slot(model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    atoms = map_slots({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}).atoms
    return {atom.slot: _cut(values[name], atom) for name, parts in atoms.items() if name in values for atom in parts}


def _cut(values: Tensor, atom: Atom) -> Tensor:
    return values.reshape(-1)[atom.start : atom.start + math.prod(atom.shape)].reshape(atom.shape).detach().clone()
