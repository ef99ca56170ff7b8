"""Decide which models share a slot of the anchor, and say why the others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import is_float
from hf_lwmm.layouts import place_of
from hf_lwmm.planning.classifiers import is_classifier
from hf_lwmm.planning.comparing import companion_reason, compare_labels
from hf_lwmm.planning.groups import COMPLEX, INTEGER, WEIGHT_NORM, Groups, copies_of, groups_of
from hf_lwmm.planning.obstacles import Reason


@dataclass(frozen=True)
class GroupedModels:
    """The models of a merge with the groups of their tensors.

    `copies` are the anchor's tensors that are tied to another, with that other, and `copied_slots` are their slots.
    """

    checkpoints: Sequence[Checkpoint]
    anchor: int
    groups: tuple[Groups, ...]
    copies: Mapping[str, str]
    copied_slots: Mapping[str, str]

    @classmethod
    def of(cls, checkpoints: Sequence[Checkpoint], anchor: int) -> GroupedModels:
        groups, own = tuple(map(groups_of, checkpoints)), checkpoints[anchor]
        copies = copies_of(groups[anchor], own, [each for each in checkpoints if each is not own])
        atoms = own.slot_map.atoms
        slots = {atom.slot: atoms[original][0].slot for name, original in copies.items() for atom in atoms[name]}
        return cls(checkpoints, anchor, groups, copies, slots)

    @property
    def ours(self) -> Groups:
        """The anchor's groups."""
        return self.groups[self.anchor]


def members_of(
    models: GroupedModels, slot: str, head: str, keep: Sequence[str]
) -> tuple[tuple[int, ...], dict[int, tuple[int, ...]], list[Reason]]:
    """Return the models that share a slot of the anchor, and why the others do not.

    Args:
        models: the models.
        slot: a slot of the anchor that can be merged.
        head: as for `align`.
        keep: as for `align`.

    Returns:
        The models, the anchor among them; of those whose classifier is matched by label, the row for each of the
        anchor's rows, -1 for none; and a reason for each other model, or for the anchor if it is alone.
    """
    members, rows, reasons = [models.anchor], dict[int, tuple[int, ...]](), list[Reason]()
    unit = models.ours.unit(slot)  # all of it is shared, or nothing
    held = next((reason for each in unit if (reason := _held(models, each, head, keep))), None)
    if held is not None and len(models.checkpoints) == 1:
        reasons.append(held)
    for model in range(len(models.checkpoints)):
        if model == models.anchor:
            continue
        reason, matched = held, dict[str, tuple[int, ...] | None]()
        for each in unit:
            if reason is None and each not in models.copied_slots:
                reason, matched[each] = _compare(models, model, each, head)
        if reason is not None:
            reasons.append(reason)
            continue
        members.append(model)
        if (found := matched[models.copied_slots.get(slot, slot)]) is not None:
            rows[model] = found
    return tuple(sorted(members)), rows, reasons


def fixed_reason(models: GroupedModels, slot: str) -> Reason | None:
    """Return why a slot of the anchor, or one of those that belong to it, can never be merged; None if it can."""
    checkpoint = models.checkpoints[models.anchor]
    for each in models.ours.unit(slot):
        dtype = checkpoint.tensors[checkpoint.slot_map.slots[each].tensor].dtype
        if kind := models.ours.obstacle(each):
            odd = kind in (COMPLEX, INTEGER)
            text = f"not a float weight ({dtype}): the anchor's is kept" if odd else kind.name
            return Reason(text, models.anchor, kind)
        place = place_of(each)
        if place and "unused" in place[1].flags:
            return Reason("stored, but never used by the network")
        if place and "constant" in place[1].flags:
            return Reason("computed when the network is built: the anchor's is kept")
    return None


def _held(models: GroupedModels, slot: str, head: str, keep: Sequence[str]) -> Reason | None:
    """The reason why a slot is asked to stay the anchor's, or None."""
    if asked := next((name for name in keep if is_under(slot, name)), None):
        return Reason(f"kept as asked (--keep {asked})")
    place, anchor = place_of(slot), models.checkpoints[models.anchor]
    in_head = place[0].kind == "head" if place else anchor.slot_map.backbone is not None or is_classifier(anchor, slot)
    return Reason("heads stay the anchor's (--head anchor)") if head == "anchor" and in_head else None


def is_under(slot: str, name: str) -> bool:
    """Return True if a name is the slot's, or its beginning up to a dot: block.2.1 does not begin block.2.10."""
    return slot == name or slot.startswith(name.rstrip(".") + ".")


def _compare(models: GroupedModels, model: int, slot: str, head: str) -> tuple[Reason | None, tuple[int, ...] | None]:
    """The reason why a model does not share a slot with the anchor, None if it does, and matched classifier rows."""
    ours, theirs, groups = models.checkpoints[models.anchor], models.checkpoints[model], models.groups[model]
    if slot not in theirs.slot_map.slots:
        return Reason(f"{theirs.label} has no such slot"), None
    mine, other = ours.slot_map.slots[slot], theirs.slot_map.slots[slot]
    if kind := groups.obstacle(slot):
        dtype = theirs.tensors[other.tensor].dtype
        stored = f"{kind.name} in {theirs.label}" if is_float(dtype) else f"{theirs.label} stores it as {dtype}"
        return Reason(stored, model, kind), None
    if groups.of(slot, WEIGHT_NORM) and not models.ours.of(slot, WEIGHT_NORM):
        return Reason(f"{WEIGHT_NORM.name} in {theirs.label}"), None
    if is_classifier(ours, slot) and is_classifier(theirs, slot):
        reason, rows = compare_labels(ours, theirs, slot, head)
        return (Reason(reason) if reason else None), rows
    if mine.shape != other.shape:
        return Reason(f"shape {list(other.shape)} in {theirs.label}"), None
    return companion_reason(ours, theirs, slot), None
