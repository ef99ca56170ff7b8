"""Networks of the user's own code that store elements in another order than slots have: MMSegmentation's Swin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from manifests import stored, write
from safetensors.torch import load_file
from tiny import NAMES, scene, tree
from torch import Tensor, nn

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.hub.refs import parse_ref

ARRAYS = stored("mmseg1x_upernet_swin", 1, shrink=8)
MERGING = "backbone.stages.0.downsample"


class Swin(nn.Module):
    """All tensors of the Swin, of which a norm and a linear layer that merge patches are used."""

    def __init__(self) -> None:
        super().__init__()
        for name, array in ARRAYS.items():
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            value = torch.zeros(array.shape, dtype=torch.from_numpy(array).dtype)
            if value.is_floating_point():
                module.register_parameter(leaf, nn.Parameter(value))
            else:
                module.register_buffer(leaf, value)
        rows, columns = ARRAYS[f"{MERGING}.reduction.weight"].shape
        self.get_submodule(MERGING).reduction = nn.Linear(columns, rows, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        merging = self.get_submodule(MERGING)
        width = merging.norm.weight.numel()
        patches = pixels.mean(dim=1)[..., None] * torch.linspace(-1, 1, width) * merging.norm.weight
        return merging.reduction(patches)[..., : len(NAMES)].permute(0, 3, 1, 2)


OWN = hf_lwmm.NetworkOptions(network=lambda config, classes: Swin(), labels=(NAMES,))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model.safetensors", ARRAYS)


def in_slot_order(path: Path, tensor: str) -> tuple[str, Tensor]:
    """The slot of a tensor that a file stores in another order, and its elements."""
    checkpoint = open_checkpoint(hub.resolve(parse_ref(path)))
    (atom,) = checkpoint.slot_map.atoms[tensor]
    assert atom.order is not None
    return atom.slot, torch.from_numpy(checkpoint.slot_values(atom.slot)).float()


def test_a_network_gets_elements_in_the_order_of_its_own_code(model: Path) -> None:
    state = hf_lwmm.load(model, OWN).model.state_dict()
    assert all(torch.equal(state[name], torch.from_numpy(array)) for name, array in ARRAYS.items())


def test_measurements_are_in_the_order_of_slots(model: Path, tmp_path: Path) -> None:
    images = hf_lwmm.ImageSource(tree(tmp_path / "data", 1), limit=1)
    for kind in ("grams", "fisher"):
        hf_lwmm.measure(model, images, tmp_path / f"{kind}.safetensors", kind=kind, network=OWN)
    loaded, (picture, label), merged = hf_lwmm.load(model, OWN), scene(0), []
    layer = loaded.model.get_submodule(f"{MERGING}.reduction")
    layer.register_forward_hook(lambda module, inputs, output: merged.append(output.flatten(0, -2)))
    logits = loaded.model(loaded.image_processor(picture, return_tensors="pt")["pixel_values"]).logits
    target = torch.from_numpy(label.astype(np.int64))[None]
    gradient = torch.autograd.grad(nn.functional.cross_entropy(logits, target, ignore_index=255), layer.weight)[0]

    name = f"{MERGING}.reduction.weight"
    slot, weight = in_slot_order(model, name)
    gram = load_file(tmp_path / "grams.safetensors")[slot]
    rows = weight.reshape(-1, len(gram))
    torch.testing.assert_close(rows @ gram @ rows.T, merged[0].T @ merged[0], rtol=1e-3, atol=1e-2)
    squares = {each: array if each != name else (gradient**2).numpy() for each, array in ARRAYS.items()}
    _, wanted = in_slot_order(write(tmp_path / "squares.safetensors", squares), name)
    found = load_file(tmp_path / "fisher.safetensors")[slot].flatten()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-9)
