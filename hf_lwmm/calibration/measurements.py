"""Measure on images what some methods must know of a model: its Fisher information, or its layers' Gram matrices."""

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
from hf_lwmm.calibration.merged_network import pixels_of
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.data.samples import LabelledImages
from hf_lwmm.data.unlabelled import ImageSequence
from hf_lwmm.errors import OutputError, PlanError
from hf_lwmm.evaluation.inference import naming_size
from hf_lwmm.evaluation.numbering import label_ids
from hf_lwmm.evaluation.protocols import scored_classes
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.targets import Target
from hf_lwmm.labels import IGNORE, match_classes
from hf_lwmm.layouts import Atom
from hf_lwmm.networks.finite import check_outputs, is_finite, overflow
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.networks.module_slots import places_of, slots_of
from hf_lwmm.networks.one_row import with_background
from hf_lwmm.planning.provenance import MeasuredModel
from hf_lwmm.progress import Progress, silent

LARGEST_GRAM = 4096  # inputs of a layer; a larger matrix would not fit beside the others


def fisher(
    loaded: LoadedModel, images: LabelledImages, protocol: str | None = None, progress: Progress = silent
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the diagonal Fisher information of a model on images, a tensor like each slot, and what was assumed.

    It is the squared gradient of the labels' log-likelihood (the mean over an image's pixels), averaged over images.
    Source: Matena & Raffel 2022, with the true labels as the paper uses it.

    Args:
        loaded: a network that segments or classifies images.
        images: images with maps of class ids or, for a classifier, with a class each.
        protocol: the label set that the images' ids stand for, if the data set does not name it.

    Raises:
        PlanError: if the images lack the labels that the network learns from, or are too small for it.
        DatasetError: if the data set and the model share no class.
        OutputError: if the network computes what is not finite.
    """
    task = "classification" if loaded.task == "classification" else "semantic"
    if images.task != task:
        wanted = "image" if task == "classification" else "pixel"
        raise PlanError(f"{images.name}: has no {wanted} labels, which Fisher information of {loaded.label} needs.")
    model: Any = loaded.model
    classes, notes = scored_classes(images, [loaded], protocol)
    ids, assumed = label_ids(images, classes)
    rows = match_classes(classes.every, loaded.classes, images.name, loaded.label)
    squares = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for index in range(images.count):
        progress("Measuring", index, images.count)
        sample = images.read(index)
        where = sample.label_place(images.name)
        own = sample.label if isinstance(sample.label, int) else ids.class_ids(sample.label, where)
        label = torch.as_tensor(rows[own].astype(np.int64))
        if (label == IGNORE).all():
            continue  # nothing in it that the model knows
        pixels = pixels_of(loaded, [sample.image])
        model.zero_grad(set_to_none=True)
        with naming_size(loaded, pixels):
            logits = with_background(model(pixels).logits, -3 if label.ndim else -1)
        check_outputs(loaded, logits, pixels, f"{images.name}, {sample.name}")
        if label.ndim:
            logits = nn.functional.interpolate(logits, label.shape, mode="bilinear", align_corners=False)
        loss: Any = nn.functional.cross_entropy(logits, label[None].to(logits.device), ignore_index=IGNORE)
        loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                squares[name] += parameter.grad**2
    model.zero_grad(set_to_none=True)
    return _by_slot(model, {name: total / images.count for name, total in squares.items()}), (*notes, *assumed)


@torch.no_grad()
def grams(loaded: LoadedModel, images: ImageSequence, progress: Progress = silent) -> dict[str, Tensor]:
    """Return X^T X of the inputs X of every linear layer and convolution, by the slot of its weight.

    A matrix is (inputs, inputs), a mean over images; a convolution's inputs are its windows. Depthwise convolutions and
    layers of more than `LARGEST_GRAM` inputs have none, and are averaged in a merge. Source: Jin et al. 2023 (RegMean).

    Raises:
        PlanError: if an image is too small for the network.
        OutputError: if the network computes what is not finite.
    """
    model: Any = loaded.model
    totals: dict[str, Tensor] = {}
    with _watched(model, totals):
        for index in range(images.count):
            progress("Measuring", index, images.count)
            image = images.read(index)
            pixels = pixels_of(loaded, [image.image])
            with naming_size(loaded, pixels):
                outputs = model(pixels)
            check_outputs(loaded, outputs, pixels, f"{images.name}, {image.name}")
    atoms, found = slots_of(model).atoms, {}
    for name, total in totals.items():
        for atom in atoms[f"{name}.weight"]:  # layers that are stored as one share their inputs
            gram = total / images.count
            if atom.order is not None:
                inputs = atom.order.to_slot(np.arange(math.prod(atom.shape)))[: len(gram)]  # of the first output
                gram = gram[inputs][:, inputs]
            found[atom.slot] = gram
    return found


def save_measurements(
    measured: Mapping[str, Tensor], target: Target | Path, *, kind: str, loaded: LoadedModel, images: int
) -> None:
    """Write measurements, a tensor by slot, as a file for `--measurements`.

    The file records the model and branch that were measured, so that it is not taken for another's, and the number of
    images.

    Raises:
        OutputError: if a value is not finite.
        MergeError: if the file cannot be written.
    """
    if faults := [slot for slot, values in measured.items() if not is_finite(values)]:
        raise OutputError(f"{loaded.label}: what is measured of {faults[0]} {overflow(measured[faults[0]])}")
    checkpoint = open_checkpoint(loaded.source, branch=loaded.branch)
    checkpoint.close()
    metadata = {"format": "pt", "hf_lwmm": __version__, "kind": kind, "images": str(images)}
    metadata |= MeasuredModel(loaded.label, hub.file_hashes(checkpoint.paths), loaded.branch).to_metadata()
    with atomic(target) as place:
        save_file({slot: tensor.cpu().contiguous() for slot, tensor in measured.items()}, place, metadata)


@contextmanager
def _watched(model: nn.Module, totals: dict[str, Tensor]) -> Iterator[None]:
    """Add the Gram matrices of all inputs that pass the layers meanwhile to `totals`, by the layers' names."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = _inputs_as_rows(layer, inputs[0])
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


def _inputs_as_rows(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A layer's inputs as the rows of a matrix: (positions, inputs)."""
    if isinstance(layer, nn.Conv2d):
        # Filled up first, as the layer does it: `padding` may be a word, such as "same", and the fill no zeros.
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        filled = nn.functional.pad(inputs, layer._reversed_padding_repeated_twice, mode)
        windows = nn.functional.unfold(filled, layer.kernel_size, layer.dilation, 0, layer.stride)
        return windows.transpose(1, 2).reshape(-1, windows.shape[1])
    return inputs.reshape(-1, inputs.shape[-1])


def _by_slot(model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by slot, from tensors by the names of a network's parameters."""
    atoms = slots_of(model).atoms
    return {atom.slot: _cut(values[name], atom) for name, parts in atoms.items() if name in values for atom in parts}


def _cut(values: Tensor, atom: Atom) -> Tensor:
    return values.reshape(-1)[places_of(atom)].reshape(atom.shape).detach().clone()
