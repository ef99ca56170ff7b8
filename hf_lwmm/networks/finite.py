"""Refuse weights and outputs that are no finite numbers: any metric would take them for a choice of the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.errors import CheckpointError, OutputError
from hf_lwmm.layouts import is_variance
from hf_lwmm.networks.module_slots import slots_of

# What networks call the outputs that predictions are made of. Others may be infinite by design, such as the places
# that transformers' detectors leave out.
_SCORED = (
    *("logits", "pred_boxes", "box_logits", "box_deltas", "rpn_logits", "rpn_deltas"),
    *("mask_logits", "center_heatmap", "center_offsets"),
)
_WIDE = ("float32", "float64")


class Named(Protocol):
    """A network with a name for messages, as `LoadedModel` of `hf_lwmm.networks.loaded_model` is one."""

    @property
    def model(self) -> Any: ...

    @property
    def label(self) -> str: ...


def check_weights(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse a network that was filled from a checkpoint with what is not finite, or with a variance below 0.

    Raises:
        CheckpointError: naming the tensor and the remedy.
    """
    for name, values in module.state_dict().items():
        kind = _name(values)
        if values.is_floating_point() and not is_finite(values):
            remedy = "" if kind in _WIDE else f", or compute in another type: {_other(kind)}"
            fault = f"has a value that is not finite in {kind}. Repair the checkpoint{remedy}."
        elif is_variance(name) and bool((values < 0).any()):
            fault = "is a variance, and has a value below 0. Repair the checkpoint."
        else:
            continue
        stored = checkpoint.slot_map.slots.get(slots_of(module).atoms[name][0].slot)
        raise CheckpointError(f"{checkpoint.label}: its tensor {(stored.tensor if stored else name)!r} {fault}")


def check_outputs(network: Named, outputs: Any, pixels: Tensor, picture: str = "", remedy: str = "") -> None:
    """Refuse what a network of finite weights returned for pictures if it is not finite.

    Args:
        network: the network.
        outputs: what it returned, or the tensors that predictions are made of.
        pixels: what it was given.
        picture: the name of the picture, if it has one.
        remedy: what to do about it; to compute in another type if empty.

    Raises:
        OutputError: naming the network, the picture and the remedy.
    """
    if not all(map(is_finite, _scored(outputs))):
        where = f"{network.label}: what it computes for {picture or 'a picture'} is not finite"
        raise OutputError(f"{where}: it {overflow(pixels, remedy)}")


def is_finite(values: Tensor) -> bool:
    """Return True if all values are finite numbers, at the cost of one sum."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def overflow(values: Tensor, remedy: str = "") -> str:
    """Return what to say of values that overflow: "overflows float16. Compute in another type: ..."."""
    kind = _name(values)
    return f"overflows {kind}. {remedy or f'Compute in another type: {_other(kind)}.'}"


def _name(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _other(kind: str) -> str:
    return f"--compute-dtype {'float64' if kind in _WIDE else 'float32'}"


def _scored(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif type(outputs) in (list, tuple):
        for each in outputs:
            yield from _scored(each)
    else:
        for name in _SCORED:
            yield from _scored(getattr(outputs, name, ()))
