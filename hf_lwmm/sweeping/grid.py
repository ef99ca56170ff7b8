"""The candidates of a sweep: every combination of models, anchor, method and knobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations, product
from typing import Any

from hf_lwmm.errors import PlanError
from hf_lwmm.methods import METHODS
from hf_lwmm.methods.layerwise import Layerwise

KINDS = ("model", "merge", "ensemble")
SUBSETS = ("all", "pairs", "whole")
ANCHORS = ("all", "first")
_LAYERWISE = ("start", "alpha", "ramp")


@dataclass(frozen=True)
class Candidate:
    """One thing to score; models are told by their places among the sweep's.

    `kind` is "model", "merge" or "ensemble". `knobs` are those of a merge that differ from the paper's choice, as for
    `Knobs`. `trial` counts what a search tried.
    """

    kind: str
    models: tuple[int, ...]
    anchor: int
    knobs: Mapping[str, Any] = field(default_factory=dict)
    trial: int | None = None

    @property
    def key(self) -> str:
        """What tells it from any other candidate of the sweep."""
        entries = asdict(self)
        del entries["trial"]
        return json.dumps(entries, sort_keys=True)

    def to_json(self) -> str:
        """Its text, which `read_candidate` reads."""
        return json.dumps(asdict(self))

    @property
    def method(self) -> str | None:
        """The name of a merge's method."""
        return str(self.knobs.get("method", Layerwise.name)) if self.kind == "merge" else None

    def name(self, labels: Sequence[str]) -> str:
        """What a table calls it, e.g. `layerwise of a*, b, start=0.5`; the star marks the anchor."""
        if self.kind == "model":
            return labels[self.anchor]
        if self.kind == "ensemble":
            return f"ensemble of {', '.join(labels[model] for model in self.models)}"
        models = [labels[model] + ("*" if model == self.anchor else "") for model in self.models]
        settings = [f"{name}={_short(value)}" for name, value in _flat(self.knobs).items() if name != "method"]
        return f"{self.method} of {', '.join(models + settings)}"


def read_candidate(text: str) -> Candidate:
    """A candidate from its own text."""
    entries = json.loads(text)
    return Candidate(**{**entries, "models": tuple(entries["models"])})


@dataclass(frozen=True)
class Skipped:
    """A combination that cannot be, or that failed, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class Axes:
    """What a grid varies.

    `subsets`: all of two or more models, pairs, or the whole set. `anchors`: every model of a subset in turn, or its
    first. `start`, `alpha` and `ramp` are layerwise's; of `options` each method takes those that it has. `fixed` are
    further knobs of every merge.
    """

    subsets: str = "all"
    anchors: str = "all"
    methods: Sequence[str] = (Layerwise.name,)
    start: Sequence[float] = (0.0,)
    alpha: Sequence[float | None] = (None,)
    ramp: Sequence[str] = ("linear",)
    bn: Sequence[str] = ("linear",)
    options: Mapping[str, Sequence[float]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("methods", "start", "alpha", "ramp", "bn"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise PlanError(f"--{name} lists nothing.")
        for name, value, choices in (("subsets", self.subsets, SUBSETS), ("anchors", self.anchors, ANCHORS)):
            if value not in choices:
                raise PlanError(f"--{name} {value} is none of {', '.join(choices)}.")
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise PlanError(f"--methods {unknown[0]} is none of {', '.join(METHODS)}.")
        known = {option for method in self.methods for option in _options_of(method)}
        if lacking := sorted(set(self.options) - known):
            raise PlanError(f"--set {lacking[0]}: none of the methods {', '.join(self.methods)} has this option.")


def singles(count: int) -> list[Candidate]:
    """Every model by itself."""
    return [Candidate("model", (model,), model) for model in range(count)]


def ensembles(count: int, subsets: str) -> list[Candidate]:
    """The output ensemble of every subset."""
    return [Candidate("ensemble", members, members[0]) for members in _subsets(count, subsets)]


def merges(count: int, axes: Axes) -> list[Candidate]:
    """Every merge of a grid, whether it can be or not."""
    return [
        Candidate("merge", members, anchor, knobs)
        for members in _subsets(count, axes.subsets)
        for anchor in (members if axes.anchors == "all" else members[:1])
        for method in axes.methods
        for knobs in _knobs(method, axes)
    ]


def merge_knobs(method: str, values: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Knobs of a merge without those that are the paper's choice anyway, so that equal merges have equal names."""
    from hf_lwmm.planning.plan import Knobs

    defaults = {each.name: each.default for each in fields(Knobs)}
    every = {"method": method, **fixed, **values}
    return {name: value for name, value in every.items() if value != defaults[name] and value not in ({}, (), [])}


def _options_of(method: str) -> list[str]:
    return [each.name for each in fields(METHODS[method]) if each.name not in _LAYERWISE]  # type: ignore[arg-type]


def _knobs(method: str, axes: Axes) -> Iterator[dict[str, Any]]:
    varied: dict[str, Sequence[Any]] = {"bn": axes.bn}
    if method == Layerwise.name:
        varied |= {name: getattr(axes, name) for name in _LAYERWISE}
    options = {name: values for name, values in axes.options.items() if name in _options_of(method)}
    for chosen in product(*varied.values(), *options.values()):
        values = dict(zip(varied, chosen, strict=False))
        values["options"] = dict(zip(options, chosen[len(varied) :], strict=True))
        yield merge_knobs(method, values, axes.fixed)


def _subsets(count: int, subsets: str) -> list[tuple[int, ...]]:
    sizes = {"all": range(2, count + 1), "pairs": range(2, 3), "whole": range(count, count + 1)}[subsets]
    return [members for size in sizes for members in combinations(range(count), size)]


def _flat(knobs: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in knobs.items() if name != "options"}, **knobs.get("options", {})}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
