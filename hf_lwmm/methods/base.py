"""The interface of merge methods, and the functions that they share."""

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
    """Add a class of methods to `METHODS` under its name; a decorator."""
    METHODS[method.name] = method
    return method


@dataclass(frozen=True)
class Slot:
    """A shared slot, as a method receives it.

    `position` counts from 1 to `positions` in depth order. `values` are the models' tensors, float64 and of one shape,
    the anchor's first. `base` is the tensor of the common pre-training, and `measurements` has an array for each model;
    only methods that need them receive them.
    """

    name: str
    position: int
    positions: int
    values: tuple[Values, ...]
    base: Values | None = None
    measurements: tuple[Values, ...] = ()

    @property
    def task_vectors(self) -> list[Values]:
        """Each model's difference from the base, in the shape of the slot."""
        assert self.base is not None
        return [value - self.base for value in self.values]

    def generator(self, seed: int, model: int) -> np.random.Generator:
        """Return a generator that depends only on seed, slot and model, so that all machines draw the same numbers."""
        return np.random.default_rng([seed, zlib.crc32(self.name.encode()), model])


class Trials(Protocol):
    """Trial merges on images, for a method to decide its layer weights by: matrices (positions, models)."""

    names: Sequence[str]  # of the models
    anchor: int  # index of the anchor
    positions: int
    progress: Progress

    @property
    def count(self) -> int:
        """The number of images."""

    def score(self, weights: LayerWeights) -> float:
        """Return the merge's score on the labelled images as a fraction: mIoU, mean PQ, average accuracy or mean AP."""

    def pixels(self, image: int) -> Tensor:
        """Return an image as input of the network: (1, 3, H, W) float32."""

    def logits(self, weights: Tensor, pixels: Tensor) -> Tensor:
        """Return the merge's logits for an image, (1, C, h, w), differentiable in the layer weights."""


class Method(Options):
    """A merge method. Subclasses are frozen dataclasses whose fields are the method's options.

    A *linear* method gives each model one weight at each depth position, which lets the engine stream tensors. A
    *tuned* method is linear and decides its weights on images. Any other method merges whole slots. BatchNorm's running
    statistics have no gradient and no task vector, so a method that neither is convex nor interpolates averages them
    unless `--bn-stats` chooses otherwise.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # a clause for the model card
    reference: ClassVar[str]  # authors, year and arXiv number
    linear: ClassVar[bool] = False
    convex: ClassVar[bool] = False  # linear, and each row of weights sums to 1
    interpolates: ClassVar[bool] = False  # linear, and convex with the base as one more model
    needs: ClassVar[frozenset[str]] = frozenset()  # any of "base", "fisher", "grams", "labels", "images"
    data: ClassVar[str] = ""  # data that must be measured or given, for the table of methods
    models: ClassVar[int | None] = None  # number of models that it merges; None for any
    permutes: ClassVar[bool] = False  # first permutes every model's units to match the anchor's
    exact: ClassVar[bool] = True  # gives the same bits on every machine, since no sum is left to a BLAS library
    own_flags: ClassVar[bool] = False  # each option has its own flag, not `--option`

    @classmethod
    def flag(cls, name: str) -> str:
        return super().flag(name) if cls.own_flags else f"--option {name}"

    def weights(self, positions: int, models: int, anchor: int) -> LayerWeights:
        """Return a linear method's weights, (positions, models) float64; the base has 1 minus the sum of each row."""
        raise NotImplementedError

    def merge(self, slot: Slot) -> Values:
        """Return the merged values of a slot, float64 in its shape, for a method that is not linear."""
        raise NotImplementedError

    def decide(self, trials: Trials) -> tuple[LayerWeights, tuple[str, ...]]:
        """Return a tuned method's weights, (positions, models) with rows that sum to 1, and notes on the search."""
        raise NotImplementedError

    @property
    def tuned(self) -> bool:
        """True if the method decides its weights on images, labelled or not."""
        return bool({"labels", "images"} & self.needs)

    @property
    def measured(self) -> bool:
        """True if every model must first be measured on images."""
        return bool({"fisher", "grams"} & self.needs)

    @property
    def options(self) -> dict[str, Any]:
        """The options by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return the method called `name`, with `options` in place of its defaults.

    Raises:
        PlanError: for an unknown method or option, or a value outside an option's range.
    """
    if name not in METHODS:
        raise PlanError(f"--method {name} is not one of {', '.join(METHODS)}.{did_you_mean(name, tuple(METHODS))}")
    return METHODS[name].read(dict(options), f"--method {name}")


def uniform(positions: int, models: int) -> LayerWeights:
    """Return equal weights, 1 / models at every position: (positions, models) float64."""
    return np.full((positions, models), 1 / models)


def kept(count: int, density: float) -> int:
    """Return the number of elements, out of `count`, that the fraction `density` keeps."""
    return int(density * count)


def norm(values: Values) -> float:
    """Return the Euclidean norm of a tensor, summed in the same order on every machine."""
    return float(np.sqrt((values * values).sum()))
