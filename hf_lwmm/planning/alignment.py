"""Find the slots that models share, in depth order, and the reason why any other tensor is not shared."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import is_float
from hf_lwmm.errors import AlignmentError, PlanError
from hf_lwmm.labels import matching_rows, normalise
from hf_lwmm.layouts import depth_order, other_factor, place_of, registration_order

GRANULARITIES = ("parameter", "module", "block", "stage")
ORDERS = ("depth", "file")
SHARES = ("all", "any")
HEADS = ("shared", "anchor", "by-label")
# Below this part of the anchor's weights, what two models share is chance (equal biases), not a common network.
MIN_SHARED = 0.2


@dataclass(frozen=True)
class SharedSlot:
    """A slot that is merged: its depth position (1..Np), and its members, the models that have it.

    The anchor is a member. For a classifier matched by label, `rows` holds each member's row for each of the anchor's
    rows, -1 where the member lacks the class.
    """

    slot: str
    shape: tuple[int, ...]
    position: int
    members: tuple[int, ...]
    rows: Mapping[int, tuple[int, ...]] | None = None


@dataclass(frozen=True)
class Unshared:
    """A slot of one model that is not merged, and the reason."""

    slot: str
    model: int
    reason: str


@dataclass(frozen=True)
class Alignment:
    """The slots that models share: `shared` in depth order, at `positions` (Np) positions.

    `notes` name what was assumed.
    """

    anchor: int
    positions: int
    shared: tuple[SharedSlot, ...] = field(repr=False)
    unshared: tuple[Unshared, ...] = field(repr=False)
    shared_parameters: int
    anchor_parameters: int
    notes: tuple[str, ...] = ()

    def _repr_markdown_(self) -> str:
        share = self.shared_parameters / max(self.anchor_parameters, 1)
        reasons = Counter((entry.model, entry.reason) for entry in self.unshared)
        rows = "".join(f"| {model + 1} | {count:,} | {why} |\n" for (model, why), count in reasons.most_common())
        table = f"\n\n| model | slots | not shared, because |\n| --- | --- | --- |\n{rows}" if rows else "\n"
        return (
            f"**Alignment**: {len(self.shared):,} slots at {self.positions:,} depth positions, {share:.1%} of the "
            f"anchor's weights (model {self.anchor + 1}){table}"
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
) -> Alignment:
    """Find the shared slots of checkpoints (methods/README.md, sections 2 to 4).

    Args:
        checkpoints: the models; headers are enough.
        anchor: the index of the anchor.
        share: share slots that all models have, or those that the anchor and any other have.
        head: share heads where they agree, leave them to the anchor, or match classifier rows by class name.
        granularity: what has a depth position of its own.
        order: let positions follow execution or the anchor's registration order.
        keep: slots, or dotted beginnings of their names, that stay the anchor's.

    Raises:
        AlignmentError: if backbones differ, or nothing or only a trivial part is shared.
        PlanError: if a name in `keep` fits no slot of the anchor.
    """
    _check_backbones(checkpoints, anchor)
    _check_keep(checkpoints[anchor], keep)
    mine = checkpoints[anchor].slot_map.slots
    ranked = _ranked(checkpoints[anchor], order)
    positions: dict[object, int] = {}
    shared: list[SharedSlot] = []
    unshared: list[Unshared] = []
    for slot in ranked:
        members, rows, reasons = _members(checkpoints, anchor, slot, head, keep)
        if len(members) > 1 and (share == "any" or not reasons):
            position = positions.setdefault(_group(slot, granularity), len(positions) + 1)
            shared.append(SharedSlot(slot, mine[slot].shape, position, members, rows or None))
        else:
            unshared.append(Unshared(slot, anchor, reasons[0] if reasons else "there is no other model"))
    for slot in mine.keys() - set(ranked):
        unshared.append(Unshared(slot, anchor, _fixed_reason(checkpoints[anchor], slot) or "not merged"))
    for model, checkpoint in enumerate(checkpoints):
        theirs = checkpoint.slot_map.slots
        unshared += [Unshared(slot, model, "the anchor does not have it") for slot in theirs if slot not in mine]
    alignment = Alignment(
        anchor,
        len(positions),
        tuple(shared),
        tuple(unshared),
        shared_parameters=sum(math.prod(each.shape) for each in shared),
        anchor_parameters=sum(math.prod(mine[slot].shape) for slot in ranked),
        notes=_label_notes(checkpoints, shared),
    )
    _check_enough(checkpoints, alignment)
    return alignment


def _members(
    checkpoints: Sequence[Checkpoint], anchor: int, slot: str, head: str, keep: Sequence[str]
) -> tuple[tuple[int, ...], dict[int, tuple[int, ...]], list[str]]:
    """The models that share a slot, the classifier rows of those that are matched by label, and the others' reasons."""
    members, rows, reasons = [anchor], dict[int, tuple[int, ...]](), list[str]()
    for model in range(len(checkpoints)):
        if model == anchor:
            continue
        reason, matched = None, None
        # Both factors of a weight-normalised layer are shared, or neither is.
        for factor in dict.fromkeys((other_factor(slot) or slot, slot)):
            if reason is None:
                reason = _kept(factor, keep)
            if reason is None:
                reason, matched = _compare(checkpoints, anchor, model, factor, head)
        if reason is not None:
            reasons.append(reason)
            continue
        members.append(model)
        if matched is not None:
            rows[model] = matched
    return tuple(sorted(members)), rows, reasons


def _ranked(anchor: Checkpoint, order: str) -> list[str]:
    """The anchor's slots that can be merged, in the order asked for."""
    mergeable = [slot for slot in anchor.slot_map.slots if _fixed_reason(anchor, slot) is None]
    if order == "depth":
        return depth_order(mergeable)
    rank = {name: i for i, name in enumerate(registration_order(anchor.slot_map))}
    return sorted(mergeable, key=lambda slot: rank[anchor.slot_map.slots[slot].tensor])


def _fixed_reason(checkpoint: Checkpoint, slot: str) -> str | None:
    """The reason why a slot can never be merged, or None."""
    info = checkpoint.tensors[checkpoint.slot_map.slots[slot].tensor]
    if not is_float(info.dtype):
        return f"not a float weight ({info.dtype}): the anchor's is kept"
    place = place_of(slot)
    if place and "unused" in place[1].flags:
        return "stored, but never used by the network"
    other = other_factor(slot)
    if other is not None:
        slots = checkpoint.slot_map.slots
        shapes = {name[-1]: slots[name].shape for name in (slot, other) if name in slots}
        if len(shapes) < 2 or math.prod(shapes["g"]) != shapes["v"][0]:
            return "weight-normalised otherwise than row by row"
    return None


def _under(slot: str, name: str) -> bool:
    """True if a name is the slot's, or its beginning up to a dot: block.2.1 is not the beginning of block.2.10."""
    return slot == name or slot.startswith(name.rstrip(".") + ".")


def _check_keep(anchor: Checkpoint, keep: Sequence[str]) -> None:
    for name in keep:
        if not any(_under(slot, name) for slot in anchor.slot_map.slots):
            raise PlanError(f"--keep {name} fits no slot of {anchor.label}; `hf-lwmm plan --full` lists them.")


def _kept(slot: str, keep: Sequence[str]) -> str | None:
    return next((f"kept as asked (--keep {name})" for name in keep if _under(slot, name)), None)


def _label_notes(checkpoints: Sequence[Checkpoint], shared: Sequence[SharedSlot]) -> tuple[str, ...]:
    silent: dict[str, None] = {}
    for slot in shared:
        place = place_of(slot.slot)
        if place and "classes" in place[1].flags:
            silent |= dict.fromkeys(checkpoints[m].label for m in slot.members if not checkpoints[m].classes)
    return tuple(f"{label} does not name its classes; they were taken to be those of the others." for label in silent)


def _compare(
    checkpoints: Sequence[Checkpoint], anchor: int, model: int, slot: str, head: str
) -> tuple[str | None, tuple[int, ...] | None]:
    """The reason why a model does not share a slot with the anchor, None if it does, and matched classifier rows."""
    ours, theirs = checkpoints[anchor], checkpoints[model]
    place = place_of(slot)
    in_head = place[0].kind == "head" if place else ours.slot_map.backbone is not None
    if head == "anchor" and in_head:
        return "heads stay the anchor's (--head anchor)", None
    if slot not in theirs.slot_map.slots:
        return f"{theirs.label} has no such slot", None
    mine, other = ours.slot_map.slots[slot], theirs.slot_map.slots[slot]
    if not is_float(theirs.tensors[other.tensor].dtype):
        return f"{theirs.label} stores it as {theirs.tensors[other.tensor].dtype}", None
    if place and "classes" in place[1].flags:
        return _compare_labels(ours, theirs, mine.shape, other.shape, head)
    if mine.shape != other.shape:
        return f"shape {list(other.shape)} in {theirs.label}", None
    return None, None


def _compare_labels(
    ours: Checkpoint, theirs: Checkpoint, mine: tuple[int, ...], other: tuple[int, ...], head: str
) -> tuple[str | None, tuple[int, ...] | None]:
    our_names, their_names = _row_names(ours, mine), _row_names(theirs, other)
    if our_names is None or their_names is None:
        # Published checkpoints often lose their label names: equal shapes are then all there is to go by.
        return (None, None) if mine == other else (f"classifier of shape {list(other)} in {theirs.label}", None)
    if our_names == their_names and mine == other:
        return None, None
    if mine[0] != other[0] and 1 in (mine[0], other[0]):  # a row that is compared with others is no sigmoid
        return (
            f"one row of {theirs.label if other[0] == 1 else ours.label} is a sigmoid, and rows of a softmax are none",
            None,
        )
    if head != "by-label":
        return f"{theirs.label} has another label set (--head by-label matches rows by name)", None
    rows = matching_rows(our_names, their_names)
    if mine[1:] != other[1:] or max(rows) < 0:
        return f"classifier rows of {theirs.label} cannot be matched", None
    return None, rows


def _row_names(checkpoint: Checkpoint, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    names = checkpoint.classes
    return tuple(map(normalise, names)) if names and shape and len(names) == shape[0] else None


def _group(slot: str, granularity: str) -> object:
    """A key that all slots at one depth position have in common."""
    found = place_of(slot)
    parts = slot.split(".")
    if found is None:
        parts[-1] = {"weight_g": "weight", "weight_v": "weight"}.get(parts[-1], parts[-1])
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
    if len(checkpoints) > 1 and alignment.shared_parameters < MIN_SHARED * max(alignment.anchor_parameters, 1):
        other = 1 if alignment.anchor == 0 else 0
        share = f"share {alignment.shared_parameters:,} of {alignment.anchor_parameters:,} weights"
        _refuse(checkpoints, alignment.anchor, other, share)


def _refuse(checkpoints: Sequence[Checkpoint], anchor: int, model: int, what: str) -> None:
    ours, theirs = checkpoints[anchor], checkpoints[model]
    lines = [f"{ours.label} and {theirs.label} {what}; merging needs the same architecture."]
    lines += [f"  {c.label}: {c.slot_map.architecture} ({c.slot_map.layout})" for c in (ours, theirs)]
    mine, other = ours.slot_map.slots, theirs.slot_map.slots
    differing = [
        (slot, list(mine[slot].shape) if slot in mine else None, list(other[slot].shape) if slot in other else None)
        for slot in [*depth_order(mine), *(s for s in depth_order(other) if s not in mine)]
        if slot not in mine or slot not in other or mine[slot].shape != other[slot].shape
    ]
    lines += [f"  {slot}: {a or 'no such slot'} against {b or 'no such slot'}" for slot, a, b in differing[:4]]
    raise AlignmentError("\n".join([*lines, f"  ({len(differing):,} slots differ) Look with `hf-lwmm inspect`."]))
