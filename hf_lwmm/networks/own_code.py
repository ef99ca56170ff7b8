"""Build a network from code of the user's own (`--network module:factory`), for checkpoints that no family knows.

The code is on the user's machine and named by the user; no reference, recipe or repository can name any.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.describing.network_description import NetworkDescription
from hf_lwmm.errors import HfLwmmError, PlanError, reason
from hf_lwmm.labels import read_label_set
from hf_lwmm.networks.class_logits import ClassLogits
from hf_lwmm.networks.grouping import grouped
from hf_lwmm.networks.image_processing import SegmentationImageProcessor
from hf_lwmm.options import did_you_mean
from hf_lwmm.planning.inputs import NetworkOptions

Factory = Callable[..., Any]


@dataclass(frozen=True)
class OwnNetwork:
    """A network of the user's own code, not filled yet.

    `identity` is a text that changes with the code and the description. `notes` say what was assumed.
    """

    module: nn.Module
    image_processor: SegmentationImageProcessor
    classes: tuple[str, ...]
    name: str
    identity: str
    notes: tuple[str, ...] = ()


def own_network(checkpoint: Checkpoint, network: NetworkOptions) -> OwnNetwork:
    """Build the network that the factory of `network` makes for a checkpoint.

    Args:
        checkpoint: the model; its config.json, `{}` if it has none, is the factory's first argument, and the names of
            its outputs are the second.
        network: the options, of which `network` is set.

    Raises:
        PlanError: if the factory cannot be found or fails, does not return a module, or nothing names the outputs.
    """
    assert network.network is not None
    name, factory = _found(network.network)
    described = getattr(factory, "description", None)
    notes = []
    if described is None:
        described = NetworkDescription()
        notes.append(f"{name}: has no description, so pictures keep their size and are normalised as ImageNet's")
    if not isinstance(described, NetworkDescription):
        raise PlanError(f"--network {name}: its description must be an hf_lwmm.NetworkDescription.")
    outputs = tuple(described.outputs) or _stated_classes(checkpoint, network, name)
    try:
        module = factory(dict(checkpoint.config), outputs)
    except HfLwmmError:
        raise
    except (Exception, SystemExit) as error:  # of the user's code, which may raise anything
        raise PlanError(f"--network {name}: {checkpoint.label}: the factory fails: {reason(error)}") from error
    if not isinstance(module, nn.Module):
        raise PlanError(f"--network {name}: must return a torch.nn.Module, not a {type(module).__name__}.")
    if isinstance(module, torch.jit.ScriptModule):
        raise PlanError(f"--network {name}: must return the module itself, not one that torch.jit has compiled.")
    if next(module.parameters(), None) is None:
        raise PlanError(f"--network {name}: returns a module without parameters.")
    module.register_forward_hook(_reader(name, len(outputs), described.rows))
    identity = f"{name} {_code_hash(factory, module)} {described} {outputs}"
    processor = _processor(described)
    return OwnNetwork(module, processor, described.classes or outputs, name, identity, tuple(notes))


def factory_name(factory: str | Factory) -> str:
    """Return what messages call a factory: module:factory."""
    if isinstance(factory, str):
        return factory
    return f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', type(factory).__qualname__)}"


def _found(given: str | Factory) -> tuple[str, Factory]:
    """The factory and its name; a module is looked for in the working directory first."""
    if not isinstance(given, str):
        return factory_name(given), given
    module_name, colon, attribute = given.partition(":")
    if not colon or not module_name or not attribute.isidentifier():
        raise PlanError(f"--network {given}: write module:factory, such as networks.mine:build.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise PlanError(
                f"--network {given}: there is no module {error.name} in {here}, nor among the installed packages. "
                "Run this in the folder that has it, or name that folder in PYTHONPATH."
            ) from None
        raise PlanError(f"--network {given}: {module_name} needs the module {error.name}, which is missing.") from None
    except (Exception, SystemExit) as error:  # of the user's code, which may raise anything
        raise PlanError(f"--network {given}: importing {module_name} fails: {reason(error)}") from error
    factory = getattr(module, attribute, None)
    if factory is None:
        names = [name for name, value in vars(module).items() if callable(value)]
        raise PlanError(f"--network {given}: {module_name} has no {attribute}.{did_you_mean(attribute, names)}")
    if not callable(factory):
        raise PlanError(f"--network {given}: {attribute} is no function or class, but a {type(factory).__name__}.")
    return given, factory


def _stated_classes(checkpoint: Checkpoint, network: NetworkOptions, name: str) -> tuple[str, ...]:
    """The names of the outputs by the checkpoint, or else by the only label set that was given."""
    if checkpoint.classes:
        return checkpoint.classes
    if len(network.labels) == 1:
        return read_label_set(network.labels[0]).classes
    raise PlanError(
        f"--network {name}: nothing names the outputs of {checkpoint.label}. Give the factory a description with "
        "outputs, or name them with one --labels."
    )


def _reader(name: str, outputs: int, rows: tuple[tuple[int, ...], ...]) -> Callable[..., ClassLogits]:
    """A forward hook that takes the logits from what a module returns, and groups them."""

    def read(module: nn.Module, inputs: Any, returned: Any) -> ClassLogits:
        logits = returned if isinstance(returned, Tensor) else getattr(returned, "logits", None)
        if not isinstance(logits, Tensor) or logits.ndim != 4:
            kind = type(returned).__name__ if not isinstance(logits, Tensor) else f"{logits.ndim} dimensions"
            raise PlanError(f"--network {name}: must return logits (N, outputs, h, w), or have .logits, not {kind}.")
        if logits.shape[1] != outputs:
            raise PlanError(f"--network {name}: returns {logits.shape[1]} outputs, but {outputs} are named.")
        if inputs and len(logits) != len(inputs[0]):
            raise PlanError(f"--network {name}: returns {len(logits)} rows of logits for {len(inputs[0])} pictures.")
        return ClassLogits(grouped(logits, rows) if rows else logits)

    return read


def _processor(described: NetworkDescription) -> SegmentationImageProcessor:
    size = None if described.size is None else {"height": described.size[0], "width": described.size[1]}
    return SegmentationImageProcessor(
        size=size,
        rescale_factor=1 / 255,
        image_mean=described.image_mean,
        image_std=described.image_std,
        channel_order=described.channel_order,
        align_corners=described.align_corners,
    )


def _code_hash(factory: Factory, module: nn.Module) -> str:
    """A hash of the files that have the factory and the classes of its modules; of those that are in files."""
    files = {_source_file(each) for each in (inspect.unwrap(factory), *map(type, module.modules()))}
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


def _source_file(code: Any) -> str | None:
    """The file of a function or class; None if it is in none, as in a notebook."""
    try:
        path = inspect.getsourcefile(code)
    except TypeError:
        return None
    return path if path and Path(path).is_file() else None
