"""The merge plan: every number that a merge will use, decided from headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import BY_TORCH_NAME
from hf_lwmm.errors import PlanError
from hf_lwmm.labels.label_sets import label_sets, read_label_set
from hf_lwmm.methods import Method, make_method, uniform
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.methods.schedule import Weights
from hf_lwmm.planning.alignment import GRANULARITIES, HEADS, ORDERS, SHARES, Alignment, SharedSlot, align
from hf_lwmm.planning.permutation import axes_of
from hf_lwmm.planning.provenance import Tuning
from hf_lwmm.planning.tensor_recipes import PlannedTensor, base_atom, is_statistic, planned_tensors

_CHOICES = {"granularity": GRANULARITIES, "order": ORDERS, "share": SHARES, "head": HEADS}
_WEIGHTS = ("student", "teacher")
BN_CHOICES = ("linear", "pooled", "anchor", "recalibrate")
_LAYERWISE = ("start", "alpha", "ramp")


@dataclass(frozen=True)
class Knobs:
    """All choices of a merge besides its models; the defaults are the paper's (method, section 2).

    `method` is one of `hf_lwmm.methods.METHODS`, `options` its options; those of layerwise are knobs of their own.
    `bn` says what becomes of the running statistics of normalisation layers: averaged with the method's weights,
    pooled as of a mixture of Gaussians, the anchor's, or re-estimated on images when all else is merged. `permute`
    first permutes every model's units to match the anchor's.
    `alpha` None means 1/M. `dtype` None writes the anchor's own; otherwise a torch name such as float16.
    `weights` picks student or teacher from checkpoints of self-training runs. `keep` names slots, or dotted
    beginnings of their names, that stay the anchor's. `labels` are label sets, by name, file or class names: a model
    that does not name its classes gets those of the first set with as many classes as its classifier has rows.
    """

    start: float = 0.0
    alpha: float | None = None
    ramp: str = "linear"
    granularity: str = "parameter"
    order: str = "depth"
    share: str = "all"
    head: str = "shared"
    dtype: str | None = None
    weights: str = "student"
    keep: tuple[str, ...] = ()
    labels: tuple[str | tuple[str, ...], ...] = ()
    method: str = "layerwise"
    options: Mapping[str, float] = field(default_factory=dict)
    bn: str = "linear"
    permute: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", dict(self.options or {}))
        object.__setattr__(self, "keep", tuple(self.keep or ()))  # a list or None from YAML or a command line
        object.__setattr__(self, "labels", tuple(_portable(labels) for labels in self.labels or ()))
        for name, choices in (*_CHOICES.items(), ("weights", _WEIGHTS), ("bn", BN_CHOICES)):
            if getattr(self, name) not in choices:
                raise PlanError(f"--{name} {getattr(self, name)} is none of {', '.join(choices)}.")
        if self.dtype is not None and self.dtype not in BY_TORCH_NAME:
            raise PlanError(f"--dtype {self.dtype} is none of {', '.join(BY_TORCH_NAME)}.")
        self.merge_method()

    def merge_method(self) -> Method:
        """The method with its options.

        Raises:
            PlanError: if there is no such method or option, or a layerwise knob is given to another method.
        """
        layerwise = {name: getattr(self, name) for name in _LAYERWISE}
        if self.method == Layerwise.name:
            return make_method(self.method, {**layerwise, **self.options})
        for name in _LAYERWISE:
            if name in self.changed():
                raise PlanError(f"--{name} is a knob of layerwise; --method {self.method} has other options.")
        return make_method(self.method, self.options)

    def changed(self) -> dict[str, Any]:
        """The knobs that differ from the paper's choice."""
        default: dict[str, Any] = {f.name: {} if f.name == "options" else f.default for f in fields(self)}
        return {name: getattr(self, name) for name in default if getattr(self, name) != default[name]}


def _portable(labels: str | Sequence[str]) -> str | tuple[str, ...]:
    """A label set as it means the same on every machine: its name if it is a known one, else its classes."""
    found = read_label_set(labels)
    return found.name if found.name in label_sets() else found.classes


@dataclass(frozen=True)
class MergePlan:
    """A merge, decided but not carried out. `checkpoints` may hold headers only.

    `base` is the common pre-training, `statistics` a file for each model, where the method asks for them. `tuning` has
    the weights of a method that decides them on images; it is None before they are decided.
    """

    checkpoints: tuple[Checkpoint, ...] = field(repr=False)
    knobs: Knobs
    alignment: Alignment
    base: Checkpoint | None = field(default=None, repr=False)
    statistics: tuple[Checkpoint, ...] = field(default=(), repr=False)
    tuning: Tuning | None = None

    @property
    def sources(self) -> tuple[Checkpoint, ...]:
        """Everything that is read; terms refer to it by index."""
        return (*self.checkpoints, *((self.base,) if self.base else ()), *self.statistics)

    @cached_property
    def method(self) -> Method:
        return self.knobs.merge_method()

    @property
    def permutes(self) -> bool:
        """Whether the other models' units are permuted to match the anchor's first."""
        return self.knobs.permute or self.method.permutes

    @property
    def undecided(self) -> bool:
        """Whether its weights are still to be decided on images (`hf_lwmm.calibration.tuning`); such a plan has no tensors."""
        return self.method.tuned and self.tuning is None

    @property
    def anchor(self) -> Checkpoint:
        return self.checkpoints[self.alignment.anchor]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(checkpoint.label for checkpoint in self.checkpoints)

    def _repr_markdown_(self) -> str:
        alignment = self.alignment
        share = alignment.shared_parameters / max(alignment.anchor_parameters, 1)
        rows = ""
        for index, checkpoint in enumerate(self.checkpoints):
            role = " **(anchor)**" if index == alignment.anchor else ""
            slots = checkpoint.slot_map
            rows += f"| {checkpoint.label}{role} | {slots.architecture} | {slots.layout} |\n"
        return (
            f"**Merge plan**: {len(alignment.shared):,} slots at {alignment.positions:,} depth positions, "
            f"{share:.1%} of the anchor's weights\n\n| model | architecture | layout |\n| --- | --- | --- |\n{rows}"
        )

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The depth position of each shared slot."""
        return {shared.slot: shared.position for shared in self.alignment.shared}

    @cached_property
    def weights(self) -> Weights | None:
        """The models' weights where all take part, (positions, models); None if there is no such thing, or not yet."""
        if not self.method.convex or self.undecided:
            return None
        return self.weights_of(tuple(range(len(self.checkpoints))))

    def slot_weights(self, shared: SharedSlot) -> dict[int, float] | None:
        """The weight of each member at a shared slot, None if it is merged in another way, or not decided yet."""
        statistic = is_statistic(shared.slot)
        if statistic and self.knobs.bn == "anchor":
            return {model: float(model == self.alignment.anchor) for model in shared.members}
        if (not self.method.linear and not statistic) or self.undecided:
            return None
        row = self.weights_of(shared.members, statistic)[shared.position - 1]
        return dict(zip(shared.members, map(float, row), strict=True))

    @cached_property
    def _tables(self) -> dict[tuple[tuple[int, ...], bool], Weights]:
        return {}

    def weights_of(self, members: tuple[int, ...], average: bool = False) -> Weights:
        """The weights of members at every position; `average` for what only a convex method has weights for.

        Raises:
            PlanError: if they are not decided yet.
        """
        plain = average and not self.method.convex
        if (members, plain) not in self._tables:
            method, count, positions = self.method, len(members), self.alignment.positions
            if isinstance(method, Layerwise) and method.alpha is not None and count < len(self.checkpoints):
                method = replace(method, alpha=max(method.alpha, 1 / count))  # among fewer an equal weighs more
            rank = members.index(self.alignment.anchor)
            if method.tuned:
                table = self._decided(members, rank)
            else:
                table = uniform(positions, count) if plain else method.weights(positions, count, rank)
            self._tables[members, plain] = table
        return self._tables[members, plain]

    def _decided(self, members: tuple[int, ...], rank: int) -> Weights:
        """Of the decided weights the members' columns; what lacks a slot leaves its part to the anchor."""
        if self.tuning is None:
            raise PlanError(f"--method {self.method.name} has no weights before they are decided on images.")
        table = self.tuning.weights[:, members]
        if len(members) < len(self.checkpoints):
            table[:, rank] += 1 - table.sum(axis=1)
        return table

    @cached_property
    def tensors(self) -> tuple[PlannedTensor, ...]:
        """Every tensor of the merged file, in the anchor's own order."""
        return planned_tensors(self)


def make_plan(
    checkpoints: Sequence[Checkpoint],
    anchor: int,
    knobs: Knobs,
    base: Checkpoint | None = None,
    statistics: Sequence[Checkpoint] = (),
    tuning: Tuning | None = None,
) -> MergePlan:
    """Align checkpoints and decide every weight, but for those that a method decides on images.

    `tuning` has such weights, if they were decided before.

    Raises:
        AlignmentError: if they share too little.
        PlanError: if a knob has no meaning here, or the method lacks a base or statistics that fit.
    """
    method = knobs.merge_method()
    _check_models(method, len(checkpoints))
    _check_given(method, base, len(statistics), len(checkpoints))
    alignment = align(
        checkpoints,
        anchor,
        share=knobs.share,
        head=knobs.head,
        granularity=knobs.granularity,
        order=knobs.order,
        keep=knobs.keep,
    )
    plan = MergePlan(tuple(checkpoints), knobs, alignment, base, tuple(statistics), tuning)
    if tuning is not None:
        _check_tuning(plan, tuning)
    if knobs.bn == "recalibrate" and not any(map(is_statistic, plan.anchor.slot_map.slots)):
        raise PlanError(f"{plan.anchor.label}: has no BatchNorm, so --bn recalibrate has nothing to do; leave it out.")
    if alignment.shared:
        plan.slot_weights(alignment.shared[0])
    if plan.permutes:
        _check_permutable(plan)
    if base is not None:
        _check_base(plan)
    for index in range(len(statistics)):
        _check_statistics(plan, index)
    return plan


def _check_models(method: Method, count: int) -> None:
    if method.models is not None and count != method.models:
        raise PlanError(f"--method {method.name} merges {method.models} models, not {count}.")


def _check_tuning(plan: MergePlan, tuning: Tuning) -> None:
    if not plan.method.tuned:
        raise PlanError(f"--method {plan.method.name} has weights of its own; decided ones mean nothing to it.")
    shape = (plan.alignment.positions, len(plan.checkpoints))
    if tuning.weights.shape != shape:
        of = "{} positions and {} models"
        raise PlanError(
            f"The decided weights are for {of.format(*tuning.weights.shape)}, but this merge has {of.format(*shape)}; "
            "decide them anew with --tune-data."
        )


def _check_permutable(plan: MergePlan) -> None:
    if plan.base is not None or plan.statistics:
        raise PlanError(
            f"--permute moves units away from where the base and the measurements of --method {plan.method.name} have "
            "them; use it with methods that need only the models."
        )
    axes_of(plan.anchor)


def _check_given(method: Method, base: Checkpoint | None, statistics: int, models: int) -> None:
    if "base" in method.needs and base is None:
        raise PlanError(f"--method {method.name} needs --base, the pre-training that all models share.")
    if "base" not in method.needs and base is not None:
        raise PlanError(f"--method {method.name} makes no use of --base; leave it out.")
    wanted = models if {"fisher", "grams"} & method.needs else 0
    if statistics != wanted:
        what = f"one file of statistics for each of the {models} models" if wanted else "no statistics"
        raise PlanError(f"--method {method.name} takes {what} (--statistics), not {statistics}.")


def _check_base(plan: MergePlan) -> None:
    assert plan.base is not None
    if not any(base_atom(plan, shared.slot) for shared in plan.alignment.shared):
        raise PlanError(
            f"{plan.base.label} has none of the shared slots in the same shape, so it is not the models' base "
            f"({plan.base.slot_map.architecture} against {plan.anchor.slot_map.architecture})."
        )


def _check_statistics(plan: MergePlan, index: int) -> None:
    """Statistics of another network, or of another model, are refused."""
    found, model = plan.statistics[index], plan.checkpoints[index]
    slots = model.slot_map.slots
    fitting = 0
    for slot, info in found.tensors.items():
        if slot not in slots:
            continue
        shape = slots[slot].shape
        expected = shape if "fisher" in plan.method.needs else (math.prod(shape[1:]),) * 2
        if info.shape != expected:
            raise PlanError(
                f"{found.label}: statistics of another network: {slot} is {list(info.shape)} there, but "
                f"{list(expected)} fits {model.label}."
            )
        fitting += 1
    if not fitting:
        raise PlanError(f"{found.label}: holds statistics for no slot of {model.label}.")
