"""Load the network that a merge wrote, and prepare pictures for a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.networks.loading import load
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.planning.plan import MergePlan


def load_merged(plan: MergePlan, folder: Path, network: NetworkOptions = NetworkOptions()) -> LoadedModel:
    """Load the network that `write_network` wrote for a plan, under the anchor's name and with its classes.

    Where the anchor states no classes, they are those of the plan's `labels`. `network` gives system, device and type;
    its own labels and branch are about files of parents, not about this one.

    Raises:
        LayoutError: if there is no network for the anchor.
    """
    labels = (plan.anchor.classes,) if plan.anchor.classes else plan.knobs.labels
    return load(folder, replace(network, labels=labels, branch="student"), plan.anchor.label)


def pixels_of(loaded: LoadedModel, pictures: Sequence[Image.Image]) -> Tensor:
    """Return pictures as a network takes them: (N, 3, H, W), on its device and in its type."""
    weight = next(iter(loaded.model.parameters()))
    pixels: Tensor = loaded.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
    return pixels.to(weight.device, weight.dtype)
