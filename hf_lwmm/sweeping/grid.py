"""List the candidates of a sweep: every combination of models, anchor, method and knobs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import combinations, product
from typing import Any, get_type_hints

from hf_lwmm.errors import PlanError
from hf_lwmm.methods import METHODS, Method, make_method
from hf_lwmm.methods.auto import Auto
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.methods.schedule import NAMED_RAMPS
from hf_lwmm.options import Options, did_you_mean, option, parsed
from hf_lwmm.planning.knobs import BN_STATS, Knobs

KINDS = ("model", "merge", "ensemble")
SUBSETS = ("all", "pairs", "whole")
ANCHORS = ("all", "first")
_OF_LAYERWISE = ("start", "alpha", "ramp")
_OF_THE_SWEEP = ("method", "labels", "branch")  # not said again in a candidate's name


@dataclass(frozen=True)
class SweepAxes(Options):
    """The choices that a sweep varies, and those that all its merges share.

    `start`, `alpha` (None is 1/M) and `ramp` are layerwise's. `options` are texts NAME=VALUE,... with values to try,
    for the methods that have an option of the name. `fixed` are the knobs of every merge; its method and its `bn_stats`
    are replaced by those of the axes.
    """

    subsets: str = option("all", "Subsets of two or more to merge.", choices=SUBSETS)
    anchors: str = option("all", "Models of a subset to anchor it.", choices=ANCHORS)
    methods: tuple[str, ...] = option(
        (Layerwise.name,),
        "Methods to try, or auto.",
        choices=(*METHODS, Auto.name),
        commas=True,
    )
    start: tuple[float, ...] = option((0.0,), "Starts to try, such as 0,0.25,0.5.", commas=True)
    alpha: tuple[float | None, ...] = option(
        (None,), "Anchor weights to try with layerwise, such as 0.5,0.7.", commas=True, shown="1/M"
    )
    ramp: tuple[str, ...] = option(("linear",), "Ramps to try with layerwise.", commas=True, known=NAMED_RAMPS)
    bn_stats: tuple[str, ...] = option(("linear",), "BatchNorm's running statistics.", choices=BN_STATS, commas=True)
    options: tuple[str, ...] = option(
        (),
        "Values of a method's option to try. Repeatable.",
        name="option",
        metavar="NAME=VALUE,...",
    )
    ensemble: bool = option(False, "Also score every subset's averaged outputs.")
    fixed: Knobs = field(default=Knobs())

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("methods", *_OF_LAYERWISE, "bn_stats"):
            if not getattr(self, name):
                raise PlanError(f"{self.flag(name)} lists nothing.")
        found = self.option_values
        known = {name for method in self._known_methods for name in _options_of(method)}
        if unknown := sorted(found.keys() - known):
            raise PlanError(
                f"--option {unknown[0]}: none of the methods {', '.join(self.methods)} has this option."
                f"{did_you_mean(unknown[0], sorted(known))}"
            )
        self.knobs()  # a value out of range is found now, not after hours

    @property
    def option_values(self) -> dict[str, tuple[Any, ...]]:
        """The values to try of each option by name, from the texts in `options`."""
        found: dict[str, tuple[Any, ...]] = {}
        for text in self.options:
            name, equals, values = text.partition("=")
            if not equals or not name:
                raise PlanError(f"--option {text}: write NAME=VALUE,..., such as density=0.2,0.5.")
            parts = [part.strip() for part in values.split(",")]
            if not all(parts):
                raise PlanError(f"--option {text}: has nothing where a value should be.")
            having = (METHODS[method] for method in self._known_methods if name in _options_of(method))
            hint = next((get_type_hints(method)[name] for method in having), str)
            found[name] = (*found.get(name, ()), *(parsed(part, hint) for part in parts))
        return found

    @property
    def varies_knobs(self) -> bool:
        """True if the axes ask for a grid: another method than layerwise, or several values of a knob."""
        return self != SweepAxes(
            subsets=self.subsets,
            anchors=self.anchors,
            bn_stats=self.bn_stats[:1],
            ensemble=self.ensemble,
            fixed=self.fixed,
        )

    @property
    def _known_methods(self) -> tuple[str, ...]:
        return tuple(method for method in self.methods if method != Auto.name)

    def with_advised(self, method: str) -> SweepAxes:
        """Return the axes with the advised method in the place of auto; no method is tried twice."""
        return replace(self, methods=tuple(dict.fromkeys(method if own == Auto.name else own for own in self.methods)))

    def knobs(self) -> list[Knobs]:
        """Return every combination of method, options and `bn_stats`, on top of the fixed knobs, but those of auto.

        Raises:
            PlanError: if a method has no such value of an option.
        """
        return [
            replace(self.fixed, method=variant, bn_stats=bn_stats)
            for method in self._known_methods
            for bn_stats in self.bn_stats
            for variant in self._variants(method)
        ]

    def _variants(self, method: str) -> list[Method]:
        """A method with every combination of its options' values."""
        own = _options_of(method)
        varied = {name: values for name, values in self.option_values.items() if name in own}
        if method == Layerwise.name:
            varied |= {name: getattr(self, name) for name in _OF_LAYERWISE}
        return [make_method(method, dict(zip(varied, values, strict=True))) for values in product(*varied.values())]


@dataclass(frozen=True)
class Candidate:
    """One thing to score: a model, a merge or an output ensemble.

    `models` and `anchor` are places among the sweep's models. Only a merge has `knobs`. `trial` numbers what a search
    tried.
    """

    kind: str
    models: tuple[int, ...]
    anchor: int
    knobs: Knobs | None = None
    trial: int | None = None

    @property
    def key(self) -> str:
        """A text that no other candidate of the sweep has."""
        return json.dumps({**self.to_dict(), "trial": None}, sort_keys=True)

    @property
    def place(self) -> tuple[int, int, str]:
        """An order that does not depend on which candidate was done first."""
        return KINDS.index(self.kind), len(self.models), self.key

    @property
    def method(self) -> str | None:
        """The name of a merge's method, else None."""
        return self.knobs.method.name if self.knobs else None

    def name(self, labels: Sequence[str]) -> str:
        """Return what tables call it, such as `layerwise of a*, b, start=0.5`; the star marks the anchor.

        `labels` are the models', which are as short here as `short_labels` makes them.
        Knobs at their defaults, and labels and branch, which all merges of a sweep share, are left out.
        """
        labels = short_labels(labels)
        if self.kind == "model":
            return labels[self.anchor]
        if self.knobs is None:
            return f"ensemble of {', '.join(labels[model] for model in self.models)}"
        models = [labels[model] + ("*" if model == self.anchor else "") for model in self.models]
        changed = {**self.knobs.changed(), **self.knobs.method.changed()}
        settings = [f"{name}={_short(value)}" for name, value in changed.items() if name not in _OF_THE_SWEEP]
        return f"{self.method} of {', '.join(models + settings)}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data; the knobs are those of a recipe."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**own, "models": list(self.models), "knobs": self.knobs.to_dict() if self.knobs else None}


def short_labels(labels: Sequence[str]) -> Sequence[str]:
    """Return labels without owner and commit where the rest tells the models apart, else without the commit, if so."""
    for short in (r"(?:.*/)?([^/@]+)(?:@[0-9a-f]{7})?", r"(.+?)(?:@[0-9a-f]{7})?"):
        found = [match[1] if (match := re.fullmatch(short, label)) else label for label in labels]
        if len(set(found)) == len(labels):
            return found
    return labels


def read_candidate(entries: Mapping[str, Any]) -> Candidate:
    """Return the candidate that `Candidate.to_dict` gave.

    Raises:
        PlanError: if this version knows no such method or knob.
    """
    knobs = None
    if entries["knobs"] is not None:
        options = dict(entries["knobs"]["method"])
        method = make_method(options.pop("name"), options)
        knobs = Knobs.read({**entries["knobs"], "method": method}, "A candidate's knobs")
    return Candidate(**{**entries, "models": tuple(entries["models"]), "knobs": knobs})


@dataclass(frozen=True)
class Skipped:
    """A candidate that cannot be merged or scored, and the reason."""

    candidate: Candidate
    reason: str


def singles(count: int) -> list[Candidate]:
    """Return every model by itself."""
    return [Candidate("model", (model,), model) for model in range(count)]


def ensembles(count: int, subsets: str) -> list[Candidate]:
    """Return the output ensemble of every subset of `count` models."""
    return [Candidate("ensemble", members, members[0]) for members in _subsets(count, subsets)]


def merges(count: int, axes: SweepAxes) -> list[Candidate]:
    """Return every merge of a grid over `count` models once, whether it can be carried out or not."""
    found = (
        Candidate("merge", members, anchor, knobs)
        for members in _subsets(count, axes.subsets)
        for anchor in (members if axes.anchors == "all" else members[:1])
        for knobs in axes.knobs()
    )
    return list(dict.fromkeys(found))


def _subsets(count: int, subsets: str) -> list[tuple[int, ...]]:
    sizes = {"all": range(2, count + 1), "pairs": range(2, 3), "whole": range(count, count + 1)}[subsets]
    return [members for size in sizes for members in combinations(range(count), size)]


def _options_of(method: str) -> list[str]:
    """The options of a method that have no axis of their own."""
    return [] if METHODS[method].own_flags else [each.name for each in fields(METHODS[method])]  # type: ignore[arg-type]


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
