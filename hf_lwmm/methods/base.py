"""The interface of a merge method: what happens at one slot, given its tensors in every model."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.errors import PlanError
from hf_lwmm.methods.schedule import LayerWeights
from hf_lwmm.options import Options, did_you_mean
from hf_lwmm.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

Values = NDArray[np.float64]

METHODS: dict[str, type[Method]] = {}
_M = TypeVar("_M", bound="type[Method]")


def register(method: _M) -> _M:
    """Make a method known by its name; the decorator of every class in this package's files."""
    METHODS[method.name] = method
    return method


@dataclass(frozen=True)
class Slot:
    """One shared slot, as a method sees it.

    `position` counts from 1 to `positions` in depth order. `values` are the models' tensors, all of one shape, the
    anchor's first. `base` is the tensor of the common pre-training and `measurements` holds one array for each model,
    both only for methods that ask for them.
    """

    name: str
    position: int
    positions: int
    values: tuple[Values, ...]
    base: Values | None = None
    measurements: tuple[Values, ...] = ()

    @property
    def task_vectors(self) -> list[Values]:
        """Each model's difference from the base."""
        assert self.base is not None
        return [value - self.base for value in self.values]

    def generator(self, seed: int, model: int) -> np.random.Generator:
        """Return a generator that depends on seed, slot and model alone, so that every machine draws the same."""
        return np.random.default_rng([seed, zlib.crc32(self.name.encode()), model])


class Trials(Protocol):
    """What a method may try out on images before it decides its layer weights, (positions, models) matrices."""

    names: Sequence[str]  # of the models
    anchor: int
    positions: int
    progress: Progress

    @property
    def count(self) -> int:
        """The number of images."""

    def score(self, weights: LayerWeights) -> float:
        """Return the merge's score on the labelled images, a fraction: mIoU, mean PQ, average accuracy or mean AP."""

    def pixels(self, image: int) -> Tensor:
        """Return an image as the network takes it: (1, 3, H, W)."""

    def logits(self, weights: Tensor, pixels: Tensor) -> Tensor:
        """Return the merge's logits (1, C, h, w), differentiable in the weights."""


class Method(Options):
    """A way to merge. Subclasses are frozen dataclasses whose fields are the method's options.

    A *linear* method gives one weight to each model at each depth position, and the engine streams it. A *tuned*
    method is linear too, and decides its weights on images first. Any other method merges whole slots. Running
    statistics of normalisation layers have no gradient and no task vector: methods that are no convex combination
    average them, unless `--bn-stats` says otherwise.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # what it does, as a clause for the model card
    reference: ClassVar[str]
    linear: ClassVar[bool] = False
    convex: ClassVar[bool] = False  # linear, and each row of weights sums to 1
    needs: ClassVar[frozenset[str]] = frozenset()  # of "base", "fisher", "grams", "labels", "images"
    data: ClassVar[str] = ""  # what must be measured or given, for the table of methods
    models: ClassVar[int | None] = None  # how many models it takes; None for any number
    permutes: ClassVar[bool] = False  # units are first permuted to match the anchor's
    exact: ClassVar[bool] = True  # gives the same bits on every machine: no sum is left to a BLAS library
    own_flags: ClassVar[bool] = False  # its options are options of the command line itself

    @classmethod
    def flag(cls, name: str) -> str:
        return super().flag(name) if cls.own_flags else f"--option {name}"

    def weights(self, positions: int, models: int, anchor: int) -> LayerWeights:
        """Return a linear method's weights, (positions, models); what a row lacks to 1 is the base's."""
        raise NotImplementedError

    def merge(self, slot: Slot) -> Values:
        """Return the merged values of a slot, in its shape, for a method that is not linear."""
        raise NotImplementedError

    def decide(self, trials: Trials) -> tuple[LayerWeights, tuple[str, ...]]:
        """Return a tuned method's weights, (positions, models) with rows that sum to 1, and notes on the search."""
        raise NotImplementedError

    @property
    def tuned(self) -> bool:
        """True if the weights are decided on images, labelled or not."""
        return bool({"labels", "images"} & self.needs)

    @property
    def measured(self) -> bool:
        """True if every model must be measured on images first."""
        return bool({"fisher", "grams"} & self.needs)

    @property
    def options(self) -> dict[str, Any]:
        """The options by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return the method of a name, with `options` in place of its defaults.

    Raises:
        PlanError: for an unknown method or option, or a value out of range.
    """
    if name not in METHODS:
        raise PlanError(f"--method {name} is none of {', '.join(METHODS)}.{did_you_mean(name, tuple(METHODS))}")
    return METHODS[name].read(dict(options), f"--method {name}")


def uniform(positions: int, models: int) -> LayerWeights:
    """Return 1/M for every model at every position: (positions, models)."""
    return np.full((positions, models), 1 / models)


def kept(count: int, density: float) -> int:
    """Return how many of `count` elements a density keeps."""
    return int(density * count)


def norm(values: Values) -> float:
    """Return the Euclidean length of a tensor, summed in the same order on every machine."""
    return float(np.sqrt((values * values).sum()))
