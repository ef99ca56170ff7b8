"""What a merge method is: what happens at one slot, given its tensors in every model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.methods.schedule import Weights

if TYPE_CHECKING:
    from torch import Tensor

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Slot:
    """One shared slot, as a method sees it.

    `values` are the models' tensors, all of one shape, the anchor's first; `base` is the common pre-training's, and
    `statistics` one array for each model (method-specific), where the method asks for them. `position` counts from 1
    to `positions` in depth order.
    """

    name: str
    position: int
    positions: int
    values: tuple[Values, ...]
    base: Values | None = None
    statistics: tuple[Values, ...] = ()

    @property
    def task_vectors(self) -> list[Values]:
        """What each model's training added to the base."""
        assert self.base is not None
        return [value - self.base for value in self.values]

    def generator(self, seed: int, model: int) -> np.random.Generator:
        """Random numbers that depend on seed, slot and model alone, so that every machine draws the same."""
        return np.random.default_rng([seed, zlib.crc32(self.name.encode()), model])


class Trials(Protocol):
    """What a method may try out on images before it decides its weights, which are (positions, models) matrices."""

    names: Sequence[str]  # of the models
    anchor: int
    positions: int
    progress: Callable[[str, int, int], None]

    @property
    def count(self) -> int:
        """How many images there are."""

    def score(self, weights: Weights) -> float:
        """What the merge scores on the labelled images, a fraction: mIoU, mean PQ, average accuracy or mean AP."""

    def pixels(self, image: int) -> Tensor:
        """An image as it comes to the network: (1, 3, H, W)."""

    def logits(self, weights: Tensor, pixels: Tensor) -> Tensor:
        """The merge's logits (1, C, h, w), differentiable in the weights."""


class Method:
    """A way to merge. Subclasses are frozen dataclasses whose fields are the method's options.

    A *linear* method gives one weight for each model and depth position; the engine streams it. A *tuned* one is
    linear, too, and decides its weights on images first. Any other merges whole slots. Statistics of normalisation
    layers have no gradient and no task vector: methods that are no convex combination average them (`--bn` chooses
    otherwise).
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # what it does, as a clause for the model card
    reference: ClassVar[str]
    linear: ClassVar[bool] = False
    convex: ClassVar[bool] = False  # linear, and a row of weights sums to 1
    needs: ClassVar[frozenset[str]] = frozenset()  # of "base", "fisher", "grams", "labels", "images"
    data: ClassVar[str] = ""  # what has to be measured or given, for the table of methods
    models: ClassVar[int | None] = None  # how many models it takes, if not any number
    permutes: ClassVar[bool] = False  # whether units are first permuted to match the anchor's

    def weights(self, positions: int, models: int, anchor: int) -> Weights:
        """Of a linear method: (positions, models); what a row lacks to 1 is the base's."""
        raise NotImplementedError

    def merge(self, slot: Slot) -> Values:
        """Of any other method: the merged values, shaped as the slot's."""
        raise NotImplementedError

    def decide(self, trials: Trials) -> tuple[Weights, tuple[str, ...]]:
        """Of a tuned method: its weights, (positions, models), rows summing to 1, and notes on how it found them."""
        raise NotImplementedError

    @property
    def tuned(self) -> bool:
        """Whether its weights are decided on images, labelled or not."""
        return bool({"labels", "images"} & self.needs)

    @property
    def options(self) -> dict[str, Any]:
        """The options by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


def uniform(positions: int, models: int) -> Weights:
    """1/M for every model at every position: (positions, models)."""
    return np.full((positions, models), 1 / models)


def kept(count: int, density: float) -> int:
    """How many of `count` elements a density keeps."""
    return int(density * count)
