"""Plan a conversion: decide which tensors of another layout hold which parts of a checkpoint, from headers alone."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

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
    Shape,
    depth_order,
    map_slots,
    place_of,
    registration_order,
)
from hf_lwmm.planning.tensor_recipes import Segment, TensorRecipe, Term


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
    layouts, pieces = [], dict[str, tuple[list[Atom], Form]]()
    for component, slots in kept:
        layout = _layout_for(checkpoint, component, slots, to if isinstance(to, str) else to[component.name])
        layouts.append(layout)
        for slot in slots:
            name, atoms, form = _stored(checkpoint, layout, slot)
            pieces[name] = (atoms, form)
    names = registration_order(map_slots({name: _stacked_shape(*stack) for name, stack in pieces.items()}))
    tensors = tuple(_recipe(checkpoint, name, *pieces[name]) for name in names)
    left_out = frozenset(checkpoint.slot_map.slots) - {slot for _, slots in kept for slot in slots}
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
    named = [layout for layout in possible if to in layout.code_bases]
    for layout in named:
        if all(layout.stored(slot) for slot in slots):
            return layout
    if not any(to in layout.code_bases for layout in LAYOUTS):
        every = sorted({code_base for layout in LAYOUTS for code_base in layout.code_bases})
        raise LayoutError(f"No layout is called {to!r}. There are: {', '.join(every)}.")
    what = f"{checkpoint.label}: {to} cannot hold its {component.title} ({len(slots):,} slots"
    if named:
        lacking = [slot for slot in slots if not named[0].stored(slot)]
        raise LayoutError(f"{what}): {named[0].name} has no name for {lacking[0]} and {len(lacking) - 1} more.")
    able = dict.fromkeys(code_base for layout in possible for code_base in layout.code_bases if "-" not in code_base)
    hint = " --backbone-only leaves heads out." if component.kind == "head" else ""
    raise LayoutError(f"{what}, such as {slots[0]}). Layouts that can: {', '.join(able)}.{hint}")


def _stored(checkpoint: Checkpoint, layout: Layout, slot: str) -> tuple[str, list[Atom], Form]:
    """The tensor of a layout that holds a slot: its name, the atoms that it stacks, and its form.

    Raises:
        LayoutError: if it also holds a slot that the checkpoint lacks.
    """
    found = layout.stored(slot)
    assert found is not None  # `_layout_for` has chosen a layout that holds it
    name, parts = layout.prefixes[0] + found[0], found[1]
    atoms = checkpoint.slot_map.slots
    if missing := [part.slot for part in parts if part.slot not in atoms]:
        raise LayoutError(
            f"{checkpoint.label}: {layout.name} stores {name} from {len(parts)} parts, of which {missing[0]} "
            "is not there."
        )
    return name, [atoms[part.slot] for part in parts], parts[0].form


def _stacked_shape(pieces: Sequence[Atom], form: Form) -> Shape:
    """The shape of a stored tensor that stacks pieces along dim 0."""
    first = pieces[0].shape
    return form.stored_shape((sum(piece.shape[0] for piece in pieces), *first[1:])) if first else ()


def _recipe(checkpoint: Checkpoint, name: str, pieces: Sequence[Atom], form: Form) -> TensorRecipe:
    dtypes = {checkpoint.tensors[piece.tensor].dtype for piece in pieces}
    if len(dtypes) > 1:
        raise LayoutError(f"{checkpoint.label}: {name} would stack {' and '.join(sorted(dtypes))}.")
    shape = _stacked_shape(pieces, form)
    order, first = form.order(shape), pieces[0]
    same = len(pieces) == 1 and first.shape == checkpoint.tensors[first.tensor].shape and first.order == order
    if BITS[min(dtypes)] < 8 and not same:
        raise LayoutError(f"{checkpoint.label}: {name} would be cut or stacked from {min(dtypes)}, inside a byte.")
    segments, start = [], 0
    for piece in pieces:
        count = math.prod(piece.shape)
        segments.append(Segment(start, count, (Term(0, piece.tensor, piece.start, 1.0),)))
        start += count
    order = order if BITS[min(dtypes)] >= 8 else None
    return TensorRecipe(name, TensorInfo(dtypes.pop(), shape), tuple(segments), order=order)
