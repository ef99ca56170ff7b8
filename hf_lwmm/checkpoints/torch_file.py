"""Read and write torch files (`.bin`, `.pth`, `.pt`, `.ckpt`). Reading one needs no torch and runs nothing in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_lwmm.checkpoints.containers import SPLIT_KEYS, find_network
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.checkpoints.torch_archive import read_archive
from hf_lwmm.checkpoints.torch_tensors import TorchReader, stored_tensors
from hf_lwmm.errors import CheckpointError, naming_extras
from hf_lwmm.files.byte_file import ByteFile

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")


@dataclass(frozen=True)
class TorchFile:
    """The tensors of one torch file by stored name, and the facts in its container.

    `chosen`, `lightning` and `whole` are those of `Network`.
    """

    tensors: Mapping[str, TensorInfo]
    reader: TorchReader
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]
    metadata: Mapping[str, str]
    chosen: bool
    lightning: bool
    whole: bool


def read_torch_file(file: ByteFile, branch: str = "student") -> TorchFile:
    """Open a torch file without running anything in it, and without reading a value of its tensors.

    `branch` picks the student or the EMA teacher where a container has an entry for each, or an entry by its name.

    Raises:
        CheckpointError: if it is no torch file, is truncated or damaged, has no state dict or module, or a tensor in it
            is not of a known kind.
    """
    archive = read_archive(file)
    network = find_network(archive.tree, branch, file.name)
    tensors = stored_tensors(network.tensors, archive, file)
    reader = TorchReader(file, archive, tensors, network.holders)
    infos = {name: tensor.info for name, tensor in tensors.items()}
    facts = (network.classes, network.notes, network.metadata)
    return TorchFile(infos, reader, *facts, network.chosen, network.lightning, network.whole)


def write_torch_file(weights: Path, target: Path) -> None:
    """Save the tensors of a safetensors file as a state dict, with the two halves of FADA's networks apart.

    Raises:
        CheckpointError: if torch lacks a tensor's type.
    """
    with naming_extras(f"Writing {target.name}"):
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

    try:
        state: dict[str, Any] = load_file(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{target.name}: torch cannot hold its tensors ({error}). Write safetensors.") from None
    if {name.partition(".")[0] for name in state} == set(SPLIT_KEYS):
        state = {
            half: {name[len(half) + 1 :]: tensor for name, tensor in state.items() if name.startswith(half + ".")}
            for half in SPLIT_KEYS
        }
    torch.save(state, target)
