"""The golden lists of names, shapes and types that the real implementations have, and files made from them."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from hf_lwmm.layouts import SlotMap, map_slots

_FOLDER = Path(__file__).parent / "golden" / "key_manifests"
NAMES = tuple(
    p.name.removesuffix(".json.gz") for p in sorted(_FOLDER.glob("*.json.gz")) if "forward_order" not in p.name
)
FORWARD_ORDERS = tuple(p.name.split(".")[0] for p in sorted(_FOLDER.glob("*.forward_order.json.gz")))

Arrays = dict[str, np.ndarray]


def manifest(system: str) -> list[tuple[str, tuple[int, ...], str]]:
    """(name, shape, dtype) of every tensor, in the order in which the system's code registers them."""
    content = json.loads(gzip.decompress((_FOLDER / f"{system}.json.gz").read_bytes()))
    return [(name, tuple(shape), dtype) for name, shape, dtype in content["keys"]]


def forward_order(system: str) -> list[str]:
    """Module names in the order in which a forward pass first enters them."""
    return list(json.loads(gzip.decompress((_FOLDER / f"{system}.forward_order.json.gz").read_bytes())))


@cache
def slot_map(system: str, shrink: int = 1) -> SlotMap:
    return map_slots({name: shape for name, shape, _ in shrunk(system, shrink)})


def shrunk(system: str, factor: int) -> list[tuple[str, tuple[int, ...], str]]:
    """The manifest of a network whose layers are narrower by a factor; classes and kernels stay what they are."""
    return [(n, tuple(d // factor if d >= 64 else d for d in shape), dtype) for n, shape, dtype in manifest(system)]


def drawn(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 values that depend on the name alone, of the size that such a parameter usually has."""
    generator = np.random.default_rng([zlib.crc32(name.encode()), seed])
    if name.endswith("running_var"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1
    return np.asarray(scale * generator.standard_normal(shape), np.float32)


def slot_values(slots: SlotMap, seed: int = 0) -> Arrays:
    """Values for every slot, the same for a slot whatever layout it is stored in."""
    return {slot: drawn(slot, atom.shape, seed) for slot, atom in slots.slots.items()}


def stored(system: str, seed: int = 0, keep: str = "", shrink: int = 1) -> Arrays:
    """The system's tensors with `slot_values`, in its own layout; only names that start with `keep`."""
    slots = slot_map(system, shrink)
    arrays: Arrays = {}
    for name, shape, dtype in shrunk(system, shrink):
        if not name.startswith(keep):
            continue
        if "int" in dtype:
            arrays[name] = np.array(1000 * (seed + 1), np.int64).reshape(shape)
        else:
            pieces = [drawn(atom.slot, atom.shape, seed) for atom in slots.atoms[name]]
            arrays[name] = np.concatenate(pieces).reshape(shape) if len(pieces) > 1 else pieces[0].reshape(shape)
    return arrays


def to_slots(arrays: Arrays) -> Arrays:
    """Stored tensors cut into slots."""
    slots = map_slots({name: array.shape for name, array in arrays.items()})
    return {
        slot: arrays[atom.tensor].reshape(-1)[atom.start : atom.start + math.prod(atom.shape)].reshape(atom.shape)
        for slot, atom in slots.slots.items()
    }


def write(path: Path, arrays: Arrays) -> Path:
    """A safetensors file, as torch code writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: array.copy() for name, array in arrays.items()}, path, metadata={"format": "pt"})
    return path
