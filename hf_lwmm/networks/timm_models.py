"""Networks of timm, as `timm.create_model` makes them from the config.json of a repository, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import TimmWrapperImageProcessor

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.describing.libraries import TimmConfig, timm_config
from hf_lwmm.errors import CheckpointError, LayoutError, first_line, naming_extras
from hf_lwmm.labels import LabelSet, labels_of_rows
from hf_lwmm.networks.class_logits import ClassLogits
from hf_lwmm.networks.library_models import LibraryModel, built, check_rows, names_of_rows
from hf_lwmm.networks.module_slots import fill
from hf_lwmm.networks.one_row import classes_of_one_row


def timm_network(checkpoint: Checkpoint) -> Any:
    """Return the network of timm that a checkpoint is for, not filled yet, with or without a classifier.

    Nothing is fetched, whatever weights its configuration names.

    Raises:
        CheckpointError: if timm has no such network, or its configuration contradicts itself or the classifier.
        LayoutError: if the checkpoint is of another network.
        ExtraError: if timm is not installed.
    """
    with naming_extras(f"Loading {checkpoint.label}"):
        import timm
    config = timm_config(checkpoint)
    if not timm.is_model(config.architecture):
        raise CheckpointError(
            f"{checkpoint.label}: its config.json names the architecture {config.architecture!r}, which timm "
            f"{timm.__version__} does not have."
        )
    _check_classifier(checkpoint, config)

    def make() -> nn.Module:
        cfg = {**config.pretrained, "architecture": config.architecture}
        model: nn.Module = timm.create_model(
            config.architecture, pretrained=False, pretrained_cfg=cfg, **config.arguments
        )
        return model

    return built(checkpoint, make, f"timm {config.architecture}")


def _check_classifier(checkpoint: Checkpoint, config: TimmConfig) -> None:
    """Refuse another number of classes than the classifier has rows: timm would leave out its weights silently."""
    module = config.pretrained.get("classifier")
    for stated in (config.pretrained.get("num_classes"), config.arguments.get("num_classes")):
        if stated and isinstance(module, str):
            check_rows(checkpoint, f"{module}.weight", stated, "num_classes")


def timm_model(checkpoint: Checkpoint, label_sets: Sequence[LabelSet]) -> LibraryModel:
    """Return a classifier of timm with its own image transforms and the names of its classes.

    Raises:
        HfLwmmError: as `timm_network`, and for a network without a classifier.
    """
    module = timm_network(checkpoint)
    config = timm_config(checkpoint)
    name = f"timm {config.architecture}"
    if not (rows := module.num_classes):
        raise LayoutError(
            f"{checkpoint.label}: is a {name} without a classifier. It can be merged, also with models that have one, "
            "but its outputs mean nothing that could be scored."
        )
    notes = [*checkpoint.notes, *fill(module, checkpoint)]
    classes = _classes(checkpoint, rows, label_sets, notes)
    try:
        processor = TimmWrapperImageProcessor(dict(module.pretrained_cfg), config.architecture)
    except Exception as error:  # settings that contradict each other fail wherever timm first meets them
        why = f"its pretrained_cfg makes no image transforms: {first_line(error)}"
        raise CheckpointError(f"{checkpoint.label}: {why}") from None
    module.register_forward_hook(_as_logits)
    return LibraryModel(module, processor, classes, "classification", name, config.content, tuple(notes))


def _classes(checkpoint: Checkpoint, rows: int, label_sets: Sequence[LabelSet], notes: list[str]) -> tuple[str, ...]:
    """The names of a classifier's rows; of as many as a part of ImageNet has, timm's names of its classes."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    unnamed = checkpoint.classes is None and labels_of_rows(rows, label_sets) is None
    if unnamed and (subset := infer_imagenet_subset({"num_classes": rows})):
        notes.append(f"{checkpoint.label}: names none of its {rows} classes; taken to be {subset}'s; --labels does")
        return tuple(ImageNetInfo(subset).label_descriptions())
    names = names_of_rows(checkpoint, rows, label_sets, notes)
    return classes_of_one_row(names) if rows == 1 else tuple(names)


def _as_logits(module: nn.Module, inputs: Any, returned: Tensor) -> ClassLogits:
    return ClassLogits(returned)
