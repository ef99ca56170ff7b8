"""Compare two models by their headers: which slots they share, and in what the others differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hf_lwmm.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True)
class HeaderDiff:
    """The differences of two models' headers, by slot.

    `shared` counts the slots that both have in one shape. `shapes` and `dtypes` hold both values of those that differ,
    as text; the slots of one model alone are in `only`, in the models' order.
    """

    models: tuple[str, str]
    layouts: tuple[str, str]
    shared: int
    shapes: Mapping[str, tuple[str, str]] = field(repr=False)
    dtypes: Mapping[str, tuple[str, str]] = field(repr=False)
    only: tuple[tuple[str, ...], tuple[str, ...]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the differences as plain data."""
        return asdict(self)


def compare_headers(first: Checkpoint, second: Checkpoint) -> HeaderDiff:
    """Compare names, shapes and types of two models, whatever layouts they are stored in."""
    maps = first.slot_map, second.slot_map
    both = [slot for slot in maps[0].slots if slot in maps[1].slots]
    shapes, dtypes = {}, {}
    for slot in both:
        atoms = [each.slots[slot] for each in maps]
        own, other = (" x ".join(map(str, atom.shape)) or "scalar" for atom in atoms)
        if own != other:
            shapes[slot] = (own, other)
        kinds = (first.tensors[atoms[0].tensor].dtype, second.tensors[atoms[1].tensor].dtype)
        if kinds[0] != kinds[1]:
            dtypes[slot] = kinds
    only = tuple(tuple(slot for slot in own.slots if slot not in other.slots) for own, other in (maps, maps[::-1]))
    layouts = (maps[0].layout, maps[1].layout)
    return HeaderDiff((first.label, second.label), layouts, len(both) - len(shapes), shapes, dtypes, (only[0], only[1]))
