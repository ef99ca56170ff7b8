"""A checkpoint in another layout: the same weights, bit for bit, under the names of another code base."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.checkpoints.atomic import WEIGHT_SUFFIXES, check_target, staged
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.checkpoints.torch_file import write_torch_file
from hf_lwmm.engine.streaming import write_merged
from hf_lwmm.errors import LayoutError
from hf_lwmm.hub.refs import ModelRef, parse_ref
from hf_lwmm.layouts import LAYOUTS, Atom, depth_order, map_slots, place_of, registration_order
from hf_lwmm.layouts import Component, Layout
from hf_lwmm.planning.tensor_recipes import Segment, TensorRecipe, Term

TORCH_SUFFIXES = tuple(suffix for suffix in WEIGHT_SUFFIXES if suffix != ".safetensors")


@dataclass(frozen=True)
class Conversion:
    """A checkpoint's tensors in another layout, in the order in which that layout's code registers them.

    `notes` say what was left out, and why that loses nothing.
    """

    source: Checkpoint = field(repr=False)
    layout: str
    tensors: tuple[TensorRecipe, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[Checkpoint, ...]:
        return (self.source,)


def convert(
    model: str | Path | ModelRef,
    target: str | Path,
    *,
    to: str,
    backbone_only: bool = False,
    branch: str = "student",
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Conversion:
    """Write a model's weights in another layout.

    Args:
        model: a reference, as for `merge`.
        target: the folder or file to write; in torch's format if it ends in .pth, .pt, .bin or .ckpt.
        to: a code base that layouts are named after (`transformers`, `nvidia`, `advent`, ...).
        backbone_only: leave the heads out.

    Raises:
        LayoutError: if the layout cannot hold a tensor; the message says which.
        MergeError: if the target exists (unless `overwrite`) or cannot be written.
    """
    path = Path(target)
    check_target(path, overwrite)
    progress("Fetching weights", 0, 2)
    checkpoint = open_checkpoint(hub.resolve(parse_ref(model)), branch=branch)
    try:
        conversion = plan_conversion(checkpoint, to, backbone_only=backbone_only)
        progress("Writing", 1, 2)
        with staged(path) as folder:
            write_merged(conversion, folder, allow_nonfinite=True)
            if path.suffix in TORCH_SUFFIXES:
                write_torch_file(folder / "model.safetensors", folder / path.name)
    finally:
        checkpoint.close()
    return conversion


def plan_conversion(checkpoint: Checkpoint, to: str, *, backbone_only: bool = False) -> Conversion:
    """Decide which tensors of another layout hold which parts of a checkpoint.

    Raises:
        LayoutError: if there is no such layout, or it cannot hold a slot.
    """
    slots, notes = _kept_slots(checkpoint, backbone_only)
    layouts = [_layout_for(checkpoint, component, found, to) for component, found in slots]
    atoms = checkpoint.slot_map.slots
    tensors: dict[str, tuple[Sequence[Atom], tuple[int, ...]]] = {}
    for (_, found), layout in zip(slots, layouts, strict=True):
        for slot in found:
            stored = layout.stored(slot)
            assert stored is not None
            name, parts = layout.prefixes[0] + stored[0], stored[1]
            missing = [part.slot for part in parts if part.slot not in atoms]
            if missing:
                raise LayoutError(
                    f"{checkpoint.label}: {layout.name} stores {name} from {len(parts)} parts, of which {missing[0]} "
                    "is not there."
                )
            pieces = [atoms[part.slot] for part in parts]
            tensors[name] = (pieces, _stacked(pieces, parts[0].flat))
    names = map_slots({name: shape for name, (_, shape) in tensors.items()})
    planned = [_planned(checkpoint, name, *tensors[name]) for name in registration_order(names)]
    return Conversion(checkpoint, " + ".join(layout.name for layout in layouts), tuple(planned), tuple(notes))


def _kept_slots(checkpoint: Checkpoint, backbone_only: bool) -> tuple[list[tuple[Component, list[str]]], list[str]]:
    """The slots to convert by component, and notes on those that are left out."""
    kept: dict[str, tuple[Component, list[str]]] = {}
    unused, unknown, heads = [], [], []
    for slot in depth_order(checkpoint.slot_map.slots):
        place = place_of(slot)
        if place is None:
            unknown.append(slot)
        elif "unused" in place[1].flags:
            unused.append(slot)
        elif backbone_only and place[0].kind == "head":
            heads.append(slot)
        else:
            kept.setdefault(place[0].name, (place[0], []))[1].append(slot)
    if not kept:
        raise LayoutError(
            f"{checkpoint.label}: no layout knows its tensors ({next(iter(checkpoint.tensors))}, ...), so they "
            "cannot be renamed."
        )
    if unknown and not backbone_only:
        raise LayoutError(
            f"{checkpoint.label}: no layout knows {len(unknown):,} of its tensors ({unknown[0]}, ...), so they have no "
            "place in another one. --backbone-only leaves them out."
        )
    notes = [f"Left out {len(unused)} tensors that the network never uses ({unused[0]}, ...)."] if unused else []
    if left := [*heads, *unknown]:
        notes.append(f"Left out {len(left):,} tensors that are not the backbone's ({left[0]}, ...).")
    return list(kept.values()), notes


def _layout_for(checkpoint: Checkpoint, component: Component, slots: Sequence[str], to: str) -> Layout:
    """The layout of a code base that holds all of a component's slots."""
    backbone = checkpoint.slot_map.backbone
    own = [x for x in LAYOUTS if x.component is component and x.beside in (None, backbone)]
    named = [layout for layout in own if to in layout.code_bases]
    for layout in named:
        if all(layout.stored(slot) for slot in slots):
            return layout
    what = f"{checkpoint.label}: {to} cannot hold its {component.title} ({len(slots):,} slots"
    if named:
        lacking = [slot for slot in slots if not named[0].stored(slot)]
        raise LayoutError(f"{what}): {named[0].name} has no name for {lacking[0]} and {len(lacking) - 1} more.")
    known = list(dict.fromkeys(code_base for layout in own for code_base in layout.code_bases if "-" not in code_base))
    hint = " --backbone-only leaves heads out." if component.kind == "head" else ""
    if not any(to in layout.code_bases for layout in LAYOUTS):
        every = sorted({code_base for layout in LAYOUTS for code_base in layout.code_bases})
        raise LayoutError(f"No layout is called {to!r}. There are: {', '.join(every)}.")
    raise LayoutError(f"{what}, such as {slots[0]}). Layouts that can: {', '.join(known)}.{hint}")


def _stacked(pieces: Sequence[Atom], window: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a stored tensor that stacks pieces along dim 0."""
    first = pieces[0].shape
    rows = sum(piece.shape[0] for piece in pieces) if first else 0
    if window:
        return (rows, first[1] // (window[0] * window[1]), *window)
    return (rows, *first[1:]) if first else ()


def _planned(checkpoint: Checkpoint, name: str, pieces: Sequence[Atom], shape: tuple[int, ...]) -> TensorRecipe:
    dtypes = {checkpoint.tensors[piece.tensor].dtype for piece in pieces}
    if len(dtypes) > 1:
        raise LayoutError(f"{checkpoint.label}: {name} would stack {' and '.join(sorted(dtypes))}.")
    segments, start = [], 0
    for piece in pieces:
        count = math.prod(piece.shape)
        segments.append(Segment(start, count, (Term(0, piece.tensor, piece.start, 1.0),)))
        start += count
    return TensorRecipe(name, TensorInfo(dtypes.pop(), shape), tuple(segments))
