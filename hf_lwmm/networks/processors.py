"""Make the image processor of a network from the settings beside its weights, as transformers reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig, SegformerConfig, SegformerImageProcessor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.image_processing_auto import (
    IMAGE_PROCESSOR_MAPPING,
    get_image_processor_class_from_name,
)

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.companions import PROCESSORS, ProcessorSettings
from hf_lwmm.describing.image_settings import image_settings
from hf_lwmm.errors import CheckpointError, first_line
from hf_lwmm.networks.image_processing import SegmentationImageProcessor

_KIND = re.compile(r"(\w+ImageProcessor)(?:Pil|Fast)?")
_MODELS = "transformers.models."  # where its classes for pictures of any network are; others are bases of these
_ENDINGS = ("", "Pil", "Fast")  # of the names of classes; the first prepare with torchvision, as the Auto class does


def image_processor(checkpoint: Checkpoint, config: PreTrainedConfig, notes: list[str]) -> Any:
    """Return the processor that the settings beside the weights describe, or else that of the original evaluation.

    Settings of a class that transformers does not have are passed over with a note, as only code of their own could use
    them.

    Args:
        checkpoint: the model.
        config: the configuration of its network.
        notes: where assumptions are added.

    Raises:
        CheckpointError: if the settings are not those of their class.
        DocumentError: if they cannot be read.
    """
    settings = checkpoint.processor
    kept: dict[str, Any] = {}
    if settings is not None:
        found = _class_of(settings, config)
        if found is not None:
            return _made(found, settings, checkpoint.label)
        named = _named(settings)
        notes.append(f"{checkpoint.label}: its {named} cannot be used; the original's settings are used")
        if settings.reduces_labels:  # about labels, whatever pictures go through
            kept["do_reduce_labels"] = True
    if type(config) is SegformerConfig:  # a class of transformers that does what the original evaluation does
        return SegformerImageProcessor(do_resize=False, **kept)
    stated = (getattr(config, name, "") for name in ("system", "backbone"))
    settings_of_original = image_settings(config.model_type, *stated)
    return SegmentationImageProcessor(**settings_of_original, **kept)


def stated_processor(checkpoint: Checkpoint, config: PreTrainedConfig) -> Any:
    """Return the processor that the settings beside the weights describe, for a network of which nothing else is known.

    Raises:
        CheckpointError: if there are no settings, they are of a class that transformers does not have, or not its own.
        DocumentError: if they cannot be read.
    """
    settings = checkpoint.processor
    if settings is None:
        raise CheckpointError(f"{checkpoint.label}: has no {PROCESSORS[1]}, so how it sees images is unknown.")
    found = _class_of(settings, config)
    if found is None:
        raise CheckpointError(f"{checkpoint.label}: its {_named(settings)} is none of transformers'.")
    return _made(found, settings, checkpoint.label)


def _named(settings: ProcessorSettings) -> str:
    return f"image processor ({settings.kind or 'of no stated class'})"


def _class_of(settings: ProcessorSettings, config: PreTrainedConfig) -> type[BaseImageProcessor] | None:
    """The class that settings name, or that goes with the network where they name none."""
    kind = settings.kind
    if kind == SegmentationImageProcessor.__name__:
        return SegmentationImageProcessor
    if not kind:
        mapping: Any = IMAGE_PROCESSOR_MAPPING
        known: Mapping[str, Any] = mapping.get(type(config), {})
        order = ("torchvision", *known)
        return next((found for each in order if _is_processor(found := known.get(each))), None)
    named = _KIND.fullmatch(kind)
    if named is None:
        return None
    classes = (get_image_processor_class_from_name(named[1] + ending) for ending in _ENDINGS)
    return next((found for found in classes if _is_processor(found) and found.__module__.startswith(_MODELS)), None)


def _is_processor(found: Any) -> bool:
    """True for a class of image processors, and for nothing else that transformers has under some name."""
    return isinstance(found, type) and issubclass(found, BaseImageProcessor)


def _made(found: type[BaseImageProcessor], settings: ProcessorSettings, label: str) -> Any:
    try:
        return found.from_dict(dict(settings.content))
    except Exception as error:  # settings that contradict each other fail wherever the class first meets them
        why = f"its {settings.file} does not make a {found.__name__}: {first_line(error)}"
        raise CheckpointError(f"{label}: {why}") from None
