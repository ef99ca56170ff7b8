"""Map a torch module's tensors to slots, and fill the module from a checkpoint."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.torch_tensors import TORCH_DTYPES
from hf_lwmm.describing.network_slots import misfits, some, surplus
from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import Atom, SlotMap, map_slots

_TORCH = {stored: getattr(torch, name) for name, stored in TORCH_DTYPES.items() if hasattr(torch, name)}


def slots_of(module: nn.Module) -> SlotMap:
    """Return the slots of a module's state dict; its tensors may be on any device, also on "meta"."""
    return map_slots({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})


def places_of(atom: Atom) -> slice | torch.Tensor:
    """Return where the elements of a slot are in a flattened tensor of a module, in the order of the slot."""
    count = math.prod(atom.shape)
    if atom.order is None:
        return slice(atom.start, atom.start + count)
    return torch.from_numpy(atom.order.to_slot(np.arange(count)))


def fill(module: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """Copy a checkpoint's values into a module, slot by slot, whatever layout the checkpoint has.

    Values are converted to the module's dtypes and moved to its device. BatchNorm's counters that the checkpoint lacks
    keep their value.

    Returns:
        A note on the tensors of the checkpoint that the module does not have, if there are any.

    Raises:
        LayoutError: listing the slots that are missing or of another shape.
    """
    state, own, given = module.state_dict(), slots_of(module), checkpoint.slot_map.slots
    if faults := misfits(own.shapes, checkpoint.slot_map.shapes):
        raise LayoutError(f"{checkpoint.label} does not fit {type(module).__name__}: {faults}.")
    for name, atoms in own.atoms.items():
        flat = state[name].view(-1)
        for atom in atoms:
            if atom.slot in given:
                stored = checkpoint.tensors[given[atom.slot].tensor].dtype
                values = torch.from_numpy(checkpoint.slot_bytes(atom.slot)).view(_TORCH[stored])
                flat[places_of(atom)] = values.to(flat.device, flat.dtype)
    unused = surplus(own.shapes, checkpoint.slot_map.shapes)
    return [f"{checkpoint.label}: {len(unused)} tensors are not used ({some(unused)})"] if unused else []


def state_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors as a state dict."""
    state = {}
    for name, info in checkpoint.tensors.items():
        state[name] = torch.empty(info.shape, dtype=_TORCH[info.dtype])
        checkpoint.read_stored(name, 0, state[name].view(-1).view(torch.uint8).numpy())
    return state
