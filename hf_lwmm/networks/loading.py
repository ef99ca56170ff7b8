"""Any supported checkpoint as a network that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    SegformerConfig,
    SegformerImageProcessorPil,
)

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, classifier_rows, open_checkpoint, with_labels
from hf_lwmm.checkpoints.dtypes import TORCH_NAMES
from hf_lwmm.errors import CheckpointError, LayoutError, PlanError
from hf_lwmm.hub.client import Source
from hf_lwmm.hub.refs import Ref, parse_ref
from hf_lwmm.labels import read_label_set
from hf_lwmm.layouts import SlotMap
from hf_lwmm.networks.families import FAMILIES, Family, family_of, image_settings
from hf_lwmm.networks.image_processing import SegmentationImageProcessor
from hf_lwmm.networks.module_slots import fill
from hf_lwmm.planning.inputs import NetworkOptions

_PROCESSOR = "preprocessor_config.json"
_TASKS = {
    "ForSemanticSegmentation": "semantic",
    "ForImageClassification": "classification",
    "ForObjectDetection": "detection",
}


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, and how images come into it.

    `task` is "semantic", "panoptic", "classification" or "detection". `notes` say what was assumed and what was left
    out.
    """

    model: PreTrainedModel
    image_processor: Any
    classes: tuple[str, ...]
    family: Family = field(repr=False)
    source: Source = field(repr=False)
    notes: tuple[str, ...] = ()
    name: str = ""

    @property
    def label(self) -> str:
        """What messages and reports call it: its name, or the reference that it was loaded from."""
        return self.name or self.source.label

    @property
    def task(self) -> str:
        return self.family.task

    def save(self, folder: str | Path) -> None:
        """Write what `from_pretrained` reads: weights, config.json, preprocessor_config.json, and the code."""
        folder = Path(folder)
        _carry_code(self)
        bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            self.model.save_pretrained(folder)
            self.image_processor.save_pretrained(folder)
        finally:
            if bars:
                transformers.utils.logging.enable_progress_bar()


def load(model: Ref, network: NetworkOptions = NetworkOptions()) -> LoadedModel:
    """Load a model as a network of transformers or of `hf_lwmm.networks`.

    Args:
        model: a reference, as for `merge`.
        network: the code base of a DeepLabV2 checkpoint, label sets for a model that does not name its classes, the
            branch of a self-training checkpoint, the device and the type to compute in.

    Raises:
        HfLwmmError: a subclass that says what is wrong, such as which tensors are missing.
    """
    device = _device(network.device)
    checkpoint = open_checkpoint(hub.resolve(parse_ref(model)), branch=network.branch)
    try:
        checkpoint = with_labels(checkpoint, [read_label_set(labels) for labels in network.labels])
        return _load(checkpoint, network.system, network.compute_dtype, device)
    finally:
        checkpoint.close()


def _device(name: str) -> str:
    """The device, checked; of several GPUs that of this process, if each process has one."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise PlanError(f"--device {name}: cannot be used here: {str(error).splitlines()[0]}") from None
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and "LOCAL_RANK" in os.environ else name


def _load(checkpoint: Checkpoint, system: str | None, dtype: str, device: str) -> LoadedModel:
    if (hosted := _of_transformers(checkpoint)) is not None:
        return _from_pretrained(checkpoint, hosted, dtype, device)
    family = family_of(checkpoint.slot_map, checkpoint.label)
    notes = list(checkpoint.notes)
    config = _stored_config(checkpoint, family) if system is None else None
    if config is None:
        classes = checkpoint.classes or _placeholders(checkpoint, notes)
        try:
            config = family.config_for(checkpoint.slot_map, classes, system)
        except LayoutError as error:
            raise LayoutError(f"{checkpoint.label}: {error}") from None
        if (taken := getattr(config, "system", None)) and system is None:
            notes.append(f"{checkpoint.label}: taken for {taken}'s arithmetic; --system says otherwise")
    model = family.model_class(config)
    notes += fill(model, checkpoint)
    names: dict[Any, str] = dict(config.id2label or {})
    classes = tuple(str(names[row]) for row in sorted(names))
    processor = _stored_processor(checkpoint.source) or _original_processor(config)
    if dtype == "stored":
        dtype = _float_type(checkpoint)
    module: Any = model
    module = module.to(device=device, dtype=getattr(torch, dtype)).eval()
    return LoadedModel(module, processor, classes, family, checkpoint.source, tuple(notes))


def _of_transformers(checkpoint: Checkpoint) -> Family | None:
    """The network that transformers itself has for a repository, None where there is a family of ours or no such."""
    named = next(iter(checkpoint.config.get("architectures") or ()), "")
    task = next((task for ending, task in _TASKS.items() if named.endswith(ending)), None)
    model_class = getattr(transformers, named, None)
    if (
        task is None
        or checkpoint.source.ref.files
        or model_class is None
        or any(family.model_class is model_class for family in FAMILIES)
    ):
        return None
    return Family(f"transformers' {named}", model_class, (), _no_config, task)


def _no_config(slot_map: SlotMap, classes: Sequence[str], system: str | None) -> PreTrainedConfig:
    raise LayoutError("The configuration of a network of transformers is its repository's config.json.")


def _from_pretrained(checkpoint: Checkpoint, family: Family, dtype: str, device: str) -> LoadedModel:
    """A network of transformers by its own `from_pretrained`, from files alone and without running code of theirs."""
    source = checkpoint.source
    folder = source.ref.path if source.ref.path is not None else hub.fetch(source, "config.json").parent
    for name in source.files if source.ref.path is None else ():
        if name in checkpoint.files or name == _PROCESSOR or name.endswith(".index.json"):
            hub.fetch(source, name)
    loaded: Any = family.model_class
    try:
        model = loaded.from_pretrained(folder, local_files_only=True)
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint.label}: {str(error).splitlines()[0]}") from None
    names: dict[Any, str] = dict(model.config.id2label or {})
    if sorted(names) != list(range(len(names))):
        raise CheckpointError(f"{checkpoint.label}: its config.json does not name the classes 0, 1, 2, ... in turn.")
    stored = _float_type(checkpoint) if dtype == "stored" else dtype
    module = model.to(device=device, dtype=getattr(torch, stored)).eval()
    classes = tuple(str(names[row]) for row in sorted(names))
    return LoadedModel(module, processor, classes, family, source, tuple(checkpoint.notes))


def _float_type(checkpoint: Checkpoint) -> str:
    """The torch name of the type that most of a checkpoint's weights have."""
    counts: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        if info.dtype in TORCH_NAMES:
            counts[info.dtype] = counts.get(info.dtype, 0) + info.count
    return TORCH_NAMES[max(counts, key=lambda name: counts[name])] if counts else "float32"


def _stored_config(checkpoint: Checkpoint, family: Family) -> PreTrainedConfig | None:
    """The configuration that the repository has for this very network, if any."""
    config = dict(checkpoint.config)
    wanted = family.model_class.config_class
    if wanted is None or config.get("model_type") != wanted.model_type:
        return None
    try:
        return wanted.from_dict(config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.label}: its config.json cannot be read: {error}") from None


def _placeholders(checkpoint: Checkpoint, notes: list[str]) -> tuple[str, ...]:
    rows = classifier_rows(checkpoint.slot_map)
    if rows is None:
        raise LayoutError(f"{checkpoint.label}: its classifier cannot be told; `hf-lwmm inspect` shows its layout.")
    notes.append(f"{checkpoint.label}: names none of its {rows} classes; --labels does")
    return tuple(f"LABEL_{row}" for row in range(rows))


def _stored_processor(source: Source) -> Any:
    """The repository's own image processor, None if it has none."""
    if _PROCESSOR not in source.files or (source.ref.path is not None and source.ref.path.is_file()):
        return None
    path = hub.fetch(source, _PROCESSOR)
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings.get("image_processor_type") == SegmentationImageProcessor.__name__:
        return SegmentationImageProcessor.from_dict(settings)
    kind = settings.get("image_processor_type") or str(settings.get("feature_extractor_type", ""))
    try:
        return AutoImageProcessor.from_pretrained(path.parent, backend="pil") if kind else None
    except (OSError, ValueError, ImportError):
        return None


def _original_processor(config: PreTrainedConfig) -> Any:
    """What the original evaluation does; for SegFormer in a class that transformers has itself."""
    if type(config) is SegformerConfig:
        return SegformerImageProcessorPil(do_resize=False)
    return SegmentationImageProcessor(**image_settings(config))


def _carry_code(loaded: LoadedModel) -> None:
    """Make `save_pretrained` put the network's code into the repository, for `trust_remote_code=True`."""
    if not type(loaded.model).__module__.startswith("hf_lwmm."):
        return
    auto = {
        "semantic": "AutoModelForSemanticSegmentation",
        "panoptic": "AutoModelForUniversalSegmentation",
        "classification": "AutoModelForImageClassification",
    }[loaded.task]
    type(loaded.model).register_for_auto_class(auto)
    type(loaded.model.config).register_for_auto_class()
    if isinstance(loaded.image_processor, SegmentationImageProcessor):
        SegmentationImageProcessor.register_for_auto_class()
