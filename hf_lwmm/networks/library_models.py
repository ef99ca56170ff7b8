"""Networks of other libraries than transformers: how they are built from a checked configuration, filled and saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.companions import CONFIG, placeholders
from hf_lwmm.checkpoints.local_paths import without_local_paths
from hf_lwmm.checkpoints.weight_files import PREFERRED
from hf_lwmm.describing.network_slots import misfits
from hf_lwmm.errors import CheckpointError, HfLwmmError, LayoutError, first_line
from hf_lwmm.labels import LabelSet, labels_of_rows
from hf_lwmm.networks.module_slots import slots_of


@dataclass(frozen=True)
class LibraryModel:
    """A network of another library, filled from a checkpoint, which returns `ClassLogits`.

    `config` is the content of the config.json that the library reads.
    `classes` are the names of the rows, one for each. `notes` say what was assumed and left out.
    """

    module: nn.Module
    image_processor: Any
    classes: tuple[str, ...]
    task: str
    name: str
    config: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()


class _Numbers(TorchFunctionMode):
    """A mode in which `linspace` has values where other tensors have none: constructors read them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is torch.linspace and given.get("device") is None:
            given["device"] = "cpu"
        return func(*args, **given)


def built(checkpoint: Checkpoint, make: Callable[[], nn.Module], name: str) -> nn.Module:
    """Return a network that a checkpoint fits, not filled yet.

    It is made without memory first, so that a configuration of another network costs none, whatever size it asks for.

    Args:
        checkpoint: the model.
        make: makes the network as the repository's config.json describes it.
        name: what messages call it.

    Raises:
        CheckpointError: if the configuration makes no network.
        LayoutError: if the checkpoint is of another one.
    """
    try:
        with torch.device("meta"), _Numbers():
            faults = misfits(slots_of(make()).shapes, checkpoint.slot_map.shapes)
        if not faults:
            module = make()
    except HfLwmmError:
        raise
    except Exception as error:  # a contradictory configuration fails wherever the library first meets it
        why = f"its config.json does not make a {name}: {first_line(error)}"
        raise CheckpointError(f"{checkpoint.label}: {why}") from None
    if faults:
        raise LayoutError(f"{checkpoint.label} does not fit the {name} of its config.json: {faults}.")
    return module


def check_rows(checkpoint: Checkpoint, tensor: str, stated: int, entry: str) -> None:
    """Refuse a classifier of another number of rows than a config.json states.

    Args:
        checkpoint: the model.
        tensor: the classifier's weight.
        stated: the number of classes by the entry.
        entry: the entry of the config.json.

    Raises:
        CheckpointError: naming both numbers.
    """
    shape = checkpoint.tensors[tensor].shape if tensor in checkpoint.tensors else ()
    if shape and shape[0] != stated:
        raise CheckpointError(
            f"{checkpoint.label}: its config.json has {entry} {stated}, but its classifier {tensor} has {shape[0]} "
            f"rows. Write {shape[0]} there."
        )


def names_of_rows(checkpoint: Checkpoint, rows: int, label_sets: Sequence[LabelSet], notes: list[str]) -> Sequence[str]:
    """Return the names of a classifier's rows: the checkpoint's, those of a label set, or placeholders, with a note."""
    stated = checkpoint.classes
    if stated is not None and len(stated) == rows:
        return stated
    if stated is not None:
        notes.append(f"{checkpoint.label}: names {len(stated)} classes, but has {rows}, so the names were left out")
    if found := labels_of_rows(rows, label_sets):
        return found
    notes.append(f"{checkpoint.label}: names none of its {rows} classes; --labels does")
    return placeholders(rows)


def save(module: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
    """Write a network as a repository that its library loads: its tensors, and the content of its config.json.

    Args:
        module: the network.
        config: the content; paths of somebody's machine are left out.
        folder: made if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        stored = tensor.detach().cpu().contiguous()
        shared = any(stored.data_ptr() == other.data_ptr() for other in tensors.values() if other.numel())
        tensors[name] = stored.clone() if shared else stored
    save_file(tensors, folder / PREFERRED[0], metadata={"format": "pt"})
    text = json.dumps(without_local_paths(config), indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
