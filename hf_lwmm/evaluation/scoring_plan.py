"""Describe how every image of an evaluation is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm import hub
from hf_lwmm.evaluation.pictures import View
from hf_lwmm.labels import LabelIds
from hf_lwmm.networks.loaded_model import LoadedModel


@dataclass(frozen=True)
class ScoredModel:
    """A network that is scored, or an ensemble of several whose softmax outputs are averaged."""

    name: str
    members: tuple[LoadedModel, ...] = field(repr=False)

    @property
    def identity(self) -> list[str]:
        """Texts that differ between any two networks, so that no partial result is taken for another's."""
        return [_identity(member) for member in self.members]


def _identity(loaded: LoadedModel) -> str:
    ref, sha = loaded.source.ref, loaded.source.sha
    version = sha or (hub.stamp(ref.path) if ref.path is not None else "")
    model: Any = loaded.model
    return f"{ref.shown}@{version} {loaded.branch} {next(model.parameters()).dtype} {loaded.configuration}"


@dataclass(frozen=True)
class ScoringPlan:
    """The way in which every image of an evaluation is scored.

    `models` are scored in this order, the anchor first; `tables` has a (256,) table for each, from its class ids to
    those of the data set. `dataset` is what messages call the data set, and `classes` are the names of its ids.
    `ids` are those in label files. `void` is the class that takes the void pixels of predicted panoptic maps, if one is
    to take them.
    """

    models: Sequence[ScoredModel]
    tables: Sequence[NDArray[np.uint8]] = field(repr=False)
    task: str
    dataset: str
    classes: Sequence[str]
    ids: LabelIds
    views: Sequence[View]
    void: int | None = None

    @property
    def preparation(self) -> str:
        """A text that plans have in common which take a sample in the same form."""
        processors = sorted({member.preparation for model in self.models for member in model.members})
        return f"{self.task} {self.ids} {[*self.views]} {processors}"
