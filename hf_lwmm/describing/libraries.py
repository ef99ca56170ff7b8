"""Recognise repositories of timm and segmentation_models.pytorch by their config.json, and check what it asks for.

What is checked here goes to the constructors of these libraries, some of whose arguments name files and addresses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.companions import label_names
from hf_lwmm.describing.network_description import IMAGENET_MEAN, IMAGENET_STD
from hf_lwmm.errors import CheckpointError
from hf_lwmm.files.documents import shortened

TIMM, SMP = "timm", "segmentation-models-pytorch"  # as the Hub calls them
SMP_CLASS = "_model_class"
# Of `timm.create_model` and what it calls: where weights come from and go to, and what is built around a network.
_NOT_ITS_OWN = frozenset({
    "cache_dir", "checkpoint_path", "device", "dtype", "exportable", "feature_cfg", "feature_cls", "features_only",
    "kwargs_filter", "model_cfg", "model_cls", "model_name", "no_jit", "out_indices", "pretrained", "pretrained_cfg",
    "pretrained_cfg_overlay", "pretrained_filter_fn", "pretrained_model_args", "pretrained_strict", "scriptable",
    "variant",
})  # fmt: skip
_COUNTS = re.compile(r"depth|layers|blocks", re.IGNORECASE)  # in names of numbers that make a network long
_LARGEST = 1 << 16  # number that a constructor is given
_NAME = re.compile(r"[\w.+-]*")  # what no path and no address is
_SIDE = 4096  # pixels that pictures are resized to at most


@dataclass(frozen=True)
class TimmConfig:
    """The call that timm makes of a config.json: `create_model(architecture, pretrained_cfg=pretrained, **arguments)`.

    `classes` are the names of the classifier's rows, None if it names none. `content` is the whole file.
    """

    architecture: str
    pretrained: Mapping[str, Any] = field(repr=False)
    arguments: Mapping[str, Any] = field(repr=False)
    classes: tuple[str, ...] | None = field(repr=False)
    content: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class SmpConfig:
    """The name of a class, and arguments for it, from a config.json of segmentation_models.pytorch.

    Of `encoder_weights`, which the class would fetch, only the name is here. `content` is the whole file.
    """

    model_class: str
    encoder: str
    encoder_weights: str | None
    arguments: Mapping[str, Any] = field(repr=False)
    content: Mapping[str, Any] = field(repr=False)


def library_of(config: Mapping[str, Any]) -> str | None:
    """Return the library, as the Hub calls it, that reads the content of a config.json; None for transformers."""
    if isinstance(config.get(SMP_CLASS), str) and isinstance(config.get("encoder_name"), str):
        return SMP
    stated = isinstance(config.get("architecture"), str) and bool(config.keys() & {"pretrained_cfg", "num_classes"})
    return TIMM if stated and config.get("model_type") in (None, "timm_wrapper") else None


def timm_config(checkpoint: Checkpoint) -> TimmConfig:
    """Return what a repository's config.json asks timm for.

    Raises:
        CheckpointError: if an entry is of another type than timm's, or asks for more than a network.
    """
    content, where = checkpoint.config, f"{checkpoint.label}: its config.json"
    pretrained = content.get("pretrained_cfg", content)  # the first versions had all entries in one object
    if not isinstance(pretrained, Mapping):
        raise CheckpointError(f"{where} has a pretrained_cfg that is no object, but {shortened(pretrained)}.")
    stated = {**pretrained, **({"num_classes": content["num_classes"]} if "num_classes" in content else {})}
    kept = {name: stated[name] for name in _PRETRAINED if stated.get(name) is not None}
    for name, value in kept.items():
        fits, wanted = _PRETRAINED[name]
        if not fits(value):
            raise CheckpointError(f"{where}: {name} is {shortened(value)}, not {wanted}.")
    size = max(kept.get("input_size", (3, 224, 224))[1:]) / kept.get("crop_pct", 1)
    if size > _SIDE:
        raise CheckpointError(f"{where} resizes pictures to {size:,.0f} pixels on a side; {_SIDE:,} are the most.")
    arguments = _arguments(content.get("model_args") or {}, checkpoint, "model_args")
    for channels in (arguments.get("in_chans", 3), kept.get("input_size", (3,))[0]):
        if channels == 3:
            continue
        raise CheckpointError(f"{where} is for pictures of {channels} channels; only those of 3 are read here.")
    _check_name(content["architecture"], "architecture", where)
    return TimmConfig(content["architecture"], kept, arguments, label_names(content), content)


def smp_config(checkpoint: Checkpoint) -> SmpConfig:
    """Return what a repository's config.json asks segmentation_models.pytorch for.

    Raises:
        CheckpointError: if an entry is of another type than the library's, or asks for more than a network.
    """
    content, where = checkpoint.config, f"{checkpoint.label}: its config.json"
    for name in (SMP_CLASS, "encoder_name"):
        _check_name(content[name], name, where)
    own = {name: value for name, value in content.items() if not name.startswith("_") and name not in _OF_COMPANIONS}
    weights, activation = own.pop("encoder_weights", None), own.pop("activation", None)
    if not isinstance(weights, str | bool | None):
        raise CheckpointError(f"{where}: encoder_weights is {shortened(weights)}, not a text.")
    if activation not in _ACTIVATIONS:
        raise CheckpointError(
            f"{where}: its network ends in {shortened(activation)}, so that its outputs tell no probabilities; "
            f"{', '.join(name for name in _ACTIVATIONS if name)} are known."
        )
    auxiliary = own.get("aux_params")
    if isinstance(auxiliary, Mapping):  # of a head whose outputs are not used
        own["aux_params"] = {name: value for name, value in auxiliary.items() if name != "activation"}
    elif auxiliary is not None:
        raise CheckpointError(f"{where}: aux_params is {shortened(auxiliary)}, not an object.")
    arguments = _arguments(own, checkpoint, "")
    if (channels := arguments.get("in_channels", 3)) != 3:
        raise CheckpointError(f"{where} is for pictures of {channels} channels; only those of 3 are read here.")
    named = weights if isinstance(weights, str) else None
    return SmpConfig(content[SMP_CLASS], content["encoder_name"], named, arguments, content)


# Ends of networks that change no order of logits, so that the network may as well do without. None is among them.
_ACTIVATIONS = (None, "identity", "sigmoid", "softmax", "softmax2d", "logsoftmax")
_OF_COMPANIONS = {"id2label", "label2id"}  # which no class of the library takes


def smp_pixels(encoder: str, weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation, of values from 0 to 1, on which an encoder was trained before.

    They are those of `get_preprocessing_params`, which fetches them. None for encoders that are timm's (`tu-`), which
    knows them.
    """
    if encoder.startswith("tu-"):
        return None
    if encoder.startswith("dpn"):
        return (124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3
    if encoder.startswith(("inception", "xception", "timm-tf_efficientnet_lite")) or weights == "advprop":
        return (0.5,) * 3, (0.5,) * 3
    return IMAGENET_MEAN, IMAGENET_STD


def _arguments(given: Any, checkpoint: Checkpoint, entry: str) -> dict[str, Any]:
    """Arguments for a constructor, which are numbers and names, and make no network of more layers than tensors."""
    where = f"{checkpoint.label}: its config.json"
    if not isinstance(given, Mapping):
        raise CheckpointError(f"{where}: {entry} is {shortened(given)}, not an object.")
    for name, value in given.items():
        place = f"{entry}.{name}".lstrip(".")
        if name in _NOT_ITS_OWN:
            raise CheckpointError(f"{where}: {place} is no setting of a network. Take it away.")
        if not _is_plain(value):
            raise CheckpointError(
                f"{where}: {place} is {shortened(value)}, not a number to {_LARGEST:,}, a name, true or false, or a "
                "list of them."
            )
        if _COUNTS.search(name) and _sum(value) > len(checkpoint.tensors):
            raise CheckpointError(
                f"{where} asks for {place} {shortened(value)}, more layers than the {len(checkpoint.tensors):,} "
                "tensors that there are."
            )
    return dict(given)


def _is_plain(value: Any, depth: int = 3) -> bool:
    if isinstance(value, Mapping) and depth:
        return all(_NAME.fullmatch(str(name)) and _is_plain(each, depth - 1) for name, each in value.items())
    if isinstance(value, list | tuple) and depth:
        return all(_is_plain(each, depth - 1) for each in value)
    if isinstance(value, str):
        return _NAME.fullmatch(value) is not None
    return value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= _LARGEST)


def _sum(value: Any) -> float:
    """The sum of all numbers in a value."""
    if isinstance(value, list | tuple):
        return sum(map(_sum, value))
    return value if isinstance(value, int | float) else 0


def _check_name(name: str, entry: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise CheckpointError(f"{where}: {entry} is {shortened(name)}, which is no name of a network.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (1, 3) and all(map(_is_number, value))


def _is_size(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 3 and all(type(each) is int for each in value)
    return numbers and all(0 < each <= _SIDE for each in value)


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
_MODES = ("center", "squash", "border")
# What of timm's pretrained_cfg says how a network is built and sees pictures, with its check and the type in words.
_PRETRAINED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "num_classes": (lambda value: type(value) is int and 0 <= value <= _LARGEST, f"a number to {_LARGEST:,}"),
    "input_size": (_is_size, f"three numbers to {_SIDE:,}"),
    "fixed_input_size": (lambda value: isinstance(value, bool), "true or false"),
    "interpolation": (lambda value: value in _INTERPOLATIONS, f"one of {', '.join(_INTERPOLATIONS)}"),
    "crop_pct": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "crop_mode": (lambda value: value in _MODES, f"one of {', '.join(_MODES)}"),
    "mean": (_is_colour, "three numbers"),
    "std": (lambda value: _is_colour(value) and all(each > 0 for each in value), "three numbers above 0"),
    "classifier": (_is_names, "the name of a module, or a list of names"),
    "first_conv": (_is_names, "the name of a module, or a list of names"),
}
