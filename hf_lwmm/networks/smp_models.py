"""Networks of segmentation_models.pytorch, from a repository's config.json and without weights of their encoders."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.describing.libraries import SmpConfig, smp_config, smp_pixels
from hf_lwmm.describing.network_description import IMAGENET_MEAN, IMAGENET_STD
from hf_lwmm.errors import CheckpointError, naming_extras
from hf_lwmm.labels import LabelSet
from hf_lwmm.networks.class_logits import ClassLogits
from hf_lwmm.networks.image_processing import SegmentationImageProcessor
from hf_lwmm.networks.library_models import LibraryModel, built, check_rows, names_of_rows
from hf_lwmm.networks.module_slots import fill
from hf_lwmm.networks.one_row import classes_of_one_row

_HEAD = "segmentation_head.0.weight"
_TIMM = "tu-"  # before names of encoders that are timm's
_SIZE = "_given_size"


def smp_network(checkpoint: Checkpoint) -> Any:
    """Return the network of segmentation_models.pytorch that a checkpoint is for, not filled yet.

    It has no last activation.

    Nothing is fetched, whatever weights its configuration names.

    Raises:
        CheckpointError: if the library has no such network, or its configuration contradicts itself or the head.
        LayoutError: if the checkpoint is of another network.
        ExtraError: if the library is not installed.
    """
    with naming_extras(f"Loading {checkpoint.label}"):
        import segmentation_models_pytorch as smp
    config = smp_config(checkpoint)
    model_class = {each.__name__: each for each in smp.MODEL_ARCHITECTURES_MAPPING.values()}.get(config.model_class)
    if model_class is None:
        raise CheckpointError(
            f"{checkpoint.label}: its config.json names the network {config.model_class!r}, which "
            f"segmentation_models.pytorch {smp.__version__} does not have."
        )
    _check_encoder(checkpoint, config.encoder)
    _check_arguments(checkpoint, config, model_class)
    check_rows(checkpoint, _HEAD, config.arguments.get("classes", 1), "classes")

    def make() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of encoders that have newer names by now
            model: nn.Module = model_class(**config.arguments, encoder_weights=None, activation=None)
        return model

    return built(checkpoint, make, f"{config.model_class} of segmentation_models.pytorch")


def _check_encoder(checkpoint: Checkpoint, encoder: str) -> None:
    """Refuse an encoder that neither the library nor timm has."""
    import timm
    from segmentation_models_pytorch.encoders import encoders, is_equivalent_to_timm_universal

    known = encoder in encoders or is_equivalent_to_timm_universal(encoder)
    if not (timm.is_model(encoder.removeprefix(_TIMM)) if encoder.startswith(_TIMM) else known):
        raise CheckpointError(
            f"{checkpoint.label}: its config.json names the encoder {encoder!r}, which segmentation_models.pytorch "
            "and timm do not have."
        )


def _check_arguments(checkpoint: Checkpoint, config: SmpConfig, model_class: type[nn.Module]) -> None:
    """Refuse arguments that the class does not have, as it would pass them on; timm's encoders take some more."""
    named = inspect.signature(inspect.unwrap(model_class.__init__)).parameters
    unknown = [name for name in config.arguments if name not in named]
    if unknown and not config.encoder.startswith(_TIMM):
        raise CheckpointError(
            f"{checkpoint.label}: its config.json has {unknown[0]}, which {config.model_class} of "
            "segmentation_models.pytorch does not take."
        )


def smp_model(checkpoint: Checkpoint, label_sets: Sequence[LabelSet]) -> LibraryModel:
    """Return a segmentation network with what prepares pictures for it and the names of its classes.

    Where the network takes only sides that are multiples of its stride, mostly 32, pixels are continued by their last
    row and column to the next multiple, and as much is cut off the logits. These are as large as the pixels.

    Raises:
        HfLwmmError: as `smp_network`.
    """
    module, config = smp_network(checkpoint), smp_config(checkpoint)
    notes = [*checkpoint.notes, *fill(module, checkpoint)]
    if module.classification_head is not None:
        notes.append(f"{checkpoint.label}: the outputs of its classification head (aux_params) are not used")
    names = names_of_rows(checkpoint, config.arguments.get("classes", 1), label_sets, notes)
    classes = classes_of_one_row(names) if len(names) == 1 else tuple(names)
    processor = _processor(checkpoint, config, notes)
    module.register_forward_pre_hook(_continued)
    module.register_forward_hook(_cut)
    name = f"{config.model_class} of segmentation_models.pytorch"
    return LibraryModel(module, processor, classes, "semantic", name, config.content, tuple(notes))


def _processor(checkpoint: Checkpoint, config: SmpConfig, notes: list[str]) -> SegmentationImageProcessor:
    """The image processor with the mean and standard deviation of the encoder's pre-training."""
    found = smp_pixels(config.encoder, config.encoder_weights) or _timm_pixels(config.encoder)
    if found is None:
        notes.append(f"{checkpoint.label}: nothing says how it sees pictures; normalised as ImageNet's")
    mean, std = found or (IMAGENET_MEAN, IMAGENET_STD)
    return SegmentationImageProcessor(rescale_factor=1 / 255, image_mean=mean, image_std=std)


def _timm_pixels(encoder: str) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and standard deviation of an encoder of timm; None if timm has no weights of it."""
    import timm

    name = encoder.removeprefix(_TIMM)
    cfg = timm.get_pretrained_cfg(name) if timm.models.is_model_pretrained(name) else None
    return (cfg.mean, cfg.std) if cfg is not None else None


def _continued(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """The pixels (N, 3, H, W) with sides that the network takes; their own size is kept for `_cut`."""
    (pixels,) = inputs
    height, width = pixels.shape[-2:]
    setattr(module, _SIZE, (height, width))
    stride = _stride(module)
    margins = (0, -width % stride, 0, -height % stride)
    return (nn.functional.pad(pixels, margins, mode="replicate") if any(margins) else pixels,)


def _stride(network: Any) -> int:
    """The number that sides of pixels must be multiples of; DPT's decoder halves the encoder's maps once more."""
    stride = int(network.encoder.output_stride) if network.requires_divisible_input_shape else 1
    return stride * (2 if type(network).__name__ == "DPT" else 1)


def _cut(module: nn.Module, inputs: tuple[Tensor], returned: Tensor | tuple[Tensor, ...]) -> ClassLogits:
    """The logits (N, C, H, W) of the pixels that were given, without those of a classification head."""
    logits = returned if isinstance(returned, Tensor) else returned[0]
    size = inputs[0].shape[-2:]
    if logits.shape[-2:] != size:  # of a network that was told not to enlarge them
        logits = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=True)
    height, width = getattr(module, _SIZE)
    return ClassLogits(logits[..., :height, :width])
