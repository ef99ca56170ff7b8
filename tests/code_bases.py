"""One network in two code bases: random weights in one, converted by hf-lwmm, and loaded into the other."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import hf_lwmm
from hf_lwmm.layouts import depth_order, map_slots, place_of, registration_order

Tensors = dict[str, torch.Tensor]
# What transformers' and Microsoft's code computes when it builds a network.
_BUFFERS = re.compile(r"relative_position_index|relative_coords_table|attn_mask|num_batches_tracked|position_ids")


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill a module with random weights and running statistics that keep the sizes of its features; return it."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or _BUFFERS.search(name):
            continue
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        else:
            width = tensor[0].numel() if tensor.ndim > 1 and len(tensor) > 1 else 4
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / width**0.5)
    module.eval()
    return module


def saved_names(network: nn.Module) -> list[str]:
    """Return the names under which transformers writes a network's tensors."""
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)  # type: ignore[operator]
        return sorted(load_file(Path(folder) / "model.safetensors"))


def converted(
    tensors: Mapping[str, torch.Tensor], to: str, *, without: str = "", backbone_only: bool = False
) -> Tensors:
    """Return tensors in the names of another code base, without a prefix, converted from one file to another."""
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder) / "one.safetensors", Path(folder) / "other.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, one)
        hf_lwmm.convert(one, other, to=to, backbone_only=backbone_only)
        return {name.removeprefix(without): tensor for name, tensor in load_file(other).items()}


def load(network: nn.Module, tensors: Mapping[str, torch.Tensor], unused: str = r"\Z.") -> None:
    """Load all tensors into a network, which must have all of its own but for buffers and names that match `unused`."""
    missing, unexpected = network.load_state_dict(dict(tensors), strict=False)
    assert not unexpected
    assert [name for name in missing if not _BUFFERS.search(name) and not re.search(unused, name)] == []


def assert_agree(one: torch.Tensor, other: torch.Tensor) -> None:
    """Assert that two outputs differ by at most 1e-5 of their spread."""
    assert one.shape == other.shape
    assert one.std() > 0
    assert (one - other).abs().max() <= 1e-5 * (one.max() - one.min())


def picture(size: int = 64) -> torch.Tensor:
    """Return a random picture (1, 3, size, size)."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(7))


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a network."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def assert_in_registered_order(network: nn.Module) -> None:
    """Assert that a layout knows every tensor, and the order in which the network registers them."""
    found = map_slots(dict(sorted(shapes(network).items())))
    assert [slot for slot in found.slots if place_of(slot) is None] == []
    assert registration_order(found) == list(network.state_dict())


def assert_in_forward_order(network: nn.Module, size: int = 64) -> None:
    """Assert that depth is the order in which a forward pass first calls the modules."""
    order = called(network, size)
    found = map_slots(shapes(network))
    ranks = []
    for slot in depth_order(found.slots):
        module = found.slots[slot].tensor.rpartition(".")[0]
        if module in order:
            ranks.append(order.index(module))
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(order)


@torch.no_grad()
def called(network: nn.Module, size: int) -> list[str]:
    """Return the modules with weights and without children, in the order in which a forward pass first calls them."""
    order: dict[str, None] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda *_: order.setdefault(name)

    for name, module in network.named_modules():
        if next(iter(module.parameters(recurse=False)), None) is not None and not list(module.children()):
            module.register_forward_pre_hook(note(name))
    network.eval()(picture(size))
    return list(order)
