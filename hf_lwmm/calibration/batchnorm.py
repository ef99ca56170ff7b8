"""Estimate BatchNorm's running statistics again, with the merged network on images of the target domain."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

from hf_lwmm.calibration.bn_choice import better_bn_stats
from hf_lwmm.calibration.merged_network import load_merged, pixels_of
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hf_lwmm.checkpoints.dtypes import ITEM_SIZES, TORCH_NAMES, narrow
from hf_lwmm.checkpoints.safetensors_file import read_header
from hf_lwmm.data.unlabelled import ImageSequence, open_unlabelled_images
from hf_lwmm.errors import PlanError
from hf_lwmm.evaluation.inference import naming_size
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.files.byte_file import LocalFile, write_all
from hf_lwmm.files.scratch import scratch_folder
from hf_lwmm.hub import parse_ref, resolve
from hf_lwmm.networks.finite import check_outputs
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.networks.module_slots import slots_of
from hf_lwmm.planning.images import ImageProvenance, ImageSource, image_provenance
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.progress import Progress, silent

BATCH = 32  # images that pass a classifier together
EPSILON = 1e-5  # at least: a channel that is constant in an image has no variance


@dataclass(frozen=True)
class Recalibration:
    """A re-estimation of running statistics: the images, the part `mix` of the estimates that was kept, and notes.

    With a mix of 0 the files are as they were before.
    """

    images: ImageProvenance
    mix: float
    notes: tuple[str, ...] = ()


def recalibrate(
    plan: MergePlan,
    folder: Path,
    images: ImageSource,
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    network: NetworkOptions = NetworkOptions(),
    evaluation: EvaluationSpec = EvaluationSpec(),
    progress: Progress = silent,
) -> Recalibration:
    """Estimate the running statistics again in the files that `write_network` wrote; nothing else in them changes.

    The plan's `bn_mix` is the part of the estimates that goes in, the rest being the merged statistics; if it is None,
    all or nothing does, whichever is better on these images. The network computes in float32, whatever `network` says,
    so that the recipe alone decides the file. Even so sums of floating-point numbers can end in other bits on a machine
    with other kernels, and so can the file.

    Args:
        plan: the plan that was written.
        folder: the folder that it was written into.
        images: the images, whose labels are read only to tell what is better; the split is train if the source names
            none.
        names: the names that tensors of the anchor have in the files, where they have others there.
        network: system and device of the network.
        evaluation: how networks are scored to tell what is better.

    Raises:
        DatasetError: if the images cannot be read.
        PlanError: if the network has no BatchNorm, or has it under names that the file does not know.
        LayoutError: if there is no network for the anchor.
    """
    source = replace(images, split=images.split or "train")
    opened, options = open_unlabelled_images(source), replace(network, compute_dtype="float32")
    loaded, mix = load_merged(plan, folder, options), plan.knobs.bn_mix
    provenance = image_provenance(source, str(source.split), opened.count, opened.commit)
    found = estimate_bn_stats(loaded, opened, progress)
    merged = _stored(folder, found, loaded.label)
    if mix is not None:
        mixed = {slot: merged[slot].lerp(found[slot].cpu().double(), mix) for slot in found}
        _write(folder, plan.anchor, names, found if mix == 1 else mixed)
        return Recalibration(provenance, mix)
    before = load_merged(plan, folder, options)
    _write(folder, plan.anchor, names, found)
    with scratch_folder() as partial:
        after = load_merged(plan, folder, options)
        choice = better_bn_stats(before, after, opened, source, evaluation, partial=partial, progress=progress)
    if not choice.estimated:
        _write(folder, plan.anchor, names, merged)
    return Recalibration(provenance, float(choice.estimated), (choice.note,))


@torch.no_grad()
def estimate_bn_stats(loaded: LoadedModel, images: ImageSequence, progress: Progress = silent) -> dict[str, Tensor]:
    """Return the mean and the variance of the inputs of every BatchNorm layer on all images, by slot.

    Both are averages over images of a layer's statistics in one image (the variance unbiased), with the layers before
    it normalising by the image's own: the cumulative average that `torch.optim.swa_utils.update_bn` makes of batches.
    All other layers stay in evaluation mode. Images of a classifier, which all have one size, pass it in batches. The
    network must not be used afterwards.

    Returns:
        A tensor (channels,) for each slot of a running mean or variance that some image reaches.

    Raises:
        PlanError: if there is no such layer, or an image has only one value for a channel, which has no variance.
        OutputError: if the network computes what is not finite.
    """
    model: Any = loaded.model
    layers, missing = _thawed(model)
    if not layers:
        raise PlanError(f"{loaded.label}: its network has no BatchNorm, so --bn-stats recalibrate has nothing to do.")
    batches = math.ceil(images.count / BATCH) if loaded.task == "classification" else images.count
    for done, batch in enumerate(np.array_split(range(images.count), batches)):
        progress("Recalibrating", done, batches)
        read = [images.read(int(index)) for index in batch]
        pixels = pixels_of(loaded, [each.image for each in read])
        try:
            with naming_size(loaded, pixels, f"{images.name}: "):
                outputs = model(pixels)
        except ValueError as error:
            raise PlanError(
                f"{images.name}: --bn-stats recalibrate cannot estimate a variance where {loaded.label} normalises a "
                f"single value of an image; larger ones may help, but not behind global pooling ({error})."
            ) from None
        remedy = "Keep the merged statistics: --bn-stats linear."
        check_outputs(loaded, outputs, pixels, f"{images.name}, {read[0].name}", remedy)
    atoms, found = slots_of(model).atoms, {}
    for name, layer in layers.items():
        if layer.num_batches_tracked:  # a layer that no image reaches keeps what it has
            for leaf in ("running_mean", "running_var"):
                values = getattr(layer, leaf) + (missing.get(name, 0) if leaf == "running_var" else 0)
                for atom in atoms[f"{name}.{leaf}"]:
                    found[atom.slot] = values[atom.start : atom.start + math.prod(atom.shape)]
    return found


def _thawed(model: nn.Module) -> tuple[dict[str, _BatchNorm], dict[str, float]]:
    """The layers with running statistics, set to average them over all batches.

    Frozen layers are replaced first. One that lacks an epsilon gets one, and its variance has to make up for it later:
    the second value is by how much.
    """
    missing = {}
    for name, frozen in [each for each in model.named_modules() if isinstance(each[1], FrozenBatchNorm2d)]:
        thawed = nn.BatchNorm2d(len(frozen.weight), max(frozen.eps, EPSILON)).to(frozen.weight)
        thawed.weight.copy_(frozen.weight)
        thawed.bias.copy_(frozen.bias)
        model.set_submodule(name, thawed)
        missing[name] = thawed.eps - frozen.eps
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    layers = {name: layer for name, layer in layers.items() if layer.running_mean is not None}
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    return layers, missing


def _stored(folder: Path, found: Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """The statistics that a written checkpoint has, float64, in the slots of `found`."""
    checkpoint = open_checkpoint(resolve(parse_ref(folder)))
    try:
        slots = checkpoint.slot_map.slots
        if unknown := [slot for slot in found if slot not in slots]:
            raise PlanError(
                f"{label}: --bn-stats recalibrate cannot tell where its file has the statistics of its network "
                f"({unknown[0]})."
            )
        sizes = {slot: math.prod(slots[slot].shape) for slot in found}
        return {slot: torch.from_numpy(checkpoint.slot_values(slot, 0, size).copy()) for slot, size in sizes.items()}
    finally:
        checkpoint.close()


def _write(folder: Path, anchor: Checkpoint, names: Mapping[str, str], found: Mapping[str, Tensor]) -> None:
    """Put statistics in the place of those that the written files have of the anchor's slots."""
    for path in folder.glob("*.safetensors"):
        _write_file(path, anchor, names, found)


def _write_file(path: Path, anchor: Checkpoint, names: Mapping[str, str], found: Mapping[str, Tensor]) -> None:
    """Put statistics in their places in one of the written files."""
    with contextlib.closing(LocalFile(path)) as file:
        header = read_header(file)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for slot, values in found.items():
            atom = anchor.slot_map.slots[slot]
            name = names.get(atom.tensor, atom.tensor)
            if name not in header.tensors:
                continue
            dtype = header.tensors[name].dtype
            kind = TORCH_NAMES[dtype]
            if not values.to(getattr(torch, kind)).isfinite().all():
                raise PlanError(
                    f"{anchor.label}: --bn-stats recalibrate finds statistics that {kind} cannot hold ({slot}); "
                    "write them in another type (--dtype float32)."
                )
            place = header.starts[name] + atom.start * ITEM_SIZES[dtype]
            write_all(descriptor, narrow(values.cpu().numpy(), dtype).data, place)
    finally:
        os.close(descriptor)
