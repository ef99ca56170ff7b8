"""Find the slots that models share, in depth order, and the reason why any other tensor is not shared."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.inert_pickle import shown
from hf_lwmm.errors import AlignmentError, PlanError
from hf_lwmm.layouts import Shape, depth_order, in_backbone, place_of, registration_order
from hf_lwmm.planning.classifiers import is_classifier, label_notes
from hf_lwmm.planning.groups import ADAPTER, TIED, WEIGHT_NORM, sentence
from hf_lwmm.planning.members import GroupedModels, fixed_reason, is_under, members_of
from hf_lwmm.planning.obstacles import Obstacles, Reason, norm_notes
from hf_lwmm.planning.positions import position_notes
from hf_lwmm.planning.prefixes import prefix_notes
from hf_lwmm.planning.tensor_order import TensorOrder
from hf_lwmm.text import table

GRANULARITIES = ("parameter", "module", "block", "stage")
ORDERS = ("depth", "traced", "file")
SHARES = ("all", "any")
HEADS = ("shared", "anchor", "by-label")
# Below this part of the anchor's weights, or its backbone's, what models share is chance (equal biases), no network.
MIN_SHARED = 0.2


@dataclass(frozen=True)
class SharedSlot:
    """A slot that is merged: its depth position (1..Np), and its members, the models that have it.

    The anchor is a member. For a classifier matched by label, `rows` holds each member's row for each of the anchor's
    rows, -1 where the member lacks the class. `factors` are the slots of a weight-normalised layer's lengths and
    directions, of which this is one.
    """

    slot: str
    shape: tuple[int, ...]
    position: int
    members: tuple[int, ...]
    rows: Mapping[int, tuple[int, ...]] | None = None
    factors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unshared:
    """A slot of one model that is not merged, and the reason."""

    slot: str
    model: int
    reason: str


@dataclass(frozen=True)
class Alignment:
    """The slots that models share: `shared` in depth order, at `positions` (Np) positions.

    `copies` are the anchor's stored tensors that are tied to another, with that other; both are merged as one. `intact`
    are those that belong to something that cannot be merged, and stay as they are in every byte. `anchor_parameters`
    counts the anchor's weights. `notes` name what was assumed or cannot be merged. `ranked` are those of the anchor's
    slots that can be merged, in the order asked for.
    """

    anchor: int
    positions: int
    shared: tuple[SharedSlot, ...] = field(repr=False)
    unshared: tuple[Unshared, ...] = field(repr=False)
    shared_parameters: int
    anchor_parameters: int
    notes: tuple[str, ...] = ()
    copies: Mapping[str, str] = field(default_factory=dict, repr=False)
    intact: frozenset[str] = field(default=frozenset(), repr=False)
    ranked: tuple[str, ...] = field(default=(), repr=False)

    def _repr_markdown_(self) -> str:
        share = self.shared_parameters / max(self.anchor_parameters, 1)
        reasons = Counter((entry.model, entry.reason) for entry in self.unshared)
        rows = [(model + 1, f"{count:,}", why) for (model, why), count in reasons.most_common()]
        found = f"\n\n{table(('model', 'slots', 'not shared, because'), rows)}" if rows else ""
        return (
            f"**Alignment**: {len(self.shared):,} slots at {self.positions:,} depth positions, {share:.1%} of the "
            f"anchor's weights (model {self.anchor + 1}){found}\n"
        )


def align(
    checkpoints: Sequence[Checkpoint],
    anchor: int,
    *,
    share: str = "all",
    head: str = "shared",
    granularity: str = "parameter",
    order: str = "depth",
    keep: Sequence[str] = (),
    recorded: TensorOrder | None = None,
) -> Alignment:
    """Find the shared slots of checkpoints (methods/README.md, sections 2 to 4); a single one shares all with itself.

    Args:
        checkpoints: the models; headers are enough.
        anchor: the index of the anchor.
        share: share slots that all models have, or those that the anchor and any other have.
        head: share heads where they agree, leave them to the anchor, or match classifier rows by class name.
        granularity: what has a depth position of its own.
        order: let positions follow execution or the anchor's registration order.
        recorded: the order of the anchor's slots in execution, where it was traced, or a recipe has it.
        keep: slots, or dotted beginnings of their names, that stay the anchor's.

    Raises:
        AlignmentError: if backbones differ, a model is an adapter, much of the anchor cannot be merged for what it is,
            or nothing or only a trivial part is shared.
        PlanError: if a name in `keep` fits no slot of the anchor.
    """
    models = GroupedModels.of(checkpoints, anchor)
    _check_networks(models)
    _check_backbones(checkpoints, anchor)
    _check_keep(checkpoints[anchor], keep)
    _check_head(checkpoints[anchor], head)
    ranked = _ranked(models, order, recorded)
    shared, unshared, obstacles = _divided(models, ranked, share=share, head=head, granularity=granularity, keep=keep)
    total = checkpoints[anchor].weight_count
    alignment = Alignment(
        anchor,
        max((each.position for each in shared), default=0),
        shared,
        (*unshared, *_only_of_others(checkpoints, anchor)),
        shared_parameters=sum(math.prod(each.shape) for each in shared),
        anchor_parameters=total,
        notes=(*_notes(models, shared, head), *obstacles.notes(checkpoints, total)),
        copies=models.copies,
        intact=frozenset(n for group in models.ours.groups if not group.kind.merges for n in group.tensors),
        ranked=tuple(ranked),
    )
    obstacles.check(checkpoints, anchor, total)
    _check_enough(checkpoints, alignment)
    return alignment


def _divided(
    models: GroupedModels, ranked: Sequence[str], *, share: str, head: str, granularity: str, keep: Sequence[str]
) -> tuple[tuple[SharedSlot, ...], tuple[Unshared, ...], Obstacles]:
    """The anchor's slots that are merged, those that are not, and what kept them from it.

    `ranked` are those that can be merged, in the order in which positions are given to them.
    """
    slots, alone = models.checkpoints[models.anchor].slot_map.slots, len(models.checkpoints) == 1
    shared, unshared, obstacles = list[SharedSlot](), list[Unshared](), Obstacles()
    positions: dict[object, int] = {}
    for slot in ranked:
        members, rows, reasons = members_of(models, slot, head, keep)
        if merged := (len(members) > 1 and (share == "any" or not reasons)) or (alone and not reasons):
            position = positions.setdefault(_place(models, slot, granularity), len(positions) + 1)
            factors = models.ours.of(slot, WEIGHT_NORM)
            own = factors.slots if factors else ()
            shared.append(SharedSlot(slot, slots[slot].shape, position, members, rows or None, own))
        else:
            unshared.append(Unshared(slot, models.anchor, reasons[0].text))
        obstacles.add(slot, reasons, 0 if merged else math.prod(slots[slot].shape))
    mergeable = set(ranked)
    for slot in [slot for slot in slots if slot not in mergeable]:
        reason = fixed_reason(models, slot) or Reason("not merged")
        unshared.append(Unshared(slot, models.anchor, reason.text))
        obstacles.add(slot, [reason], math.prod(slots[slot].shape))
    return tuple(shared), tuple(unshared), obstacles


def _only_of_others(checkpoints: Sequence[Checkpoint], anchor: int) -> Iterator[Unshared]:
    """The slots that the anchor lacks."""
    mine = checkpoints[anchor].slot_map.slots
    for model, checkpoint in enumerate(checkpoints):
        for slot in checkpoint.slot_map.slots:
            if slot not in mine:
                yield Unshared(slot, model, "the anchor does not have it")


def _notes(models: GroupedModels, shared: Sequence[SharedSlot], head: str) -> Iterator[str]:
    """Notes on what was assumed about the models, and on slots that are merged."""
    checkpoints, anchor = models.checkpoints, models.anchor
    yield from dict.fromkeys(label_notes(checkpoints, anchor, {each.slot: each.members for each in shared}, head))
    yield from prefix_notes(checkpoints, anchor)
    yield from position_notes(checkpoints, anchor)
    yield from _tie_notes(models, {each.slot for each in shared})
    yield from norm_notes(checkpoints, models.groups, anchor)


def _check_networks(models: GroupedModels) -> None:
    """Refuse adapters, which are changes to a network and none themselves."""
    for checkpoint, groups in zip(models.checkpoints, models.groups, strict=True):
        if slots := [slot for group in groups.groups if group.kind is ADAPTER for slot in group.slots]:
            raise AlignmentError(f"{checkpoint.label}: {sentence(ADAPTER, slots)}")


def _ranked(models: GroupedModels, order: str, recorded: TensorOrder | None) -> list[str]:
    """The anchor's slots that can be merged, in the order asked for."""
    anchor = models.checkpoints[models.anchor]
    mergeable = [slot for slot in anchor.slot_map.slots if fixed_reason(models, slot) is None]
    if order != "file":
        return recorded.ranked(mergeable, anchor.slot_map, anchor.label) if recorded else depth_order(mergeable)
    rank = {name: i for i, name in enumerate(registration_order(anchor.slot_map))}
    return sorted(mergeable, key=lambda slot: rank[anchor.slot_map.slots[slot].tensor])


def _check_keep(anchor: Checkpoint, keep: Sequence[str]) -> None:
    for name in keep:
        if not any(is_under(slot, name) for slot in anchor.slot_map.slots):
            raise PlanError(f"--keep {name} fits no slot of {anchor.label}; `hf-lwmm plan --full` lists them.")


def _check_head(anchor: Checkpoint, head: str) -> None:
    """Refuse a choice about heads where no head can be told from other layers, since it would do nothing."""
    slots = anchor.slot_map
    if head != "shared" and slots.backbone is None and not any(is_classifier(anchor, slot) for slot in slots.slots):
        raise PlanError(
            f"--head {head}: the head of {anchor.label} cannot be told from its other layers. --keep names what "
            "stays the anchor's."
        )


def _tie_notes(models: GroupedModels, shared: Collection[str]) -> Iterator[str]:
    """Say of models that have tied tensors apart which of them are merged: headers do not tell if they are equal."""
    ours = models.checkpoints[models.anchor]
    for checkpoint, groups in zip(models.checkpoints, models.groups, strict=True):
        for copy, original in models.copied_slots.items():
            tie = groups.of(copy, TIED)
            apart = copy in checkpoint.slot_map.slots and (tie is None or original not in tie.slots)
            if apart and copy in shared:
                name = shown(original)
                yield (
                    f"{ours.label} ties {shown(copy)} to {name}, {checkpoint.label} has both: its {name} is merged "
                    f"into both. If they are not equal there, keep the anchor's: --keep {name}."
                )


def _place(models: GroupedModels, slot: str, granularity: str) -> object:
    """A key that all slots at one depth position have in common."""
    slot = models.copied_slots.get(slot, slot)
    if factors := models.ours.of(slot, WEIGHT_NORM):
        slot = factors.slots[0]
    found = place_of(slot)
    parts = slot.split(".")
    if found is None:
        module = parts[:-1] or parts
        length = {"parameter": len(parts), "module": len(module), "block": 3, "stage": 2}[granularity]
        return ".".join(parts if granularity == "parameter" else module[:length])
    component, place = found
    if granularity == "parameter":
        return (component.name, place.key, place.leaf_rank)
    if granularity == "module":
        return (component.name, place.key)
    length = {"block": 3, "stage": 2}[granularity] - (component.kind == "head")
    return ".".join(parts[:-1][:length])


_BLOCK = re.compile(r"^(\w+\.stage\d+\.block\d+)\.")


def _check_backbones(checkpoints: Sequence[Checkpoint], anchor: int) -> None:
    """Refuse backbones of different sizes: a small network's blocks fit into a larger one, but are other weights."""
    blocks = [{m[1] for slot in c.slot_map.slots if (m := _BLOCK.match(slot))} for c in checkpoints]
    for model in range(len(checkpoints)):
        if blocks[model] != blocks[anchor] and blocks[anchor] and blocks[model]:
            _refuse(checkpoints, anchor, model, "have different backbones")


def _check_enough(checkpoints: Sequence[Checkpoint], alignment: Alignment) -> None:
    """Refuse to merge where little is shared, both of all weights and of a known backbone's, beside any head."""
    ours = checkpoints[alignment.anchor].slot_map.shapes
    backbone = sum(math.prod(shape) for slot, shape in ours.items() if in_backbone(slot))
    of_it = sum(math.prod(each.shape) for each in alignment.shared if in_backbone(each.slot))
    part = max(alignment.shared_parameters / max(alignment.anchor_parameters, 1), of_it / max(backbone, 1))
    if len(checkpoints) > 1 and part < MIN_SHARED:
        others = [model for model in range(len(checkpoints)) if model != alignment.anchor]
        odd = max(others, key=lambda model: len(_differing(ours, checkpoints[model].slot_map.shapes)))
        share = f"share {alignment.shared_parameters:,} of {alignment.anchor_parameters:,} weights"
        _refuse(checkpoints, alignment.anchor, odd, share)


def _differing(ours: Mapping[str, Shape], theirs: Mapping[str, Shape]) -> list[str]:
    """The slots that only one of two models has, or both in different shapes."""
    return [slot for slot in {**ours, **theirs} if ours.get(slot) != theirs.get(slot)]


def _refuse(checkpoints: Sequence[Checkpoint], anchor: int, model: int, what: str) -> NoReturn:
    """Refuse a model beside the anchor, with the first slots in which they differ. Raises AlignmentError."""
    ours, theirs = checkpoints[anchor], checkpoints[model]
    lines = [f"{ours.label} and {theirs.label} {what}; merging needs the same architecture."]
    lines += [f"  {c.label}: {c.slot_map.architecture} ({c.slot_map.layout})" for c in (ours, theirs)]
    shapes = [each.slot_map.shapes for each in (ours, theirs)]
    differing = _differing(*shapes)
    for slot in depth_order(differing)[:4]:
        found = (str(list(each[slot])) if slot in each else "no such slot" for each in shapes)
        lines.append(f"  {slot}: {' against '.join(found)}")
    raise AlignmentError(*lines, f"  ({len(differing):,} slots differ) Look with `hf-lwmm inspect`.")
