"""Tell classifiers from other layers, and say which were merged without class names or not merged for theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.labels import matching_rows, normalise
from hf_lwmm.layouts import (
    has_background_row,
    has_no_object_row,
    names_a_classifier,
    place_of,
    rows_of_a_class,
)

NO_OBJECT = "(no object)"


def is_classifier(checkpoint: Checkpoint, slot: str) -> bool:
    """Return True for a known classifier, and for what has its name and a row for each class that the model names."""
    if not names_a_classifier(slot):
        return False
    known = place_of(slot) is not None or checkpoint.classes is None
    return known or row_names(checkpoint, slot) is not None


def row_names(checkpoint: Checkpoint, slot: str) -> tuple[str, ...] | None:
    """Return the names of a classifier's rows as they are compared, None if they are not known.

    The row for what is no object, which detectors have after or before those of the classes, is `NO_OBJECT`. Where a
    class has several rows, its name stands for each.
    """
    names = tuple(map(normalise, checkpoint.classes or ()))
    before, after = [NO_OBJECT] * has_background_row(slot), [NO_OBJECT] * has_no_object_row(slot)
    every = tuple(name for name in (*before, *names, *after) for _ in range(rows_of_a_class(slot)))
    return every if names and checkpoint.slot_map.slots[slot].shape[:1] == (len(every),) else None


def label_notes(
    checkpoints: Sequence[Checkpoint], anchor: int, members: Mapping[str, Sequence[int]], head: str
) -> Iterator[str]:
    """Return a note for each model that names no class, and with the head `by-label` for each that shares no name.

    Where no model names any, one note says so. `members` are the models that share a slot, by the merged slots.
    """
    ours = checkpoints[anchor]
    rows = [slot for slot in ours.slot_map.slots if is_classifier(ours, slot)]
    some_are_named = any(checkpoint.classes for checkpoint in checkpoints)
    if not some_are_named and any(len(members.get(slot, ())) > 1 for slot in rows if place_of(slot)):
        yield "No model names its classes; rows of one place were taken for the same class. --labels names classes."
    for model, theirs in enumerate(checkpoints):
        if (
            some_are_named
            and not theirs.classes
            and any(model in members.get(slot, ()) for slot in rows if place_of(slot))
        ):
            yield f"{theirs.label} does not name its classes; they were taken to be those of the others."
        both = head == "by-label" and model != anchor and any(slot in theirs.slot_map.slots for slot in rows)
        if both and ours.classes and theirs.classes and max(matching_rows(ours.classes, theirs.classes)) < 0:
            yield (
                f"{theirs.label} and {ours.label} share no class name, so --head by-label matches no row: the "
                f"classifier of {theirs.label} has no part in the merge. --labels names classes."
            )
