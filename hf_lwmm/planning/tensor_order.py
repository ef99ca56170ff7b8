"""The order in which a network first uses its slots, traced or guessed, as recipes record it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_lwmm.errors import PlanError
from hf_lwmm.files.documents import is_texts, shortened
from hf_lwmm.layouts import SlotMap, depth_order, place_of
from hf_lwmm.text import first_few


@dataclass(frozen=True)
class TensorOrder:
    """The order of a model's slots. An entry is a slot, or a module, which stands for those of its slots that follow
    each other as in any layer: weight, bias, running mean, running variance. Without entries it is the order that
    recipes up to schema 2 rest on: by tables, or else by the guess of that time.
    """

    entries: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, slots: Sequence[str]) -> TensorOrder:
        """Return the order of slots, with as few entries as there can be."""
        modules, known, entries, place = _by_module(slots), frozenset(slots), list[str](), 0
        while place < len(slots):
            module = _module(slots[place])
            own = modules[module]
            whole = len(own) > 1 and module not in known and tuple(slots[place : place + len(own)]) == own
            entries.append(module if whole else slots[place])
            place += len(own) if whole else 1
        return cls(tuple(entries))

    def ranked(self, slots: Sequence[str], slot_map: SlotMap, label: str) -> list[str]:
        """Return some of a model's slots in this order.

        Args:
            slots: the slots to order.
            slot_map: all slots of the model. Entries may also be stored names of its tensors, which are their slots by
                now, if a layout for them was added after the order was recorded.
            label: what messages call the model.

        Raises:
            PlanError: if an entry is none of the model's, or a slot is in no entry.
        """
        if not self.entries:
            return depth_order(slots, first_guess=True)
        tensors = {name: tuple(atom.slot for atom in atoms) for name, atoms in slot_map.atoms.items()}
        stored = {module: sum((tensors[name] for name in own), ()) for module, own in _by_module(tensors).items()}
        meant = {**stored, **tensors, **_by_module(slot_map.slots), **{slot: (slot,) for slot in slot_map.slots}}
        places: dict[str, int] = {}
        for entry in self.entries:
            if (found := meant.get(entry)) is None:
                raise PlanError(f"The recorded order has {entry!r}, which is no tensor of {label}. {_REMEDY}")
            for slot in found:
                places.setdefault(slot, len(places))
        if missing := [slot for slot in slots if slot not in places]:
            raise PlanError(f"The recorded order lacks {first_few(missing)} of {label}. {_REMEDY}")
        return sorted(slots, key=places.__getitem__)


def read_order(content: Any, where: str) -> TensorOrder:
    """Read an order as a recipe has it. Raises PlanError if it is no list of names."""
    if not is_texts(content):
        raise PlanError(f"{where}: must be a list of names of tensors and modules, not {shortened(content)}.")
    return TensorOrder(tuple(content))


_REMEDY = "Leave out `order` of the recipe to find it anew."


def in_order_of_use(slots: Iterable[str], uses: Mapping[str, int]) -> list[str]:
    """Return slots in the order in which a network was seen to use them.

    Slots of one use, such as a layer's weight and bias, are in their depth order, and those that it does not use come
    last.

    Args:
        slots: the slots.
        uses: the number of the first use of each slot that is used.
    """
    rank = {slot: place for place, slot in enumerate(depth_order(slots))}
    return sorted(rank, key=lambda slot: (uses.get(slot, len(rank) + max(uses.values(), default=0)), rank[slot]))


def is_guessed(slots: Iterable[str]) -> bool:
    """Return True if the depth order of slots rests on names that no layout knows."""
    return any(place_of(slot) is None for slot in slots)


def _module(slot: str) -> str:
    return slot.rpartition(".")[0]


def _by_module(slots: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The slots of each module, in the order that they have in any layer."""
    found: dict[str, list[str]] = {}
    for slot in slots:
        found.setdefault(_module(slot), []).append(slot)
    return {module: tuple(depth_order(own)) for module, own in found.items()}
