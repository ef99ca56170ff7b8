"""Match the units of two models by their weights (Ainsworth et al. 2023, Algorithm 1).

A network computes the same when the units of a layer change places and the layers that read them follow. Units that
must move together are a group: a residual stream, the hidden units of one MLP, the channels inside one block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import ITEM_SIZES, is_float
from hf_lwmm.checkpoints.readers import MemoryReader
from hf_lwmm.errors import PlanError, naming_extras
from hf_lwmm.layouts import depth_order, is_bn_stat
from hf_lwmm.layouts.language import Pattern
from hf_lwmm.planning.alignment import SharedSlot
from hf_lwmm.progress import Progress, silent

Order = NDArray[np.intp]
_SWEEPS = 50  # matching settles after a few; a bound for the case that it goes round in circles

# Module, the group of its outputs, the groups of its inputs (the first that some module has as outputs; - is none).
_MIT = """
stage0.embed.proj               stage0                  -
stage{s+1}.embed.proj           stage{s+1}              stage{s}
stage{s}.embed.norm             stage{s}                -
stage{s}.block{b}.norm1         stage{s}                -
stage{s}.block{b}.attn.q        -                       stage{s}
stage{s}.block{b}.attn.sr       reduced{s}.{b}          stage{s}
stage{s}.block{b}.attn.norm     reduced{s}.{b}          -
stage{s}.block{b}.attn.k        -                       reduced{s}.{b}|stage{s}
stage{s}.block{b}.attn.v        -                       reduced{s}.{b}|stage{s}
stage{s}.block{b}.attn.proj     stage{s}                -
stage{s}.block{b}.norm2         stage{s}                -
stage{s}.block{b}.mlp.fc1       hidden{s}.{b}           stage{s}
stage{s}.block{b}.mlp.dwconv    hidden{s}.{b}           -
stage{s}.block{b}.mlp.fc2       stage{s}                hidden{s}.{b}
stage{s}.norm                   stage{s}                -
"""

_RESNET_STREAM = """
stem.conv                             stem              -
stem.bn                               stem              -
stage0.block0.downsample.conv         stage0            stem
stage{s+1}.block0.downsample.conv     stage{s+1}        stage{s}
stage{s}.block0.downsample.bn         stage{s}          -
stage0.block0.conv1                   first0.0          stem
stage{s+1}.block0.conv1               first{s+1}.0      stage{s}|stem
stage{s}.block{b+1}.conv1             first{s}.{b+1}    stage{s}|stem
stage{s}.block{b}.bn1                 first{s}.{b}      -
stage{s}.aux.branch{i}                -                 stage{s}
"""

_BOTTLENECK_BLOCKS = """
stage{s}.block{b}.conv2               second{s}.{b}     first{s}.{b}
stage{s}.block{b}.bn2                 second{s}.{b}     -
stage{s}.block{b}.conv3               stage{s}          second{s}.{b}
stage{s}.block{b}.bn3                 stage{s}          -
"""

# A stage without a downsampling convolution adds to the stem's own channels.
_BASIC_BLOCKS = """
stage{s}.block{b}.conv2               stage{s}          first{s}.{b}
stage{s}.block{b}.bn2                 stage{s}          -
"""

_HEADS = """
segformer.proj{i}                     -                 stage{i}
segformer.fuse.conv                   segformer         -
segformer.fuse.bn                     segformer         -
segformer.classifier                  -                 segformer
segformer_mmseg.proj{i}.conv          -                 stage{i}
daformer.embed{i}.proj                -                 stage{i}
daformer.bottleneck.conv              daformer          -
daformer.bottleneck.bn                daformer          -
daformer.classifier                   -                 daformer
scale_attention.embed{i}.proj         -                 stage{i}
scale_attention.fuse.conv             attention         -
scale_attention.fuse.bn               attention         -
scale_attention.classifier            -                 attention
edaps_instance.neck.lateral{i}        -                 stage{i}
edaps_center.embed{i}.proj            -                 stage{i}
deeplab.branch{i}                     -                 stage3
diga.branch{i}.conv                   -                 stage3
imagenet.classifier                   -                 stage3
bottleneck.bottleneck                 -                 stage3
"""


@dataclass(frozen=True)
class Axes:
    """The groups of a slot's first and second dimension; None where units stay in place."""

    rows: str | None
    columns: str | None


def axes_of(checkpoint: Checkpoint) -> dict[str, Axes]:
    """Return the groups of every slot that has units which may change places.

    Raises:
        PlanError: for a family without a table.
    """
    slots = checkpoint.slot_map.slots
    backbone = checkpoint.slot_map.backbone
    name = backbone.name if backbone else ""
    if name == "mit":
        tables = [("mit.", _MIT)]
    elif name == "resnet":
        basic = "resnet.stage0.block0.conv3.weight" not in slots
        tables = [("resnet.", _RESNET_STREAM), ("resnet.", _BASIC_BLOCKS if basic else _BOTTLENECK_BLOCKS)]
    else:
        raise PlanError(
            f"{checkpoint.label}: permuting knows MiT and ResNet, not {checkpoint.slot_map.architecture}. Merge it "
            "without: models that were trained from one start have their units in the same places."
        )
    lines = [(Pattern(prefix + line.split()[0]), line.split()) for prefix, table in tables for line in _lines(table)]
    lines += [(Pattern(line.split()[0]), line.split()) for line in _lines(_HEADS)]
    found: dict[str, tuple[str, list[str]]] = {}
    for slot in depth_order(slots):  # the same order, so the same matching, in every layout
        if slot.endswith("num_batches_tracked"):
            continue
        for pattern, (_, rows, columns) in lines:
            if (read := pattern.read(slot)) is not None:
                named = [Pattern(group + "!").write(read[0], "") for group in (rows, *columns.split("|"))]
                found[slot] = (named[0], named[1:])
                break
    produced = {rows for rows, _ in found.values()}
    # A residual stream that does not start with a convolution of its own is the stem's.
    same = {"stage0": "stem"} if name == "resnet" and "resnet.stage0.block0.downsample.conv.weight" not in slots else {}

    def group(names: list[str]) -> str | None:
        known = next((each for each in names if each in produced and each != "-"), None)
        return same.get(known, known) if known else None

    return {
        slot: Axes(group([rows]), group(columns) if slot.endswith((".weight", ".weight_v")) else None)
        for slot, (rows, columns) in found.items()
    }


def _lines(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.strip()]


@dataclass(frozen=True)
class Matching:
    """The unit of the other model that stands at each of the anchor's places, for each group."""

    orders: Mapping[str, Order]

    @cached_property
    def moved(self) -> float:
        """The fraction of all units that change places."""
        total = sum(len(order) for order in self.orders.values())
        return sum(int((order != np.arange(len(order))).sum()) for order in self.orders.values()) / max(total, 1)

    def __str__(self) -> str:
        if self.moved:
            return f"{self.moved:.1%} of its units change places"
        return "its units match the anchor's where they are, and none changes places"


def match_units(anchor: Checkpoint, other: Checkpoint, shared: Sequence[str]) -> Matching:
    """Return the permutations of the other model's units that bring its shared slots nearest to the anchor's.

    Coordinate ascent on the inner product of the two models' weights, one linear assignment for each group in turn,
    until none changes.

    Raises:
        PlanError: for a family without a table.
    """
    with naming_extras("Permuting units"):
        from scipy.optimize import linear_sum_assignment

    shapes, other_shapes = anchor.slot_map.shapes, other.slot_map.shapes
    # With --share any, a model may lack what others share.
    alike = {slot for slot in shared if other_shapes.get(slot) == shapes[slot] and not is_bn_stat(slot)}
    axes = {slot: where for slot, where in axes_of(anchor).items() if slot in alike}
    mine, theirs = (
        {slot: each.slot_values(slot).astype(np.float32).reshape(shapes[slot]) for slot in axes}
        for each in (anchor, other)
    )
    sizes = {where.rows: shapes[slot][0] for slot, where in axes.items() if where.rows}
    orders: dict[str, Order] = {group: np.arange(size) for group, size in sizes.items()}
    for _ in range(_SWEEPS):
        settled = True
        for group, size in sizes.items():
            gain = np.zeros((size, size))
            for slot, where in axes.items():
                if where.rows == group:
                    permuted = permute(theirs[slot], None, orders.get(where.columns or ""))
                    gain += mine[slot].reshape(size, -1) @ permuted.reshape(size, -1).T
                if where.columns == group:
                    permuted = permute(theirs[slot], orders.get(where.rows or ""), None)
                    gain += _by_columns(mine[slot]) @ _by_columns(permuted).T
            order = linear_sum_assignment(gain, maximize=True)[1]
            now, before = (gain[np.arange(size), candidate].sum() for candidate in (order, orders[group]))
            if now > before + 1e-9 * abs(before):
                orders[group] = order
                settled = False
        if settled:
            break
    return Matching(orders)


def permute_to_anchor(
    checkpoints: Sequence[Checkpoint],
    anchor: int,
    shared: Sequence[SharedSlot],
    matchings: MutableMapping[tuple[str, ...], Matching] | None = None,
    progress: Progress = silent,
) -> tuple[Checkpoint, ...]:
    """Return the checkpoints with the units of all others where the anchor's are.

    The matching looks at the `shared` slots, except those whose rows are matched by label. `matchings` keeps what was
    found, for further merges of the same models.

    Raises:
        PlanError: for a family without a table.
    """
    known = {} if matchings is None else matchings
    permuted = list(checkpoints)
    for index, checkpoint in enumerate(checkpoints):
        progress("Matching units", index, len(checkpoints))
        if index == anchor:
            continue
        slots = [each.slot for each in shared if index not in (each.rows or ())]
        key = (str(checkpoints[anchor].source.ref), str(checkpoint.source.ref), *slots)
        if key not in known:
            known[key] = match_units(checkpoints[anchor], checkpoint, slots)
        moved = permuted_checkpoint(checkpoint, known[key])
        permuted[index] = replace(moved, notes=(*moved.notes, f"{checkpoint.label}: {known[key]}"))
    return tuple(permuted)


def permuted_checkpoint(checkpoint: Checkpoint, matching: Matching) -> Checkpoint:
    """Return the checkpoint with its units in the anchor's places, held in memory."""
    axes = axes_of(checkpoint)
    data = {}
    for name, info in checkpoint.tensors.items():
        raw = np.empty(info.nbytes, np.uint8)
        checkpoint.read_stored(name, 0, raw)
        for atom in checkpoint.slot_map.atoms[name] if is_float(info.dtype) else ():
            item = ITEM_SIZES[info.dtype]
            if where := axes.get(atom.slot):
                part = raw[atom.start * item : (atom.start + math.prod(atom.shape)) * item]
                values = part.reshape(*atom.shape, item)
                orders = (matching.orders.get(where.rows or ""), matching.orders.get(where.columns or ""))
                part[...] = permute(values, *orders).reshape(-1)
        data[name] = raw
    return replace(checkpoint, reader=MemoryReader(data))


def permute(values: NDArray[np.generic], rows: Order | None, columns: Order | None) -> NDArray[np.generic]:
    """Return values with rows (dim 0) and columns (dim 1) in another order."""
    if rows is not None:
        values = values[rows]
    return values if columns is None else values[:, columns]


def _by_columns(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
