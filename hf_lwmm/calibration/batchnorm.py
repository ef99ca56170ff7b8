"""Running statistics of BatchNorm, re-estimated with the merged network on images of the target domain."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

from hf_lwmm.calibration.tuning import load_merged
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.checkpoints.dtypes import ITEM_SIZES, TORCH_NAMES, narrow
from hf_lwmm.checkpoints.safetensors_file import read_header
from hf_lwmm.data.pictures import Images, open_unlabelled_images
from hf_lwmm.data.rows import first_line
from hf_lwmm.errors import PlanError
from hf_lwmm.hub.client import resolve
from hf_lwmm.hub.refs import parse_ref
from hf_lwmm.layouts import map_slots
from hf_lwmm.networks.loading import LoadedModel
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.provenance import ImageProvenance, image_provenance
from hf_lwmm.progress import Progress

BATCH = 32  # images that pass a classifier together
EPSILON = 1e-5  # at least: a channel that is constant in an image has no variance
_OF_PICTURES = ("config", "image_column")


def recalibrate(
    plan: MergePlan,
    folder: Path,
    data: str | Path,
    options: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> ImageProvenance:
    """Re-estimate the running statistics in the files that `write_network` wrote; nothing else in them changes.

    Sums of floating-point numbers can end in other bits on a machine with other kernels, and so can the file.

    Args:
        data: `org/name[@revision]` on the Hub, or a folder; labels are not read.
        options: `split` (train if not given), `limit` (all images if not given), `config`, `image_column`, `system` and
            `device`.

    Raises:
        DatasetError: if the images cannot be read.
        PlanError: if the network has no BatchNorm, or has it under names that the file does not know.
        LayoutError: if there is no network for the anchor.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    split, limit = str(given.get("split", "train")), given.get("limit")
    loading = {name: given[name] for name in ("system", "device") if name in given}
    images = open_unlabelled_images(data, split, **{name: given[name] for name in _OF_PICTURES if name in given})
    count = images.count if limit is None else min(limit, images.count)
    loaded = load_merged(plan, folder, **loading)
    _write(folder, statistics(loaded, images, count, progress), loaded.label)
    return image_provenance(data, split, count, images.commit, given)


@torch.no_grad()
def statistics(loaded: LoadedModel, images: Images, count: int, progress: Progress) -> dict[str, Tensor]:
    """Mean and variance of what every BatchNorm layer of a network sees in the first images, by slot.

    Both are averages over images of a layer's statistics in one image (variance unbiased), with the layers before it
    normalising by the image's own: a cumulative average, as `torch.optim.swa_utils.update_bn` makes it of batches. All
    other layers stay in evaluation mode. Images of a classifier, which all have one size, pass it in batches. The
    network is of no use afterwards.

    Raises:
        PlanError: if there is no such layer, or an image has one value for a channel, which has no variance.
    """
    model: Any = loaded.model
    layers, lacking = _thawed(model)
    if not layers:
        raise PlanError(f"{loaded.label}: its network has no BatchNorm, so --bn recalibrate has nothing to do.")
    weight = next(iter(model.parameters()))
    batches = math.ceil(count / BATCH) if loaded.task == "classification" else count
    for done, batch in enumerate(np.array_split(range(count), batches)):
        progress("Recalibrating", done, batches)
        pictures = [images.read(int(index)).image for index in batch]
        pixels = loaded.image_processor(pictures, return_tensors="pt")["pixel_values"]
        try:
            model(pixels.to(weight.device, weight.dtype))
        except ValueError as error:
            raise PlanError(
                f"{images.name}: --bn recalibrate cannot estimate a variance where {loaded.label} normalises a single "
                f"value of an image; larger ones may help, but not behind global pooling ({error})."
            ) from None
        except RuntimeError as error:  # too few pixels, or too many
            height, width = pixels.shape[-2:]
            seen = f"{loaded.label} cannot see {height} x {width} pixels: {first_line(error)}"
            raise PlanError(f"{images.name}: {seen}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    atoms = map_slots(shapes).atoms
    found = {}
    for name, layer in layers.items():
        if layer.num_batches_tracked:  # a layer that no image reaches keeps what it has
            for leaf in ("running_mean", "running_var"):
                values = getattr(layer, leaf) + (lacking.get(name, 0) if leaf == "running_var" else 0)
                for atom in atoms[f"{name}.{leaf}"]:
                    found[atom.slot] = values[atom.start : atom.start + math.prod(atom.shape)]
    return found


def _thawed(model: nn.Module) -> tuple[dict[str, _BatchNorm], dict[str, float]]:
    """The layers with running statistics, set to average them over all batches.

    Frozen ones are replaced first; these may lack an epsilon, which their variances then have to make up for.
    """
    lacking = {}
    for name, frozen in [each for each in model.named_modules() if isinstance(each[1], FrozenBatchNorm2d)]:
        thawed = nn.BatchNorm2d(len(frozen.weight), max(frozen.eps, EPSILON)).to(frozen.weight)
        thawed.weight.copy_(frozen.weight)
        thawed.bias.copy_(frozen.bias)
        model.set_submodule(name, thawed)
        lacking[name] = thawed.eps - frozen.eps
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    layers = {name: layer for name, layer in layers.items() if layer.running_mean is not None}
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    return layers, lacking


def _write(folder: Path, found: Mapping[str, Tensor], label: str) -> None:
    """Put values in the place of those that a written checkpoint has."""
    checkpoint = open_checkpoint(resolve(parse_ref(folder)))
    checkpoint.close()
    slots = checkpoint.slot_map.slots
    if unknown := [slot for slot in found if slot not in slots]:
        raise PlanError(
            f"{label}: --bn recalibrate cannot tell where its file has the statistics of its network ({unknown[0]})."
        )
    for path in checkpoint.paths.values():
        header = read_header(path)
        descriptor = os.open(path, os.O_WRONLY)
        try:
            for slot, values in found.items():
                atom = slots[slot]
                if atom.tensor in header.tensors:
                    dtype = header.tensors[atom.tensor].dtype
                    kind = TORCH_NAMES[dtype]
                    if not values.to(getattr(torch, kind)).isfinite().all():
                        raise PlanError(
                            f"{label}: --bn recalibrate finds statistics that {kind} cannot hold ({slot}); write them "
                            "in another type (--dtype float32)."
                        )
                    data = narrow(values.float().cpu().numpy(), dtype).data
                    place = header.starts[atom.tensor] + atom.start * ITEM_SIZES[dtype]
                    if os.pwrite(descriptor, data, place) != len(data):
                        raise OSError("the disk is full")
        finally:
            os.close(descriptor)
