"""Map a torch module's tensors to slots, compare them with a checkpoint's, and fill the module from one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.torch_tensors import TORCH_DTYPES
from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import SlotMap, map_slots

_TORCH = {stored: getattr(torch, name) for name, stored in TORCH_DTYPES.items() if hasattr(torch, name)}


def slots_of(module: nn.Module) -> SlotMap:
    """Return the slots of a module's state dict; its tensors may be on any device, also on "meta"."""
    return map_slots({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})


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
    if faults := misfits(own, checkpoint.slot_map):
        raise LayoutError(f"{checkpoint.label} does not fit {type(module).__name__}: {faults}.")
    for name, atoms in own.atoms.items():
        flat = state[name].view(-1)
        for atom in atoms:
            if atom.slot in given:
                stored = checkpoint.tensors[given[atom.slot].tensor].dtype
                values = torch.from_numpy(checkpoint.slot_bytes(atom.slot)).view(_TORCH[stored])
                flat[atom.start : atom.start + len(values)] = values
    unused = [slot for slot in given if slot not in own.slots and not _is_counter(slot)]
    return [f"{checkpoint.label}: {len(unused)} tensors are not used ({some(unused)})"] if unused else []


def state_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors as a state dict."""
    state = {}
    for name, info in checkpoint.tensors.items():
        state[name] = torch.empty(info.shape, dtype=_TORCH[info.dtype])
        checkpoint.read_elements(name, 0, state[name].view(-1).view(torch.uint8).numpy())
    return state


def misfits(network: SlotMap, checkpoint: SlotMap) -> str:
    """Return in words which slots of a network a checkpoint lacks or has in another shape; empty if it fits.

    Where some are missing, those that the checkpoint has and the network lacks may be the same under other names.

    BatchNorm's counters may be missing, as they are from frozen layers: no forward pass reads them.
    """
    needed, given = ({slot: atom.shape for slot, atom in each.slots.items()} for each in (network, checkpoint))
    missing = [slot for slot in needed if slot not in given and not _is_counter(slot)]
    other = [f"{s} is {given[s]}, not {shape}" for s, shape in needed.items() if given.get(s, shape) != shape]
    unknown = [slot for slot in given if slot not in needed and not _is_counter(slot)] if missing else []
    faults = [f"{len(missing)} slots are missing ({some(missing)})"] if missing else []
    faults += [f"{len(unknown)} of its own are unknown there ({some(unknown)})"] if unknown else []
    faults += [f"{len(other)} have another shape ({some(other)})"] if other else []
    return "; ".join(faults)


def _is_counter(slot: str) -> bool:
    return slot.endswith("num_batches_tracked")


def some(items: Sequence[str]) -> str:
    """Return the first few names in words."""
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")
