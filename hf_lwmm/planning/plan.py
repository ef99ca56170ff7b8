"""The merge plan: every number that a merge will use, decided from headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import is_float
from hf_lwmm.errors import PlanError
from hf_lwmm.labels import read_label_set
from hf_lwmm.layouts import Atom, is_bn_stat
from hf_lwmm.methods import Method, uniform
from hf_lwmm.methods.auto import Auto
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.methods.schedule import LayerWeights
from hf_lwmm.planning.advice import Advice
from hf_lwmm.planning.alignment import Alignment, SharedSlot, align
from hf_lwmm.planning.groups import ADAPTER, groups_of, sentence
from hf_lwmm.planning.knobs import Knobs
from hf_lwmm.planning.permutation import axes_of
from hf_lwmm.planning.positions import resize_positions
from hf_lwmm.planning.provenance import Tuning
from hf_lwmm.planning.tensor_order import TensorOrder, is_guessed
from hf_lwmm.text import Markdown, first_few, one_line, plain, table


@dataclass(frozen=True)
class MergePlan:
    """A merge, decided but not carried out. `checkpoints` may hold headers only.

    `base` is the common pre-training and `measurements` holds a file for each model, where the method asks for them.
    `tuning` has the weights of a method that decides them on images, None before they are decided. `advice` is what the
    models were advised to be merged with, whatever was chosen. `order` has the anchor's slots, where their order rests
    on more than tables: where it was traced or guessed from names, or comes from a recipe.
    """

    checkpoints: tuple[Checkpoint, ...] = field(repr=False)
    knobs: Knobs
    alignment: Alignment
    base: Checkpoint | None = field(default=None, repr=False)
    measurements: tuple[Checkpoint, ...] = field(default=(), repr=False)
    tuning: Tuning | None = None
    advice: Advice | None = None
    order: TensorOrder | None = field(default=None, repr=False)

    @property
    def sources(self) -> tuple[Checkpoint, ...]:
        """Everything that is read; terms refer to it by index."""
        return (*self.checkpoints, *((self.base,) if self.base else ()), *self.measurements)

    @property
    def method(self) -> Method:
        """The merge method with its options."""
        return self.knobs.method

    @property
    def permutes(self) -> bool:
        """True if the other models' units are first permuted to match the anchor's."""
        return self.knobs.permute or self.method.permutes

    @property
    def undecided(self) -> bool:
        """True while the weights are still to be decided on images; such a plan cannot be carried out."""
        return self.method.tuned and self.tuning is None

    @property
    def anchor(self) -> Checkpoint:
        """The model whose task, head and layout the result keeps."""
        return self.checkpoints[self.alignment.anchor]

    @property
    def used_labels(self) -> tuple[str | tuple[str, ...], ...]:
        """The label sets that name a model's classes; others name outputs of the user's own code, of no recipe."""
        named = {checkpoint.classes for checkpoint in self.checkpoints}
        return tuple(labels for labels in self.knobs.labels if read_label_set(labels).classes in named)

    @property
    def labels(self) -> tuple[str, ...]:
        """The models' names in messages and tables."""
        return tuple(checkpoint.label for checkpoint in self.checkpoints)

    def __repr__(self) -> str:
        models = first_few([one_line(label) for label in self.labels])
        found = f"{len(self.alignment.shared):,} slots at {self.alignment.positions:,} depth positions"
        return f"<MergePlan: {self.method.name} of {models}; anchor {one_line(self.anchor.label)}; {found}>"

    def _repr_markdown_(self) -> str:
        alignment = self.alignment
        share = alignment.shared_parameters / max(alignment.anchor_parameters, 1)
        rows = []
        for index, checkpoint in enumerate(self.checkpoints):
            role = " **(anchor)**" if index == alignment.anchor else ""
            slots = checkpoint.slot_map
            rows.append((Markdown(plain(checkpoint.label) + role), slots.architecture, slots.layout))
        return (
            f"**Merge plan**: {len(alignment.shared):,} slots at {alignment.positions:,} depth positions, "
            f"{share:.1%} of the anchor's weights\n\n{table(('model', 'architecture', 'layout'), rows)}\n"
            + (f"\n{plain(self.advice_line)}\n" if self.advice_line else "")
        )

    @property
    def advice_line(self) -> str:
        """The advice in one line, empty where it has nothing to say beside the method of the plan."""
        return self.advice.line_for(self.method) if self.advice else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data: models, knobs, every shared slot with its weights, and what is not shared."""
        return {
            "models": list(self.labels),
            "anchor": self.alignment.anchor,
            "knobs": self.knobs.to_dict(),
            "advice": self.advice and self.advice.to_dict(),
            "positions": self.alignment.positions,
            "shared_parameters": self.alignment.shared_parameters,
            "anchor_parameters": self.alignment.anchor_parameters,
            "shared": [self._shared_dict(shared) for shared in self.alignment.shared],
            "unshared": [
                {"slot": entry.slot, "model": self.labels[entry.model], "reason": entry.reason}
                for entry in self.alignment.unshared
            ],
        }

    def _shared_dict(self, shared: SharedSlot) -> dict[str, Any]:
        weights = self.slot_weights(shared)
        return {
            "position": shared.position,
            "slot": shared.slot,
            "shape": list(shared.shape),
            "models": [self.labels[model] for model in shared.members],
            "weights": weights and {self.labels[model]: weight for model, weight in weights.items()},
            "by_label": shared.rows is not None,
        }

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The depth position of each shared slot."""
        return {shared.slot: shared.position for shared in self.alignment.shared}

    @cached_property
    def layer_weights(self) -> LayerWeights | None:
        """The weights of all models at every position, (positions, models).

        None for a method without such weights, or while they are undecided.
        """
        if not self.method.convex or self.undecided:
            return None
        return self.member_weights(tuple(range(len(self.checkpoints))))

    def slot_weights(self, shared: SharedSlot) -> dict[int, float] | None:
        """Return the weight of each member at a shared slot; None if it is merged otherwise, or not decided yet."""
        bn_stat = is_bn_stat(shared.slot)
        if bn_stat and self.knobs.bn_stats == "anchor":
            return {model: float(model == self.alignment.anchor) for model in shared.members}
        if (not self.method.linear and not bn_stat) or self.undecided:
            return None
        row = self.member_weights(shared.members, bn_stat)[shared.position - 1]
        return dict(zip(shared.members, map(float, row), strict=True))

    def member_weights(self, members: tuple[int, ...], average: bool = False) -> LayerWeights:
        """Return the weights of some models at every position: (positions, members), in the order of `members`.

        `average` is for running statistics and the like, for which only a convex or an interpolating method has
        weights: any other averages them.

        Raises:
            PlanError: while the weights are undecided.
        """
        plain = average and not (self.method.convex or self.method.interpolates)
        if (members, plain) not in self._member_weights:
            method, count, positions = self.method, len(members), self.alignment.positions
            if isinstance(method, Layerwise) and method.alpha is not None and count < len(self.checkpoints):
                method = replace(method, alpha=max(method.alpha, 1 / count))  # among fewer an equal weighs more
            rank = members.index(self.alignment.anchor)
            if method.tuned:
                table = self._decided(members, rank)
            else:
                table = uniform(positions, count) if plain else method.weights(positions, count, rank)
            self._member_weights[members, plain] = table
        return self._member_weights[members, plain]

    @cached_property
    def _member_weights(self) -> dict[tuple[tuple[int, ...], bool], LayerWeights]:
        return {}

    def _decided(self, members: tuple[int, ...], rank: int) -> LayerWeights:
        """The tuned weights of `members`; a model without the slot gives its weight to the anchor."""
        if self.tuning is None:
            raise PlanError(f"--method {self.method.name} has no weights before they are decided on images.")
        table = self.tuning.weights[:, members]
        if len(members) < len(self.checkpoints):
            table[:, rank] += 1 - table.sum(axis=1)
        return table

    def base_atom(self, slot: str) -> Atom | None:
        """Return where the base has a slot of the anchor's shape, in floats, None if it has not."""
        atom = self.base.slot_map.slots.get(slot) if self.base else None
        if self.base is None or atom is None or not is_float(self.base.tensors[atom.tensor].dtype):
            return None
        return atom if atom.shape == self.anchor.slot_map.slots[slot].shape else None


def make_plan(
    checkpoints: Sequence[Checkpoint],
    anchor: int,
    knobs: Knobs,
    base: Checkpoint | None = None,
    measurements: Sequence[Checkpoint] = (),
    tuning: Tuning | None = None,
    order: TensorOrder | None = None,
) -> MergePlan:
    """Align checkpoints and decide every weight but those that a method decides on images.

    `anchor` is the index of the anchor. `tuning` has weights that were decided on images before. `order` is that of the
    anchor's slots as it was traced, or as a recipe records it.

    Raises:
        AlignmentError: if the models share too little.
        PlanError: if a knob has no meaning here, or the method lacks a base or measurements that fit.
    """
    method = knobs.method
    _check_models(method, len(checkpoints))
    _check_given(method, base, len(measurements), len(checkpoints))
    resized: tuple[str, ...] = ()
    if knobs.resize_position:
        checkpoints, base, resized = resize_positions(checkpoints, anchor, base)
    alignment = align(
        checkpoints,
        anchor,
        share=knobs.share,
        head=knobs.head,
        granularity=knobs.granularity,
        order=knobs.order,
        keep=knobs.keep,
        recorded=order,
    )
    alignment = replace(alignment, notes=(*alignment.notes, *resized))
    if not (order and order.entries):
        guessed = knobs.order != "file" and is_guessed(alignment.ranked)
        order = TensorOrder.of(alignment.ranked) if guessed else None
    plan = MergePlan(tuple(checkpoints), knobs, alignment, base, tuple(measurements), tuning, order=order)
    _check(plan)
    return replace(plan, alignment=replace(alignment, notes=(*alignment.notes, *_without_base(plan))))


def _without_base(plan: MergePlan) -> tuple[str, ...]:
    """A note on shared slots that the base lacks, without which a method on a base has nothing to go by."""
    shared = [each.slot for each in plan.alignment.shared if not is_bn_stat(each.slot)]
    lacking = [slot for slot in shared if plan.base_atom(slot) is None] if plan.base is not None else []
    if plan.base is None or not lacking:
        return ()
    what = f"{len(lacking):,} of the {len(shared):,} shared slots ({first_few(lacking)})"
    return (f"{plan.base.label}: lacks {what}: they stay {plan.anchor.label}'s.",)


def _check(plan: MergePlan) -> None:
    """Refuse knobs that mean nothing to these models, and a base or measurements that do not fit them."""
    if plan.tuning is not None:
        _check_tuning(plan, plan.tuning)
    if plan.knobs.bn_stats == "recalibrate" and not any(map(is_bn_stat, plan.anchor.slot_map.slots)):
        raise PlanError(
            f"{plan.anchor.label}: has no BatchNorm, so --bn-stats recalibrate has nothing to do; leave it out."
        )
    if plan.alignment.shared:
        plan.slot_weights(plan.alignment.shared[0])  # a method refuses options that fit no merge of so many models
    if plan.permutes:
        _check_permutable(plan)
    if plan.base is not None:
        _check_base(plan, plan.base)
    for measurements, model in zip(plan.measurements, plan.checkpoints, strict=False):  # all, or none measured
        _check_measurements(plan.method, measurements, model)


def _check_models(method: Method, count: int) -> None:
    """Refuse a method that is still to be chosen, and one that merges another number of models."""
    if isinstance(method, Auto):
        raise PlanError(f"--method {method.name} stands for the advised method, which `plan` and `merge` put there.")
    if method.models is not None and count != method.models:
        raise PlanError(f"--method {method.name} merges {method.models} models, not {count}.")


def _check_tuning(plan: MergePlan, tuning: Tuning) -> None:
    """Refuse weights that were decided for a merge of other positions or models."""
    if not plan.method.tuned:
        raise PlanError(f"--method {plan.method.name} has weights of its own; decided ones mean nothing to it.")
    shape = (plan.alignment.positions, len(plan.checkpoints))
    if tuning.weights.shape != shape:
        of = "{} positions and {} models"
        raise PlanError(
            f"The decided weights are for {of.format(*tuning.weights.shape)}, but this merge has {of.format(*shape)}; "
            "decide them again with --tune-data."
        )


def _check_permutable(plan: MergePlan) -> None:
    """Refuse to permute units where something else names them by their old places, or nothing tells the units."""
    if plan.base is not None or plan.measurements:
        raise PlanError(
            f"--permute moves units away from where the base and the measurements of --method {plan.method.name} have "
            "them; use it with methods that need only the models."
        )
    axes_of(plan.anchor)


def _check_given(method: Method, base: Checkpoint | None, measurements: int, models: int) -> None:
    """Refuse a base or a number of measurements that a method has no use for, or lacks."""
    if "base" in method.needs and base is None:
        raise PlanError(f"--method {method.name} needs --base, the pre-training that all models share.")
    if "base" not in method.needs and base is not None:
        raise PlanError(
            f"--method {method.name} makes no use of --base. Leave it out, or take --method wise, which is advised "
            "where there is a base: a step back towards it keeps more of what all models can do."
        )
    wanted = models if method.measured else 0
    if measurements != wanted:
        what = f"one file of measurements for each of the {models} models" if wanted else "no measurements"
        raise PlanError(f"--method {method.name} takes {what} (--measurements), not {measurements}.")


def _check_base(plan: MergePlan, base: Checkpoint) -> None:
    """Refuse a base that is stored in a form that cannot be merged, or has none of the shared slots."""
    shared = {each.slot for each in plan.alignment.shared}
    for group in groups_of(base).groups:
        if not (group.kind.merges or shared.isdisjoint(group.slots)) or group.kind is ADAPTER:
            raise PlanError(f"{base.label}: cannot be the base: {sentence(group.kind, group.slots)}")
    if not any(map(plan.base_atom, shared)):
        raise PlanError(
            f"{base.label} has none of the shared slots in the same shape, so it is not the models' base "
            f"({base.slot_map.architecture} against {plan.anchor.slot_map.architecture})."
        )


def _check_measurements(method: Method, found: Checkpoint, model: Checkpoint) -> None:
    """Refuse measurements of another network."""
    slots = model.slot_map.slots
    fitting = 0
    for slot, info in found.tensors.items():
        if slot not in slots:
            continue
        shape = slots[slot].shape
        expected = shape if "fisher" in method.needs else (math.prod(shape[1:]),) * 2
        if not is_float(info.dtype):
            raise PlanError(f"{found.label}: its measurements must be floats, but {slot} is {info.dtype}.")
        if info.shape != expected:
            raise PlanError(
                f"{found.label}: measurements of another network: {slot} is {list(info.shape)} there, but "
                f"{list(expected)} fits {model.label}."
            )
        fitting += 1
    if not fitting:
        raise PlanError(f"{found.label}: holds measurements of no slot of {model.label}.")
