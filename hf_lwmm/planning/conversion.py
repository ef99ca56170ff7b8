"""Plan a conversion: decide which tensors of another layout hold which parts of a checkpoint, from headers alone."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import BITS
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import (
    LAYOUTS,
    Atom,
    Component,
    Form,
    Layout,
    LayoutMatch,
    Shape,
    companion_of,
    depth_order,
    in_registration_order,
    place_of,
)
from hf_lwmm.methods import Values
from hf_lwmm.planning.tensor_recipes import Segment, TensorRecipe, Term
from hf_lwmm.text import first_few


@dataclass(frozen=True)
class Conversion:
    """A checkpoint's tensors in another layout, in the order in which that layout's code registers them.

    `left_out` are the checkpoint's slots that no tensor holds. `notes` name these parts, and the reasons.
    """

    source: Checkpoint = field(repr=False)
    layout: str
    tensors: tuple[TensorRecipe, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    left_out: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def kept_shapes(self) -> Mapping[str, Shape]:
        """The shapes of the checkpoint's slots that some tensor holds."""
        return {slot: shape for slot, shape in self.source.slot_map.shapes.items() if slot not in self.left_out}


def plan_conversion(checkpoint: Checkpoint, to: str | Mapping[str, str], *, backbone_only: bool = False) -> Conversion:
    """Decide which tensors of another layout hold which parts of a checkpoint; no values are read.

    Args:
        checkpoint: a checkpoint of which some layout knows the tensors.
        to: a code base that layouts are named after (`transformers`, `nvidia`, `advent`, ...), or one for each
            component of a network; then what is of no component is left out.
        backbone_only: leave the heads out.

    Raises:
        LayoutError: if there is no such layout, or it cannot hold a slot; the message says which.
    """
    kept, notes = _kept_slots(checkpoint, backbone_only, None if isinstance(to, str) else to)
    layouts, pieces = [], dict[str, tuple[list[_Piece], Form]]()
    for component, slots in kept:
        layout = _layout_for(checkpoint, component, slots, to if isinstance(to, str) else to[component.name])
        layouts.append(layout)
        held = [slot for slot in slots if layout.stored(slot)]
        for slot in held:
            name, parts, form = _stored(checkpoint, layout, slot)
            pieces[name] = (parts, form)
        notes = (*notes, *(f"Left out {s}, which only pre-training uses." for s in slots if _is_spare(s, held)))
    names = in_registration_order(pieces, [LayoutMatch(layout, layout.prefixes[0]) for layout in layouts])
    tensors = tuple(_recipe(checkpoint, name, *pieces[name]) for name in names)
    used = {atom.slot for parts, _ in pieces.values() for part in parts for atom in part.atoms}
    left_out = frozenset(checkpoint.slot_map.slots) - used
    return Conversion(checkpoint, " + ".join(layout.name for layout in layouts), tensors, notes, left_out)


def _kept_slots(
    checkpoint: Checkpoint, backbone_only: bool, wanted: Container[str] | None = None
) -> tuple[list[tuple[Component, list[str]]], tuple[str, ...]]:
    """The slots to convert by component, and notes on those that are left out.

    `wanted` are the components of which slots are kept, None for all that are known.
    """
    kept: dict[str, tuple[Component, list[str]]] = {}
    left_by = {"unused": list[str](), "constant": list[str]()}
    unknown, heads = [], []
    for slot in depth_order(checkpoint.slot_map.slots):
        place = place_of(slot)
        if place is None:
            unknown.append(slot)
        elif flags := place[1].flags & left_by.keys():
            left_by[min(flags)].append(slot)
        elif (backbone_only and place[0].kind == "head") or (wanted is not None and place[0].name not in wanted):
            heads.append(slot)
        else:
            kept.setdefault(place[0].name, (place[0], []))[1].append(slot)
    if not kept:
        raise LayoutError(
            f"{checkpoint.label}: no layout knows its tensors ({next(iter(checkpoint.tensors))}, ...), so they "
            "cannot be renamed."
        )
    if unknown and not backbone_only and wanted is None:
        raise LayoutError(
            f"{checkpoint.label}: no layout knows {len(unknown):,} of its tensors ({unknown[0]}, ...), so they have no "
            "place in another one. --backbone-only leaves them out."
        )
    why = {"unused": "that the network never uses", "constant": "that are computed when the network is built"}
    notes = [f"Left out {len(out)} tensors {why[flag]} ({out[0]}, ...)." for flag, out in left_by.items() if out]
    if left := [*heads, *unknown]:
        whose = "the backbone's" if wanted is None else "the network's"
        notes.append(f"Left out {len(left):,} tensors that are not {whose} ({left[0]}, ...).")
    return list(kept.values()), tuple(notes)


def _layout_for(checkpoint: Checkpoint, component: Component, slots: Sequence[str], to: str) -> Layout:
    """The layout of a code base that holds all of a component's slots."""
    backbone = checkpoint.slot_map.backbone
    possible = [x for x in LAYOUTS if x.component is component and x.beside in (None, backbone)]
    named = sorted((x for x in possible if to in x.code_bases), key=lambda layout: not layout.suits(slots))
    for layout in named:
        if not _lacking(layout, slots, checkpoint.slot_map.shapes):
            return layout
    if not any(to in layout.code_bases for layout in LAYOUTS):
        every = sorted({code_base for layout in LAYOUTS for code_base in layout.code_bases})
        raise LayoutError(f"No layout is called {to!r}. There are: {', '.join(every)}.")
    what = f"{checkpoint.label}: {to} cannot hold its {component.title} ({len(slots):,} slots"
    if named:
        lacking = _lacking(named[0], slots, checkpoint.slot_map.shapes)
        raise LayoutError(f"{what}): {named[0].name} has no name for {first_few(lacking, 1)}.")
    others = dict.fromkeys(code_base for layout in possible for code_base in layout.code_bases if "-" not in code_base)
    hint = " --backbone-only leaves heads out." if component.kind == "head" else ""
    raise LayoutError(f"{what}, such as {slots[0]}). Layouts that can: {', '.join(others)}.{hint}")


def _lacking(layout: Layout, slots: Sequence[str], shapes: Mapping[str, Shape]) -> list[str]:
    """The slots that a layout has no name for, nor another slot that they can be added to, and cannot do without."""
    companions = {companion_of(slot): slot for slot in slots if layout.stored(slot)}
    lacking = [slot for slot in slots if not (layout.stored(slot) or _is_spare(slot))]
    return [slot for slot in lacking if slot not in companions or shapes[slot] != shapes[companions[slot]]]


def _is_spare(slot: str, held: Container[str] = ()) -> bool:
    """True if only pre-training uses a slot, and it is not among those that are held."""
    place = place_of(slot)
    return place is not None and "pretraining" in place[1].flags and slot not in held


@dataclass(frozen=True)
class _Piece:
    """A part of a tensor of this shape: a slot, the sum of several, or zeros if there is none."""

    shape: Shape
    atoms: tuple[Atom, ...]

    def segment(self, start: int) -> Segment:
        """The elements of the tensor from `start` on that hold the part."""
        count = math.prod(self.shape)
        terms = tuple(Term(0, atom.tensor, atom.start, 1.0) for atom in self.atoms)
        return Segment(start, count, terms, rule=None if len(terms) == 1 else _Total(count))


@dataclass(frozen=True)
class _Total:
    """The sum of all terms, each `count` elements."""

    count: int

    def __call__(self, arrays: Sequence[Values]) -> Values:
        return sum(arrays, np.zeros(self.count))


def _stored(checkpoint: Checkpoint, layout: Layout, slot: str) -> tuple[str, list[_Piece], Form]:
    """The tensor of a layout that holds a slot: its name, the pieces that it stacks, and its form.

    Raises:
        LayoutError: if it also holds a slot that the checkpoint lacks.
    """
    found = layout.stored(slot)
    assert found is not None  # `_layout_for` has chosen a layout that holds it
    name, parts = layout.prefixes[0] + found[0], found[1]
    atoms, form = checkpoint.slot_map.slots, parts[0].form
    if form.bare and parts[0].slot not in atoms:
        parts = parts[1:]
    pieces = []
    for part in parts:
        own = atoms.get(part.slot)
        if own is not None:
            added = atoms.get(companion_of(part.slot))
            more = (added,) if added and not layout.stored(added.slot) else ()
            pieces.append(_Piece(own.shape, (own, *more)))
        # What is added to a slot here is zero for a checkpoint that has added it already.
        elif summed := next((atoms[other] for other in atoms if companion_of(other) == part.slot), None):
            pieces.append(_Piece(summed.shape, ()))
        else:
            raise LayoutError(
                f"{checkpoint.label}: {layout.name} stores {name} from {len(parts)} parts, of which {part.slot} "
                "is not there."
            )
    return name, pieces, form


def _stacked_shape(pieces: Sequence[_Piece], form: Form) -> Shape:
    return form.stack([piece.shape for piece in pieces])


def _recipe(checkpoint: Checkpoint, name: str, pieces: Sequence[_Piece], form: Form) -> TensorRecipe:
    atoms = [atom for piece in pieces for atom in piece.atoms]
    dtypes = {checkpoint.tensors[atom.tensor].dtype for atom in atoms}
    if len(dtypes) > 1:
        raise LayoutError(f"{checkpoint.label}: {name} would stack {' and '.join(sorted(dtypes))}.")
    shape = _stacked_shape(pieces, form)
    order, first = form.order(shape), atoms[0]
    same = len(atoms) == 1 and first.shape == checkpoint.tensors[first.tensor].shape and first.order == order
    if BITS[min(dtypes)] < 8 and not same:
        raise LayoutError(f"{checkpoint.label}: {name} would be cut or stacked from {min(dtypes)}, inside a byte.")
    segments, start = [], 0
    for piece in pieces:
        segments.append(piece.segment(start))
        start += segments[-1].count
    order = order if BITS[min(dtypes)] >= 8 else None
    return TensorRecipe(name, TensorInfo(dtypes.pop(), shape), tuple(segments), order=order)
