"""Say what of the anchor's head a merge keeps as it is."""

from __future__ import annotations

from collections.abc import Iterator

from hf_lwmm.layouts import in_backbone
from hf_lwmm.planning.classifiers import is_classifier
from hf_lwmm.planning.plan import MergePlan


def kept_heads(plan: MergePlan) -> tuple[str, ...]:
    """Return notes on heads and classifiers that stay the anchor's though nobody asked for it, and on the reasons."""
    asked = plan.knobs.head == "anchor" or plan.knobs.keep
    return () if asked else (*_other_heads(plan), *_other_classifiers(plan))


def _other_heads(plan: MergePlan) -> Iterator[str]:
    """A note for each model that lacks tensors of the anchor's head; without a known backbone no head is told."""
    anchor = plan.anchor
    head = [slot for slot in anchor.slot_map.slots if not in_backbone(slot)]
    shared = {each.slot for each in plan.alignment.shared}
    for other in plan.checkpoints if anchor.slot_map.backbone else ():
        lacking = sum(slot not in shared and slot not in other.slot_map.slots for slot in head)
        if other is anchor or not lacking:
            continue
        if lacking == len(head):
            yield f"The head stays {anchor.label}'s: {other.label} has none of its {lacking:,} tensors."
        else:
            what = f"{lacking:,} of the {len(head):,} tensors of {anchor.label}'s head"
            yield f"{what} stay its own: {other.label} lacks them."


def _other_classifiers(plan: MergePlan) -> Iterator[str]:
    """A note for each reason why classifiers that others have, too, are not merged.

    Notes of the alignment tell of what the anchor has in a form that cannot be merged.
    """
    anchor, others = plan.anchor, [each for each in plan.checkpoints if each is not plan.anchor]
    reasons = (
        entry.reason
        for entry in plan.alignment.unshared
        if entry.model == plan.alignment.anchor
        and is_classifier(anchor, entry.slot)
        and anchor.slot_map.slots[entry.slot].tensor not in plan.alignment.intact
        and any(entry.slot in each.slot_map.slots for each in others)
    )
    return (f"The classifier stays {anchor.label}'s: {why}" for why in dict.fromkeys(reasons))
