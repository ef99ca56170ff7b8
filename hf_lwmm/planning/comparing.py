"""Compare slots that two models have by name: what is added to them, and the classes that a classifier's rows are."""

from __future__ import annotations

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.labels import matching_rows
from hf_lwmm.layouts import companion_of
from hf_lwmm.planning.classifiers import NO_OBJECT, row_names
from hf_lwmm.planning.obstacles import Reason


def companion_reason(ours: Checkpoint, theirs: Checkpoint, slot: str) -> Reason | None:
    """Return the reason why a slot of two models is not the same if only one has what is added to it; else None."""
    companion = companion_of(slot)
    if not companion:
        return None
    lacking = [each.label for each in (ours, theirs) if companion not in each.slot_map.slots]
    return Reason(f"it includes {companion} in {lacking[0]}, which has no such slot") if len(lacking) == 1 else None


def compare_labels(
    ours: Checkpoint, theirs: Checkpoint, slot: str, head: str
) -> tuple[str | None, tuple[int, ...] | None]:
    """Return the reason why two models do not share a classifier, None if they do, and rows that are matched by label.

    `head` is a choice of `align`.
    """
    mine, other = (each.slot_map.slots[slot].shape for each in (ours, theirs))
    our_names, their_names = row_names(ours, slot), row_names(theirs, slot)
    if our_names is None or their_names is None:
        # Published checkpoints often lose their label names: equal shapes are then all there is to go by.
        return (None, None) if mine == other else (f"classifier of shape {list(other)} in {theirs.label}", None)
    if our_names == their_names and mine == other:
        return None, None
    if mine[0] != other[0] and 1 in (mine[0], other[0]):  # a row that is compared with others is no sigmoid
        one = theirs.label if other[0] == 1 else ours.label
        return f"the one row of {one} is for a sigmoid, the rows of the other for a softmax", None
    if head != "by-label":
        return f"{theirs.label} has another label set (--head by-label matches rows by name)", None
    rows = matching_rows(our_names, their_names)
    met = [row for name, row in zip(our_names, rows, strict=True) if name != NO_OBJECT]
    if mine[1:] != other[1:] or max(met) < 0:
        return f"classifier rows of {theirs.label} cannot be matched", None
    return None, rows
