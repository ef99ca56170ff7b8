"""Find the network in what training code saves: a state dict, a container around one, or a whole module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hf_lwmm.checkpoints.inert_pickle import Record, shown
from hf_lwmm.checkpoints.torch_tensors import entries, is_module, is_tensor, module_state, module_tensors
from hf_lwmm.errors import CheckpointError

# Where training code keeps a model inside its checkpoint, most specific first.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net", "network")
_TEACHER_KEYS = ("ema",)  # ultralytics
SPLIT_KEYS = ("feature_extractor", "classifier")  # FADA: one state dict for each half of the network
_WRAPPERS = {"student": "model.", "teacher": "ema_model."}
BRANCHES = tuple(_WRAPPERS)
_IMAGENET_COPY = "imnet_model."

State = Mapping[str, Any]  # records of tensors by name


@dataclass(frozen=True)
class Network:
    """The tensors of one network by name, as records; its class names, None if unknown; what was chosen, and facts."""

    tensors: State
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]
    metadata: Mapping[str, str]


def find_network(content: Any, branch: str, file: str) -> Network:
    """Find a network in the content of a torch file.

    Args:
        content: what the file holds, as `read_archive` returns it.
        branch: the student or the EMA teacher of a self-training run.
        file: the file's name, for messages.

    Raises:
        CheckpointError: if there is no network, or not this branch.
    """
    state, notes, chosen = _state_dict(content, branch, file)
    state, dropped = _unwrap(state, "student" if chosen else branch, file)
    return Network(state, _classes(content), (*notes, *dropped), _metadata(content))


def _state_dict(content: Any, branch: str, file: str) -> tuple[State, list[str], bool]:
    """A network's tensors, notes, and whether a key of the container was the branch."""
    if (state := _tensors(content, file)) is not None:
        return state, [f"{file}: read the tensors of a whole module"] if is_module(content) else [], False
    found = entries(content)
    halves = [_tensors(found.get(key), file) for key in SPLIT_KEYS]
    if all(halves):
        merged = {
            f"{key}.{name.removeprefix('module.')}": tensor
            for key, half in zip(SPLIT_KEYS, halves, strict=True)
            for name, tensor in (half or {}).items()
        }
        return merged, [f"{file}: read the entries {' and '.join(SPLIT_KEYS)}"], False
    teachers = _TEACHER_KEYS if branch == "teacher" else ()
    # A finished run of ultralytics holds nothing but its EMA.
    for key in (*teachers, *_STATE_DICT_KEYS, *_TEACHER_KEYS):
        if (state := _tensors(found.get(key), file)) is not None:
            whole = ", a whole module" if is_module(found.get(key)) else ""
            return _lightning(state, found), [f"{file}: read the entry {key}{whole}"], key in teachers
    if found:
        names = ", ".join(map(shown, list(found)[:8]))
        raise CheckpointError(f"{file}: found no state dict in it, only: {names}. Save `model.state_dict()` alone.")
    kind = shown(content) if isinstance(content, Record) else type(content).__name__.strip("_")
    raise CheckpointError(f"{file}: holds a {kind}, not a state dict. Save `model.state_dict()` instead.")


def _tensors(value: Any, file: str) -> State | None:
    """The tensors of a state dict or a module; None for anything else."""
    if is_module(value):
        try:
            return dict(module_tensors(value)) or None
        except RecursionError:
            raise CheckpointError(f"{file}: its modules contain themselves, or are too many to be a network.") from None
    found = entries(value)
    if not found or not all(isinstance(name, str) and is_tensor(tensor) for name, tensor in found.items()):
        return None
    return found


def _lightning(state: State, container: Mapping[Any, Any]) -> State:
    """The network's part of a Lightning module, which also holds losses and metrics with weights of their own."""
    if "pytorch-lightning_version" not in container:
        return state
    for prefix in ("model.", "net.", "network."):
        inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if inner:
            return inner
    return state


def _unwrap(state: State, branch: str, file: str) -> tuple[State, list[str]]:
    """Strip the prefixes that wrappers put before every name, never anything from the middle of a name."""
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if any(name.startswith((_WRAPPERS["teacher"], _IMAGENET_COPY)) for name in state):
        prefix = _WRAPPERS[branch]
        chosen = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if not chosen:
            raise CheckpointError(f"{file}: has no {branch} weights ({prefix}*). Try the other of --branch.")
        return chosen, [f"{file}: took the {branch} ({prefix}*), {len(chosen)} of {len(state)} tensors"]
    if branch == "teacher":
        raise CheckpointError(f"{file}: has no teacher weights (ema_model.*); leave out --branch teacher.")
    if all(name.startswith("model.") for name in state):
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    return state, []


def _classes(content: Any) -> tuple[str, ...] | None:
    """The class names that a container holds, wherever its training code keeps them."""
    for names in _class_lists(content):
        if entries(names) and all(type(key) is int for key in entries(names)):
            names = [entries(names)[key] for key in sorted(entries(names))]
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def _class_lists(content: Any) -> Iterator[Any]:
    found = entries(content)
    meta = entries(found.get("meta"))
    runtime = entries(entries(found.get("message_hub")).get("runtime_info"))
    yield meta.get("CLASSES")  # mmcv
    for each in (meta, runtime):  # mmengine
        yield entries(each.get("dataset_meta")).get("classes")
    settings = entries(found.get("hyper_parameters"))  # Lightning
    for key in ("id2label", "class_names", "classes", "labels"):
        yield settings.get(key)
    for module in (content, *(found.get(key) for key in (*_STATE_DICT_KEYS, *_TEACHER_KEYS))):  # ultralytics
        yield module_state(module).get("names")


def _metadata(content: Any) -> Mapping[str, str]:
    """Facts of a training run that a container holds: how long it was, and the software."""
    found = entries(content)
    meta = entries(found.get("meta"))
    facts = {}
    for name, value in (*meta.items(), *found.items()):
        if name in _FACTS and isinstance(value, str | int | float) and not isinstance(value, bool):
            facts[_FACTS[name]] = str(value)[:100]
    return facts


_FACTS = {
    "epoch": "epoch",
    "iter": "iteration",
    "iteration": "iteration",
    "global_step": "iteration",
    "time": "time",
    "date": "time",
    "mmcv_version": "mmcv",
    "mmseg_version": "mmsegmentation",
    "mmengine_version": "mmengine",
    "pytorch-lightning_version": "lightning",
    "version": "version",
}
