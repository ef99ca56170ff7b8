"""The merge plan: every number that a merge will use, decided from headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from hf_lwmm.alignment import GRANULARITIES, HEADS, ORDERS, SHARES, Alignment, SharedSlot, align, other_factor
from hf_lwmm.checkpoint import Checkpoint
from hf_lwmm.datasets.labels import label_sets, read_label_set
from hf_lwmm.dtypes import BY_TORCH_NAME, is_float
from hf_lwmm.errors import PlanError
from hf_lwmm.safetensors_file import TensorInfo
from hf_lwmm.schedule import Weights, layerwise_weights

_CHOICES = {"granularity": GRANULARITIES, "order": ORDERS, "share": SHARES, "head": HEADS}
_WEIGHTS = ("student", "teacher")


@dataclass(frozen=True)
class Knobs:
    """All choices of a merge besides its models; the defaults are the paper's (method, section 2).

    `alpha` None means 1/M. `dtype` None writes the anchor's own; otherwise a torch name such as float16.
    `weights` picks student or teacher from checkpoints of self-training runs. `keep` names slots, or dotted
    beginnings of their names, that stay the anchor's. `labels` are label sets, by name, file or class names: a model
    that does not name its classes gets those of the first set with as many classes as its classifier has rows.
    """

    start: float = 0.0
    alpha: float | None = None
    ramp: str = "linear"
    granularity: str = "parameter"
    order: str = "depth"
    share: str = "all"
    head: str = "shared"
    dtype: str | None = None
    weights: str = "student"
    keep: tuple[str, ...] = ()
    labels: tuple[str | tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", tuple(self.keep or ()))  # a list or None from YAML or a command line
        object.__setattr__(self, "labels", tuple(_portable(labels) for labels in self.labels or ()))
        for name, choices in (*_CHOICES.items(), ("weights", _WEIGHTS)):
            if getattr(self, name) not in choices:
                raise PlanError(f"--{name} {getattr(self, name)} is none of {', '.join(choices)}.")
        if self.dtype is not None and self.dtype not in BY_TORCH_NAME:
            raise PlanError(f"--dtype {self.dtype} is none of {', '.join(BY_TORCH_NAME)}.")

    def changed(self) -> dict[str, Any]:
        """The knobs that differ from the paper's choice."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


def _portable(labels: str | Sequence[str]) -> str | tuple[str, ...]:
    """A label set as it means the same on every machine: its name if it is a known one, else its classes."""
    found = read_label_set(labels)
    return found.name if found.name in label_sets() else found.classes


@dataclass(frozen=True)
class Term:
    """`weight` times `count` elements of a stored tensor of one model, from element `start` on."""

    model: int
    tensor: str
    start: int
    weight: float


@dataclass(frozen=True)
class WeightNorm:
    """What a segment is that holds one factor of a weight-normalised layer: weight = g * v / |v|, row by row.

    The terms' effective weights are merged, and the segment is what the sum has of `factor` ("g", the rows' lengths,
    or "v", their directions). `others` are tensor and first element of the other factor, term by term.
    """

    factor: str
    rows: int
    width: int  # weights in a row
    others: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Segment:
    """A run of elements of an output tensor: the weighted sum of its terms, the anchor's first."""

    start: int
    count: int
    terms: tuple[Term, ...]
    weight_norm: WeightNorm | None = None


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the merged file, in the anchor's layout; its segments tile it from start to end."""

    name: str
    info: TensorInfo
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class MergePlan:
    """A merge, decided but not carried out. `checkpoints` may hold headers only."""

    checkpoints: tuple[Checkpoint, ...] = field(repr=False)
    knobs: Knobs
    alignment: Alignment

    @property
    def anchor(self) -> Checkpoint:
        return self.checkpoints[self.alignment.anchor]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(checkpoint.label for checkpoint in self.checkpoints)

    def _repr_markdown_(self) -> str:
        alignment = self.alignment
        share = alignment.shared_parameters / max(alignment.anchor_parameters, 1)
        rows = ""
        for index, checkpoint in enumerate(self.checkpoints):
            role = " **(anchor)**" if index == alignment.anchor else ""
            slots = checkpoint.slot_map
            rows += f"| {checkpoint.label}{role} | {slots.architecture} | {slots.layout} |\n"
        return (
            f"**Merge plan**: {len(alignment.shared):,} slots at {alignment.positions:,} depth positions, "
            f"{share:.1%} of the anchor's weights\n\n| model | architecture | layout |\n| --- | --- | --- |\n{rows}"
        )

    @cached_property
    def weights(self) -> Weights:
        """H of Equation 1 where all models take part: (positions, models)."""
        return self._weights(tuple(range(len(self.checkpoints))))

    def slot_weights(self, shared: SharedSlot) -> dict[int, float]:
        """The weight of each member at a shared slot."""
        row = self._weights(shared.members)[shared.position - 1]
        return dict(zip(shared.members, map(float, row), strict=True))

    @cached_property
    def _tables(self) -> dict[tuple[int, ...], Weights]:
        return {}

    def _weights(self, members: tuple[int, ...]) -> Weights:
        if members not in self._tables:
            alpha, count = self.knobs.alpha, len(members)
            if alpha is not None and count < len(self.checkpoints):
                alpha = max(alpha, 1 / count)  # among fewer models an equal weighs more
            self._tables[members] = layerwise_weights(
                self.alignment.positions,
                count,
                members.index(self.alignment.anchor),
                start=self.knobs.start,
                alpha=alpha,
                ramp=self.knobs.ramp,
            )
        return self._tables[members]

    @cached_property
    def tensors(self) -> tuple[PlannedTensor, ...]:
        """Every tensor of the merged file, in the anchor's own order."""
        shared = {slot.slot: slot for slot in self.alignment.shared}
        planned = []
        for name, info in self.anchor.tensors.items():
            segments: list[Segment] = []
            for atom in self.anchor.slot_map.atoms[name]:
                count = int(np.prod(atom.shape))
                if atom.slot in shared:
                    segments += self._merged(shared[atom.slot], name, atom.start, count)
                else:
                    own = Term(self.alignment.anchor, name, atom.start, 1.0)
                    segments.append(Segment(atom.start, count, (own,)))
            dtype = BY_TORCH_NAME[self.knobs.dtype] if self.knobs.dtype and is_float(info.dtype) else info.dtype
            planned.append(PlannedTensor(name, TensorInfo(dtype, info.shape), tuple(segments)))
        return tuple(planned)

    def _merged(self, shared: SharedSlot, name: str, start: int, count: int) -> list[Segment]:
        if shared.rows is None:
            return [self._segment(shared.members, shared, name, start, {}, count)]
        # A classifier matched by label: each row is merged among the models that know its class.
        width = count // shared.shape[0]
        segments = []
        for row in range(shared.shape[0]):
            rows = {model: shared.rows[model][row] if model in shared.rows else row for model in shared.members}
            members = tuple(model for model in shared.members if rows[model] >= 0)
            segments.append(self._segment(members, shared, name, start + row * width, rows, width))
        return segments

    def _segment(
        self,
        members: tuple[int, ...],
        shared: SharedSlot,
        name: str,
        start: int,
        rows: Mapping[int, int],
        count: int,
    ) -> Segment:
        weights = dict(zip(members, map(float, self._weights(members)[shared.position - 1]), strict=True))
        terms = [Term(self.alignment.anchor, name, start, weights[self.alignment.anchor])]
        for model in members:
            # A model of weight 0 is not read: the last layer is the anchor's, bit for bit.
            if model != self.alignment.anchor and weights[model]:
                atom = self.checkpoints[model].slot_map.slots[shared.slot]
                terms.append(Term(model, atom.tensor, atom.start + rows.get(model, 0) * count, weights[model]))
        return Segment(start, count, tuple(terms), self._weight_norm(shared, terms, count))

    def _weight_norm(self, shared: SharedSlot, terms: Sequence[Term], count: int) -> WeightNorm | None:
        other = other_factor(shared.slot)
        if other is None:
            return None
        factor, width, others = shared.slot[-1], 0, []
        for term in terms:
            slots = self.checkpoints[term.model].slot_map.slots
            mine, partner = slots[shared.slot], slots[other]
            width = math.prod((partner if factor == "g" else mine).shape[1:])
            row, of_row = (1, width) if factor == "g" else (width, 1)
            others.append((partner.tensor, partner.start + (term.start - mine.start) // row * of_row))
        return WeightNorm(factor, count if factor == "g" else count // width, width, tuple(others))


def make_plan(checkpoints: Sequence[Checkpoint], anchor: int, knobs: Knobs) -> MergePlan:
    """Align checkpoints and decide every weight.

    Raises:
        AlignmentError: if they share too little.
        PlanError: if a knob has no meaning here.
    """
    alignment = align(
        checkpoints,
        anchor,
        share=knobs.share,
        head=knobs.head,
        granularity=knobs.granularity,
        order=knobs.order,
        keep=knobs.keep,
    )
    plan = MergePlan(tuple(checkpoints), knobs, alignment)
    if plan.weights.shape[0]:
        plan.slot_weights(alignment.shared[0])
    return plan
