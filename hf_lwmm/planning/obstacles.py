"""Keep account of what cannot be merged for what it is: quantised weights, complex numbers, integers and their kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.inert_pickle import shown
from hf_lwmm.errors import AlignmentError
from hf_lwmm.planning.groups import WEIGHT_NORM, Groups, Kind, sentence
from hf_lwmm.text import first_few

# Above this part of the anchor's weights, what cannot be merged makes the result too much the anchor for a merge.
MAX_OBSTRUCTED = 0.25


@dataclass(frozen=True)
class Reason:
    """A reason why a model does not share a slot; `kind` is what it is in `model`, if that cannot be merged at all."""

    text: str
    model: int = 0
    kind: Kind | None = None


class Obstacles:
    """A tally of what cannot be merged for what it is, by model and kind."""

    def __init__(self) -> None:
        self._slots: dict[tuple[int, Kind], list[str]] = {}
        self._counts: Counter[tuple[int, Kind]] = Counter()

    def add(self, slot: str, reasons: Sequence[Reason], count: int) -> None:
        """Note the reasons of a slot, `count` elements of which stay the anchor's."""
        for reason in reasons:
            if reason.kind is not None:
                self._slots.setdefault((reason.model, reason.kind), []).append(slot)
                self._counts[reason.model, reason.kind] += count
                count = 0  # whichever comes first keeps them

    def notes(self, checkpoints: Sequence[Checkpoint], total: int) -> Iterator[str]:
        """Yield a line for each model and kind, but for what any network may have."""
        for (model, kind), slots in self._slots.items():
            if not kind.silent:
                part = f"{self._counts[model, kind] / max(total, 1):.1%} of the anchor's weights"
                what = f"{checkpoints[model].label}: {sentence(kind, slots)}"
                yield f"{what} Now they are left out of the merge ({part})."

    def check(self, checkpoints: Sequence[Checkpoint], anchor: int, total: int) -> None:
        """Refuse a merge that would leave too much of the anchor as it is. Raises AlignmentError."""
        count = self._counts.total()
        if len(checkpoints) > 1 and count > MAX_OBSTRUCTED * total:
            lines = [f"Of the {total:,} weights of {checkpoints[anchor].label}, {count:,} cannot be merged."]
            for (model, kind), most in self._counts.most_common(3):
                if most > count / 10:
                    lines.append(f"  {checkpoints[model].label}: {sentence(kind, self._slots[model, kind])}")
            raise AlignmentError(*lines)


def norm_notes(checkpoints: Sequence[Checkpoint], groups: Sequence[Groups], anchor: int) -> Iterator[str]:
    """Yield a line for each model that has layers plain which the anchor has weight-normalised, or the reverse."""
    for model, theirs in enumerate(checkpoints):
        for one, other in ((model, anchor), (anchor, model)):
            normed, plain = checkpoints[one].label, checkpoints[other].label
            layers = [slot for slot in groups[one].products if slot in checkpoints[other].slot_map.slots]
            if layers and theirs is not checkpoints[anchor]:
                some = first_few(list(map(shown, layers)), 1)
                yield (
                    f"{normed} has {some} {WEIGHT_NORM.name}, {plain} as it is used: such layers stay the anchor's. To "
                    f"merge them, make {normed}'s plain first: "
                    "torch.nn.utils.parametrize.remove_parametrizations, or remove_weight_norm."
                )
