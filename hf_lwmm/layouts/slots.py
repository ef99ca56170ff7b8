"""Map a checkpoint's tensors to slots, by their names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts.forms import Order, Shape
from hf_lwmm.layouts.language import Key, generic
from hf_lwmm.layouts.layout import Component, Layout
from hf_lwmm.layouts.registry import COMPONENTS, LAYOUTS

# What may stand before a network's names and is told apart by a number: `teacher2.`, `models.0.`.
_NUMBERED = re.compile(r"[^.\d]*\d[^.]*\.|[^.]+\.\d+\.")
_RANKS = {name: rank for rank, name in enumerate(COMPONENTS)}  # networks with several heads register them so
_FEWEST = 20  # tensors of a backbone; a block of one has fewer


@dataclass(frozen=True)
class Atom:
    """The place of a slot in a file: elements `start` to `start + prod(shape)` of a stored tensor, in C order.

    With an `order`, which only a tensor that is a single slot has, they are those of the tensor in the slot's order.
    """

    slot: str
    tensor: str
    start: int
    shape: Shape
    order: Order | None = None


@dataclass(frozen=True)
class LayoutMatch:
    """A layout found in a file, and the prefix of its names there."""

    layout: Layout
    prefix: str


# A layout, and how good it is: the names that it knows, whether its prefix is listed, the same of a backbone beside.
_Rated = tuple[tuple[int, bool, tuple[Any, ...]], LayoutMatch]


@dataclass(frozen=True)
class SlotMap:
    """A checkpoint's tensors as slots: a bijection between stored tensors and stacks of atoms.

    `matches` are the layouts found, in the order of `COMPONENTS`. `atoms` has the atoms of each stored tensor, in
    stacking order; a tensor that no layout knows is a slot under its own name.
    """

    matches: tuple[LayoutMatch, ...]
    atoms: Mapping[str, tuple[Atom, ...]]

    @cached_property
    def slots(self) -> Mapping[str, Atom]:
        """The atom of each slot."""
        return {atom.slot: atom for atoms in self.atoms.values() for atom in atoms}

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of each slot."""
        return {slot: atom.shape for slot, atom in self.slots.items()}

    @property
    def layout(self) -> str:
        """The names of the layouts found, backbone first, such as `mit/nvidia + segformer/nvidia`; else `identity`."""
        return " + ".join(match.layout.name for match in self.matches) or "identity"

    @property
    def backbone(self) -> Component | None:
        """The backbone, or None if no layout knows it."""
        return next((m.layout.component for m in self.matches if m.layout.component.kind == "backbone"), None)

    @property
    def kin(self) -> str:
        """The name of the family that the backbone is of among those of its component, '' if it has none."""
        if (own := self.backbone) is None:
            return ""
        return next((kin.title for kin in own.kin if all(f"{own.name}.{slot}" in self.slots for slot in kin.slots)), "")

    @property
    def architecture(self) -> str:
        """The size of the backbone and the heads in words, such as `MiT-B5, DAFormer head`."""
        titles = []
        for component in (match.layout.component for match in self.matches):
            size = _size(component, self.slots) if component.kind == "backbone" else component.title
            titles.append(f"{self.kin} {size}".strip() if component is self.backbone else size)
        return ", ".join(titles) or "unknown network"


def _size(component: Component, slots: Mapping[str, Atom]) -> str:
    blocks: dict[int, set[int]] = {}
    for slot in slots:
        if found := re.match(rf"{component.name}\.stage(\d+)\.block(\d+)\.", slot):
            blocks.setdefault(int(found[1]), set()).add(int(found[2]))
    depths = tuple(len(blocks[stage]) for stage in sorted(blocks))
    shape = slots[component.width_slot].shape if component.width_slot in slots else ()
    width = shape[0] if shape else None
    for variant in component.variants:
        if variant.depths == depths and variant.width in (None, width):
            return variant.name
    return f"{component.title} with {'-'.join(map(str, depths))} blocks"


def map_slots(tensors: Mapping[str, Shape]) -> SlotMap:
    """Find the layouts of a checkpoint, and map each of its tensors to slots.

    A layout is found under a prefix if the file has every line of its table that it must have. A tensor that no
    layout knows keeps its stored name as its slot (the identity layout), even if other tensors are known.

    Args:
        tensors: the shape of each stored tensor.

    Raises:
        LayoutError: if two tensors claim one slot.
    """
    return _slot_map(tuple(tensors.items()))


@lru_cache(8)  # the models of a merge mostly have the same tensors
def _slot_map(tensors: tuple[tuple[str, Shape], ...]) -> SlotMap:
    matches, claims = _detect(dict(tensors))
    atoms: dict[str, tuple[Atom, ...]] = {}
    owner: dict[str, str] = {}
    known: set[str] = set()  # layouts that hold a tensor after all; a name as common as `fc` can fit several
    for name, shape in tensors:
        atoms[name] = (Atom(name, name, 0, shape),)
        for match in claims:
            if found := _atoms(match, name, shape):
                atoms[name] = found
                known.add(match.layout.name)
                break
        for atom in atoms[name]:
            if owner.setdefault(atom.slot, name) != name:
                raise LayoutError(f"The tensors {owner[atom.slot]!r} and {name!r} are the same weight, {atom.slot}.")
    return SlotMap(tuple(match for match in matches if match.layout.name in known), atoms)


def named_parts(names: Iterable[str], code_base: str = "") -> int:
    """Count the components that names have under prefixes of some code base, or of the one that is named.

    A component under any other prefix does not count. Backbones count as one, since some have names in common.
    """
    found = (match for _, match in _found(names) if match.prefix in match.layout.prefixes)
    named = [m.layout.component for m in found if any(b.startswith(code_base) for b in m.layout.code_bases)]
    return len({"" if component.kind == "backbone" else component.name for component in named})


def backbone_prefixes(names: Iterable[str]) -> tuple[str, ...]:
    """Return what stands before the names of each network that has the same backbone; () if there is only one.

    The prefix of a code base itself, such as `backbone.`, is not part of it.
    """
    names = tuple(names)
    found: dict[str, dict[tuple[str, str], str]] = {}
    for before, group in (("", names), *_numbered(names).items()):
        for _, match in _found(group):
            if match.layout.component.kind == "backbone":
                listed = (p for p in match.layout.prefixes if ("." + match.prefix).endswith("." + p))
                prefix = before + match.prefix
                outer = prefix[: len(prefix) - len(max(listed, key=len, default=""))]
                first = prefix + match.layout.first_required[0]
                copies = found.setdefault(match.layout.component.name, {})
                # Several tables may fit one network, and may begin at several prefixes.
                same = next((one for one in copies if prefix == one[0] or first == one[1]), (prefix, first))
                copies[same] = min(outer, copies.get(same, outer), key=len)
    return next((tuple(sorted(copies.values())) for copies in found.values() if len(copies) > 1), ())


def _numbered(names: Iterable[str]) -> dict[str, list[str]]:
    """Return what follows a beginning with a number, where so many names have it that a network may."""
    found: dict[str, list[str]] = {}
    for name in names:
        if begins := _NUMBERED.match(name):
            found.setdefault(begins[0], []).append(name[begins.end() :])
    return {begins: rests for begins, rests in found.items() if len(rests) >= _FEWEST}


def _detect(tensors: Mapping[str, Shape]) -> tuple[Sequence[LayoutMatch], Sequence[LayoutMatch]]:
    """Find the best layout of each component in a file: in the order of `COMPONENTS`, and the best of all first.

    Where two components have names in common, the tensors belong to the one whose layout is better.
    """
    # The best layout knows the most names; among equals, one under a listed prefix wins, then the one beside the better
    # backbone, then the one listed first. Backbones are found before heads.
    best: dict[str, _Rated] = {}
    for (count, listed), match in _found(tensors):
        beside = match.layout.beside
        if not match.layout.agrees(tensors, match.prefix) or (beside and beside.name not in best):
            continue
        merit = (count, listed, best[beside.name][0] if beside else ())
        key = match.layout.component.name
        if key not in best or merit > best[key][0]:
            best[key] = (merit, match)
    found = [best[name] for name in COMPONENTS if name in best and not _outdone(best[name], best.values())]
    claims = sorted(found, key=lambda each: each[0][:2], reverse=True)
    return [match for _, match in found], [match for _, match in claims]


def _outdone(found: _Rated, others: Iterable[_Rated]) -> bool:
    """True if another backbone is under the same prefix and knows more names: the tables of families overlap."""
    (count, *_), match = found
    return match.layout.component.kind == "backbone" and any(
        other.layout.component.kind == "backbone" and other.prefix == match.prefix and known > count
        for (known, *_), other in others
    )


def _found(names: Iterable[str]) -> tuple[tuple[tuple[int, bool], LayoutMatch], ...]:
    """Find all layouts that a file may have, each with the number of names it knows, and if its prefix is listed."""
    return _found_among(tuple(names))


@lru_cache(32)  # the same names are asked about several times while a file is opened
def _found_among(names: tuple[str, ...]) -> tuple[tuple[tuple[int, bool], LayoutMatch], ...]:
    forms: dict[str, list[str]] = {}
    for name in names:
        forms.setdefault(generic(name), []).append(name)
    endings = _endings(forms)
    found: list[tuple[tuple[int, bool], LayoutMatch]] = []
    for layout in LAYOUTS:
        if layout.beside and all(match.layout.component is not layout.beside for _, match in found):
            continue
        for prefix in (*layout.prefixes, *_other_prefixes(layout, endings)):
            if not layout.may_be_in(forms, prefix):
                continue
            count, present = _known(layout, prefix, forms)
            if all(line.optional or (id(line) in present) != line.absent for line in layout.lines):
                found.append(((count, prefix in layout.prefixes), LayoutMatch(layout, prefix)))
    return tuple(found)


def _endings(forms: Iterable[str]) -> dict[str, list[str]]:
    """Return what stands before each part of a name, by the rest of the name from that part on."""
    found: dict[str, list[str]] = {}
    for form in forms:
        place = -1
        while (place := form.find(".", place + 1)) >= 0:
            found.setdefault(form[place + 1 :], []).append(form[: place + 1])
    return found


def _other_prefixes(layout: Layout, endings: Mapping[str, Sequence[str]]) -> list[str]:
    """Return unlisted prefixes under which a file has a layout's first name: networks may wrap a backbone.

    A head must have its own prefix too, such as `decode_head.`, since names like `fc` are anybody's.
    """
    own = "" if layout.component.kind == "backbone" else layout.prefixes[0]
    if layout.component.kind != "backbone" and not own:
        return []
    firsts = (own + form for form in layout.first_required)
    found = {beginning + own for first in firsts for beginning in endings.get(first, ())}
    return sorted(prefix for prefix in found if prefix not in layout.prefixes and "#" not in prefix)


def _known(layout: Layout, prefix: str, forms: Mapping[str, list[str]]) -> tuple[int, set[int]]:
    """Count the names, given by `generic` form, that a layout knows, and collect the ids of the lines that match."""
    count, present, beginning = 0, set[int](), generic(prefix)
    for form, names in forms.items():
        lines = layout.lines_like(form[len(beginning) :]) if form.startswith(beginning) else []
        for name in (name for name in names if lines and name.startswith(prefix)):
            matching = {id(line) for pattern, line in lines if pattern.read(name[len(prefix) :]) is not None}
            count += bool(matching)
            present |= matching
    return count, present


def _atoms(match: LayoutMatch, name: str, shape: Shape) -> tuple[Atom, ...]:
    """Cut a stored tensor into atoms; () if the layout does not have it in this shape."""
    if not name.startswith(match.prefix):
        return ()
    parts = match.layout.slots(name[len(match.prefix) :])
    pieces = parts[0].form.cut(shape, len(parts)) if parts else ()
    atoms, start = [], 0
    for part, piece in zip(parts, pieces, strict=False):
        if piece is not None:
            atoms.append(Atom(part.slot, name, start, piece, part.form.order(shape)))
            start += math.prod(piece)
    return tuple(atoms)


def registration_order(slot_map: SlotMap) -> list[str]:
    """Return the stored names in the order in which the layouts' code registers them, unknown ones last."""
    return in_registration_order(slot_map.atoms, slot_map.matches)


def in_registration_order(names: Collection[str], matches: Iterable[LayoutMatch]) -> list[str]:
    """Return names in the order in which the code of layouts registers them, layout by layout, unknown ones last."""
    keys: dict[str, tuple[int, Key]] = {}
    known = sorted(matches, key=lambda match: _RANKS[match.layout.component.name])
    for rank, match in enumerate(known):
        for name in names:
            if name not in keys and name.startswith(match.prefix):
                inner = name[len(match.prefix) :]
                if match.layout.line_of(inner):
                    keys[name] = (rank, match.layout.registration_key(inner))
    return sorted(names, key=lambda name: keys.get(name, (len(known), ())))
