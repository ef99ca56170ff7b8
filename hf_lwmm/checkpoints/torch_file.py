"""Read torch files (`.bin`, `.pth`, `.pt`, `.ckpt`) and the containers that training code wraps state dicts in."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_lwmm.checkpoints.atomic import WEIGHT_SUFFIXES
from hf_lwmm.checkpoints.dtypes import Bytes
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.errors import CheckpointError, naming_extras

# Where training code keeps a model inside its checkpoint, most specific first.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net", "network")
_SPLIT_KEYS = ("feature_extractor", "classifier")  # FADA: one state dict for each half of the network
_WRAPPERS = {"student": "model.", "teacher": "ema_model."}
BRANCHES = tuple(_WRAPPERS)
_IMAGENET_COPY = "imnet_model."
_STARTS = (b"PK", b"\x80")  # a zip archive, or a pickle as torch wrote it before


@dataclass(frozen=True)
class TorchFile:
    """The tensors of one torch file under the names of its own layout, and the facts in its container."""

    tensors: Mapping[str, TensorInfo]
    data: Mapping[str, Bytes]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


class _Inert:
    """A stand-in for record-keeping objects in a checkpoint, which hold no weights; it runs nothing."""

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def read_torch_file(path: Path, branch: str = "student") -> TorchFile:
    """Open a torch file without running anything in it, memory-mapped where the format allows.

    `branch` picks the student or the EMA teacher from the checkpoint of a self-training run.

    Raises:
        CheckpointError: if it is no torch file, is truncated, holds more than tensors and plain values, or has no state
            dict.
        ExtraError: if torch is not installed.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if not start.startswith(_STARTS):
        raise CheckpointError(
            f"{path.name}: is no checkpoint. Safetensors files (.safetensors) and torch files "
            f"({', '.join(WEIGHT_SUFFIXES[1:])}) are read."
        )
    with naming_extras(f"Reading {path.name}"):
        import torch
    content = _load(path)
    state, notes = _state_dict(content, path.name)
    state, dropped = _unwrap(state, branch, path.name)
    names = {getattr(torch, own): name for own, name in TORCH_DTYPES.items() if hasattr(torch, own)}
    tensors, data = {}, {}
    for name, tensor in state.items():
        if tensor.dtype not in names or tensor.layout != torch.strided:
            raise CheckpointError(f"{path.name}: tensor {name!r} is {tensor.dtype}, {tensor.layout}: not supported.")
        tensors[name] = TensorInfo(names[tensor.dtype], tuple(tensor.shape))
        flat = tensor.detach().contiguous().reshape(-1)
        data[name] = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
    return TorchFile(tensors, data, _classes(content), (*notes, *dropped))


TORCH_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip


def _load(path: Path) -> Any:
    import torch

    # Plain data that mmcv and mmengine runners keep beside the weights.
    harmless: list[Any] = [
        (_Inert, "mmengine.logging.history_buffer.HistoryBuffer"),
        np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "u1", "b1")),
    ]  # fmt: skip
    # numpy's own rebuilding functions, under the names that numpy 1 and 2 pickle them.
    rebuild: Any = np.arange(1).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):
        harmless += [(rebuild, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    mapped = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(harmless):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"(?:GLOBAL|global|Unsupported class|class) `?([\w.]+\.[\w.]+)`?", str(error))
        what = f" ({blocked[1]})" if blocked else ""
        raise CheckpointError(
            f"{path.name}: this pickle asks for more than tensors{what}; loading it could run code, so it stays shut. "
            "If you trust its author, open it where it was made and save the weights alone: "
            "`safetensors.torch.save_file(model.state_dict(), 'model.safetensors')`."
        ) from None
    except Exception as error:  # a damaged pickle fails in whatever way its next byte happens to mean
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{path.name}: not a readable torch file, or a truncated one ({reason}).") from None


def _state_dict(content: Any, name: str) -> tuple[dict[str, Any], list[str]]:
    if _is_state_dict(content):
        return dict(content), []
    if isinstance(content, Mapping):
        halves = [key for key in _SPLIT_KEYS if _is_state_dict(content.get(key))]
        if len(halves) == len(_SPLIT_KEYS):
            merged = {f"{h}.{k.removeprefix('module.')}": t for h in halves for k, t in content[h].items()}
            return merged, [f"{name}: read the entries {' and '.join(halves)}"]
        for key in _STATE_DICT_KEYS:
            if _is_state_dict(content.get(key)):
                return _lightning(dict(content[key]), content), [f"{name}: read the entry {key}"]
        found = ", ".join(map(str, list(content)[:8]))
        raise CheckpointError(f"{name}: found no state dict in it, only: {found}. Save `model.state_dict()` alone.")
    raise CheckpointError(
        f"{name}: holds a {type(content).__name__}, not a state dict. Save `model.state_dict()` instead."
    )


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(k, str) for k in value) and all(hasattr(v, "storage_offset") for v in value.values())


def _lightning(state: dict[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """The network's part of a Lightning module, which also holds losses and metrics with weights of their own."""
    if "pytorch-lightning_version" not in container:
        return state
    for prefix in ("model.", "net.", "network."):
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if inner:
            return inner
    return state


def _unwrap(state: dict[str, Any], branch: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """Strip the prefixes that wrappers put before every name, never anything from the middle of a name."""
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if any(key.startswith((_WRAPPERS["teacher"], _IMAGENET_COPY)) for key in state):
        prefix = _WRAPPERS[branch]
        chosen = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not chosen:
            raise CheckpointError(f"{name}: has no {branch} weights ({prefix}*). Try the other of --branch.")
        return chosen, [f"{name}: took the {branch} ({prefix}*), {len(chosen)} of {len(state)} tensors"]
    if branch == "teacher":
        raise CheckpointError(f"{name}: has no teacher weights (ema_model.*); leave out --branch teacher.")
    if all(key.startswith("model.") for key in state):
        state = {key.removeprefix("model."): value for key, value in state.items()}
    return state, []


def _classes(content: Any) -> tuple[str, ...] | None:
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    dataset_meta = meta.get("dataset_meta")
    names = meta.get("CLASSES") or (dataset_meta.get("classes") if isinstance(dataset_meta, Mapping) else None)
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) and names else None


def write_torch_file(weights: Path, target: Path) -> None:
    """Save the tensors of a safetensors file as a state dict, with the two halves of FADA's networks apart."""
    with naming_extras(f"Writing {target.name}"):
        import torch
        from safetensors.torch import load_file

    state: dict[str, Any] = load_file(weights)
    if {name.partition(".")[0] for name in state} == set(_SPLIT_KEYS):
        state = {
            half: {name[len(half) + 1 :]: tensor for name, tensor in state.items() if name.startswith(half + ".")}
            for half in _SPLIT_KEYS
        }
    torch.save(state, target)


class MemoryReader:
    """Read bytes of tensors that are in memory or mapped into it."""

    def __init__(self, data: Mapping[str, Bytes]) -> None:
        self._data = data

    def read(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from its byte `start` on.

        Raises:
            CheckpointError: if the reader is closed.
        """
        if name not in self._data:
            raise CheckpointError(f"Tensor {name!r} cannot be read: its file was closed. Open the model again.")
        buffer[:] = self._data[name][start : start + len(buffer)].data

    def close(self) -> None:
        """Release the tensors, which cannot be read again."""
        self._data = {}
