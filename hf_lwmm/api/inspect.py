"""Describe a model from its headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.checkpoints.dtypes import TORCH_NAMES, is_float
from hf_lwmm.hub import Ref, Source, parse_ref
from hf_lwmm.planning.groups import described, groups_of
from hf_lwmm.text import one_line


@dataclass(frozen=True)
class ModelInfo:
    """A model's layout, architecture, class names, element types and size.

    `parameters` counts float elements, and `dtypes` maps torch's type names to numbers of elements. `image_processor`
    is the class of the settings beside the weights, None if there are none.
    `training` are facts of the training run that a torch file holds, such as its iteration and software.
    """

    model: str
    sha: str | None
    files: tuple[str, ...]
    layout: str
    architecture: str
    classes: tuple[str, ...] | None = field(repr=False)
    dtypes: Mapping[str, int]
    tensors: int
    parameters: int
    license: str | None
    image_processor: str | None
    training: Mapping[str, str]
    notes: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        kinds = ", ".join(map(one_line, self.dtypes))
        classes = "no class names" if self.classes is None else f"{len(self.classes)} classes"
        return (
            f"{one_line(self.model)}: {one_line(self.architecture)} ({one_line(self.layout)}), {self.parameters:,} "
            f"parameters in {kinds}, {classes}, licence {one_line(self.license or 'not stated')}"
        )


def inspect(model: Ref, *, branch: str = "student") -> ModelInfo:
    """Describe a model. Of files on the Hub only headers are read.

    Raises:
        HfLwmmError: a subclass, if the model cannot be found or read.
    """
    checkpoint = open_checkpoint(hub.resolve(parse_ref(model)), branch=branch, headers_only=True)
    checkpoint.close()
    processor = checkpoint.processor
    dtypes: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        name = TORCH_NAMES.get(info.dtype, info.dtype.lower())
        dtypes[name] = dtypes.get(name, 0) + info.count
    return ModelInfo(
        model=checkpoint.label,
        sha=checkpoint.source.sha,
        files=checkpoint.files,
        layout=checkpoint.slot_map.layout,
        architecture=checkpoint.slot_map.architecture,
        classes=checkpoint.classes,
        dtypes=dict(sorted(dtypes.items(), key=lambda item: -item[1])),
        tensors=len(checkpoint.tensors),
        parameters=sum(info.count for info in checkpoint.tensors.values() if is_float(info.dtype)),
        license=stated_licence(checkpoint.source),
        image_processor=processor.kind or "of the model's type" if processor else None,
        training=checkpoint.metadata,
        notes=(*checkpoint.notes, *(f"{checkpoint.label}: {each}" for each in described(groups_of(checkpoint)))),
    )


def stated_licence(source: Source) -> str | None:
    """Return the licence that a model's card states, several with commas between; None if it states none."""
    licence = source.card.get("license")
    return ", ".join(licence) if isinstance(licence, list) else licence
