"""Golden lists of the names, shapes and dtypes of tensors in real implementations, and files made from them."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from hf_lwmm.layouts import SlotMap, map_slots, place_of

if TYPE_CHECKING:
    import torch

_FOLDER = Path(__file__).parent / "golden" / "key_manifests"
NAMES = tuple(
    p.name.removesuffix(".json.gz") for p in sorted(_FOLDER.glob("*.json.gz")) if "forward_order" not in p.name
)
FORWARD_ORDERS = tuple(p.name.split(".")[0] for p in sorted(_FOLDER.glob("*.forward_order.json.gz")))

Arrays = dict[str, np.ndarray]


def manifest(system: str) -> list[tuple[str, tuple[int, ...], str]]:
    """Return (name, shape, dtype) of every tensor, in the order in which the system's code registers them."""
    content = json.loads(gzip.decompress((_FOLDER / f"{system}.json.gz").read_bytes()))
    return [(name, tuple(shape), dtype) for name, shape, dtype in content["keys"]]


def forward_order(system: str) -> list[str]:
    """Return module names in the order in which a forward pass first calls them."""
    return list(json.loads(gzip.decompress((_FOLDER / f"{system}.forward_order.json.gz").read_bytes())))


@cache
def slot_map(system: str, shrink: int = 1, least: int = 64) -> SlotMap:
    """Return the slots of a system's tensors, with layers of `least` and more narrower by the factor `shrink`."""
    return map_slots({name: shape for name, shape, _ in shrunk(system, shrink, least)})


def known(slots: SlotMap) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the slots that a layout knows."""
    return {slot: atom.shape for slot, atom in slots.slots.items() if place_of(slot)}


def on_meta(make: Callable[[], torch.nn.Module]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's tensors, without their values."""
    import torch  # which tests of the package without extras lack

    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


def shrunk(system: str, factor: int, least: int = 64) -> list[tuple[str, tuple[int, ...], str]]:
    """Return the manifest with layers narrower by `factor`; sizes below `least`, such as classes and kernels, stay.

    The layers of the smallest MiT are 32 wide and more. With another `least` code bases that store keys and values as
    one tensor would have other slots than those that do not.
    """
    return [(n, tuple(d // factor if d >= least else d for d in shape), dtype) for n, shape, dtype in manifest(system)]


def drawn(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return float32 values of a parameter's usual magnitude that depend only on `name`, `shape` and `seed`."""
    generator = np.random.default_rng([zlib.crc32(name.encode()), seed])
    if name.endswith("running_var"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1
    return np.asarray(scale * generator.standard_normal(shape), np.float32)


def slot_values(slots: SlotMap, seed: int = 0) -> Arrays:
    """Return values for every slot, which do not depend on the layout that it is stored in."""
    return {slot: drawn(slot, atom.shape, seed) for slot, atom in slots.slots.items()}


def stored(system: str, seed: int = 0, keep: str = "", shrink: int = 1, least: int = 64) -> Arrays:
    """Return the system's tensors whose names start with `keep`, holding `slot_values` in the system's layout."""
    slots = slot_map(system, shrink, least)
    arrays: Arrays = {}
    for name, shape, dtype in shrunk(system, shrink, least):
        if not name.startswith(keep):
            continue
        if "int" in dtype:
            arrays[name] = np.full(shape, 1000 * (seed + 1), np.int64)
        else:
            pieces = [drawn(atom.slot, atom.shape, seed) for atom in slots.atoms[name]]
            arrays[name] = np.concatenate(pieces).reshape(shape) if len(pieces) > 1 else pieces[0].reshape(shape)
    return arrays


def to_slots(arrays: Arrays) -> Arrays:
    """Cut stored tensors into slots."""
    slots = map_slots({name: array.shape for name, array in arrays.items()})
    return {
        slot: arrays[atom.tensor].reshape(-1)[atom.start : atom.start + math.prod(atom.shape)].reshape(atom.shape)
        for slot, atom in slots.slots.items()
    }


def write(path: Path, arrays: Arrays) -> Path:
    """Write a safetensors file as torch code would, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: array.copy() for name, array in arrays.items()}, path, metadata={"format": "pt"})
    return path
