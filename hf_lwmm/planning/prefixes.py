"""Notice tensors that two models do not share only because the names of one begin with something more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.files.documents import shortened

_MOST = 4  # modules around others that are looked through
_FEW = 2  # tensors; fewer may be called alike by chance


def prefix_notes(checkpoints: Sequence[Checkpoint], anchor: int) -> tuple[str, ...]:
    """Return a warning for each model that has tensors of the anchor under a longer or a shorter name.

    Args:
        checkpoints: the models; headers are enough.
        anchor: the index of the anchor.
    """
    notes = []
    for model, other in enumerate(checkpoints):
        if model == anchor:
            continue
        ours, theirs = _lone(checkpoints[anchor], other), _lone(other, checkpoints[anchor])
        for whose, longer, shorter in ((other, theirs, ours), (checkpoints[anchor], ours, theirs)):
            counts = Counter(prefix for name in longer for prefix in _prefixes(name, longer, shorter))
            prefix, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
            if count >= _FEW:
                notes.append(
                    f"{count:,} tensors of {checkpoints[anchor].label} and {other.label} are not shared only because "
                    f"{whose.label} has {shortened(prefix)} before their names. Save it without, and they are."
                )
    return tuple(notes)


def _lone(checkpoint: Checkpoint, other: Checkpoint) -> Mapping[str, tuple[int, ...]]:
    """The shapes of a model's stored tensors of which another has no slot."""
    slots = other.slot_map.slots
    return {
        name: checkpoint.tensors[name].shape
        for name, atoms in checkpoint.slot_map.atoms.items()
        if not any(atom.slot in slots for atom in atoms)
    }


def _prefixes(name: str, longer: Mapping[str, tuple[int, ...]], shorter: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The beginnings of a name without which it is the name of a tensor of the same shape."""
    parts = name.split(".", _MOST)
    cut = [(".".join(parts[:depth]) + ".", ".".join(parts[depth:])) for depth in range(1, len(parts))]
    return [prefix for prefix, rest in cut if shorter.get(rest) == longer[name]]
