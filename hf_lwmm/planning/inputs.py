"""Declare what a merge reads besides its models, and how networks are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_lwmm.hub.refs import Ref
from hf_lwmm.labels import is_label_file, label_sets, read_label_set
from hf_lwmm.options import Options, option
from hf_lwmm.planning.advice import TARGETS
from hf_lwmm.planning.images import ImageSource, as_images
from hf_lwmm.planning.provenance import Tuning
from hf_lwmm.planning.tensor_order import TensorOrder

SYSTEMS = ("advent", "minent", "adaptsegnet", "maxsquare", "fada", "diga")
FLOAT_TYPES = ("float32", "bfloat16", "float16", "float64", "stored")


@dataclass(frozen=True)
class ReadingOptions(Options):
    """The options of reading checkpoints.

    `labels` are label sets by name, by file or as class names: a model that does not name its classes gets those of the
    first set with as many classes as its classifier has rows. They are kept in a form that means the same on every
    machine: the name of a known set, or the classes.
    """

    branch: str = option(
        "student",
        "Network of a file of several: student, teacher (EMA), a prefix of its names, or all.",
        metavar="BRANCH",
    )
    labels: tuple[str | tuple[str, ...], ...] = option(
        (), "Classes of models without names: cityscapes19, ... Repeatable.", metavar="SET|FILE", known=label_sets
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_label_files", tuple(Path(str(each)) for each in self.labels if is_label_file(each)))
        object.__setattr__(self, "labels", tuple(_portable(labels) for labels in self.labels))

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The files that label sets were read from when these options were made."""
        found: tuple[Path, ...] = self.__dict__.get("_label_files", ())
        return found


def _portable(labels: str | Sequence[str]) -> str | tuple[str, ...]:
    found = read_label_set(labels)
    return found.name if found.name in label_sets() else found.classes


@dataclass(frozen=True)
class NetworkOptions(ReadingOptions):
    """The options of making a network from a checkpoint.

    `network` makes the network of a checkpoint that no family knows, from code of the user's own: a function of the
    content of its config.json and of the names of its outputs that returns a torch.nn.Module, or its name, as
    "module:function". It may have a `description`, a `NetworkDescription`. `compute_dtype` "stored" is the type that
    most of a checkpoint's weights have.
    """

    system: str | None = option(None, "Code base that a DeepLabV2 checkpoint comes from.", choices=SYSTEMS)
    network: str | Callable[..., Any] | None = option(
        None,
        "Code of your own that makes the network of a model that hf-lwmm does not know.",
        metavar="MODULE:FUNCTION",
    )
    device: str = option("cpu", "Device of the networks: cpu, cuda, mps.")
    compute_dtype: str = option("float32", "Type that networks compute in.", choices=FLOAT_TYPES)


@dataclass(frozen=True)
class MergeInputs(Options):
    """The inputs of a merge besides its models.

    `target` is what the merge is for, from which a method is advised: the anchor's own domain, a mixture of the models'
    domains, or a new one.
    `base` is the pre-training that all models share, and `measurements` holds one file for each model, in their order;
    both are for the methods that need them. `tune_images` are the images on which a method decides its layer weights,
    and `tuning` holds such weights if they are known already; `order` is the order of the anchor's slots if it is.
    BatchNorm's statistics are estimated on `bn_images`, and the merge and its parents are scored on `eval_images`.
    Images may be given by the name of their data set alone.
    """

    base: Ref | None = field(default=None)
    measurements: tuple[Ref, ...] = field(default=())
    tune_images: ImageSource | None = field(default=None)
    bn_images: ImageSource | None = field(default=None)
    eval_images: ImageSource | None = field(default=None)
    network: NetworkOptions = field(default=NetworkOptions())
    tuning: Tuning | None = field(default=None)
    order: TensorOrder | None = field(default=None)
    target: str | None = option(
        None,
        "Domain that the merge is for; advice rests on it.",
        choices=TARGETS,
    )
    full_download: bool = option(False, "Download whole files from the Hub, not only the parts that are read.")

    def __post_init__(self) -> None:
        for name in ("tune_images", "bn_images", "eval_images"):
            if isinstance(images := getattr(self, name), str | Path):
                object.__setattr__(self, name, as_images(images))
        super().__post_init__()
