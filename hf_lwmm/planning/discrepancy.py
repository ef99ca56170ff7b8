"""Where two models differ (paper, Figure 2), and whether they look like they come from one pre-training.

Discrepancy is measured tensor by tensor: ||a - b|| against ||a||, and the cosine of a and b. A tensor counts as
changed at a threshold tau when ||a - b|| >= ||a|| / tau.

The verdict on pre-training is the median cosine of the backbone's weights, each with the mean over its units (dim 0)
taken out, since what all units have in common does not tell which unit is which. Calibrated on small networks of 12 to
70 such weights (SegFormer, DeepLabV2, ResNet, ESPNetv2; scripts/bench/pretraining.py makes the first two):

| pair | median cosine | verdict |
| --- | --- | --- |
| one pre-training, fine-tuned or at other points of it | 0.86 to 1.00 | same, from 0.7 |
| one random start, trained apart for 600 steps | 0.77 to 0.88 | same |
| one random start, trained apart for 750 to 3,000 steps | 0.37 to 0.52 | unclear |
| two trainings, random weights, or the same network with its units permuted | -0.02 to 0.01 | different, up to 0.2 |

So "same" says that two models are still near a common start, which a merge needs; it does not say how much was learned
there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hf_lwmm.checkpoints.dtypes import is_float
from hf_lwmm.errors import CheckpointError, PlanError
from hf_lwmm.hub.refs import ModelRef, parse_ref
from hf_lwmm.layouts import in_backbone, is_bn_stat
from hf_lwmm.planning.alignment import GRANULARITIES, Unshared, align
from hf_lwmm.planning.plan import MergePlan

KINDS = ("weights", "biases", "statistics")
CHUNK = 1 << 17  # elements that are compared at a time: 1 MiB of float64 for each model

# Of the backbone's weights: the smallest that the verdict is taken from, and how much it reads of a large one.
_SMALLEST, _SAMPLE = 256, 1 << 12
SAME, DIFFERENT = 0.7, 0.2  # median cosines, from the table above


@dataclass(frozen=True)
class TensorDifference:
    """How a slot of two models differs: a is the first model's values, b the second's.

    `norm` is ||a||, `distance` ||a - b||, `dot` a.b and `norm_other` ||b||, all over `count` elements in float64.
    """

    slot: str
    position: int
    kind: str
    backbone: bool
    count: int
    norm: float
    norm_other: float
    distance: float
    dot: float

    @property
    def relative(self) -> float | None:
        """||a - b|| / ||a||; None where a is zero and b is not."""
        return _relative(self.distance, self.norm)

    @property
    def cosine(self) -> float | None:
        """a.b / (||a|| ||b||); None where a or b is zero."""
        return _cosine(self.dot, self.norm, self.norm_other)

    def changed(self, tau: float) -> bool:
        """||a - b|| >= ||a|| / tau (method, section 6); equal tensors never count, also if they are zero."""
        return self.distance > 0 and self.distance * tau >= self.norm


@dataclass(frozen=True)
class LayerDifference:
    """A layer, block or stage as one vector; `changed` counts its changed tensors by kind, for each tau in order."""

    name: str
    position: int
    backbone: bool
    parameters: int
    relative: float | None
    cosine: float | None
    tensors: Mapping[str, int]
    changed: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Verdict:
    """Whether two models look like they come from one pre-training: `answer` is same, unclear or different.

    `cosine` is the median over `slots` backbone weights, None if there is none to judge by.
    """

    models: tuple[str, str]
    answer: str
    cosine: float | None
    slots: int

    @property
    def message(self) -> str:
        """A sentence or two for the models' user."""
        first, other = self.models
        if self.cosine is None:
            return f"{first} and {other} have no weights that tell whether they come from the same pre-training."
        figures = f"median cosine {self.cosine:.2f} over {self.slots} weights"
        if self.answer == "same":
            return f"{first} and {other} look like they come from the same pre-training ({figures})."
        if self.answer == "unclear":
            return (
                f"It is not clear whether {first} and {other} come from the same pre-training ({figures}; "
                f"{SAME} or more is usual). Score the merge before you use it."
            )
        return (
            f"{first} and {other} do not look like they come from the same pre-training ({figures}; {SAME} or more is "
            "usual), so the merge may be worth nothing. If their units only stand in another order, --permute helps."
        )


@dataclass(frozen=True)
class Discrepancy:
    """How two models differ, slot by slot in depth order, and what of them was not compared (slot, model, reason)."""

    models: tuple[str, str]
    taus: tuple[float, ...]
    granularity: str
    tensors: tuple[TensorDifference, ...] = field(repr=False)
    uncompared: tuple[tuple[str, str, str], ...] = field(repr=False)
    pretraining: Verdict

    @cached_property
    def layers(self) -> tuple[LayerDifference, ...]:
        """The tensors put together by the granularity, in depth order."""
        groups: dict[int, list[TensorDifference]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.position, []).append(tensor)
        return tuple(_layer(groups[position], self.taus) for position in sorted(groups))

    @property
    def boundary(self) -> int:
        """The last position of the backbone, 0 if no layout tells which part is the backbone."""
        return max((tensor.position for tensor in self.tensors if tensor.backbone), default=0)

    @property
    def reasons(self) -> dict[str, list[str]]:
        """The slots that were not compared, by model and reason."""
        found: dict[str, list[str]] = {}
        for slot, model, reason in self.uncompared:
            found.setdefault(f"{model}: {reason}", []).append(slot)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; None where a figure is not defined."""
        return {
            "models": list(self.models),
            "taus": list(self.taus),
            "granularity": self.granularity,
            "boundary": self.boundary,
            "pretraining": asdict(self.pretraining) | {"models": list(self.models)},
            "layers": [
                asdict(layer) | {"changed": {kind: list(counts) for kind, counts in layer.changed.items()}}
                for layer in self.layers
            ],
            "tensors": [
                {
                    **asdict(tensor),
                    "relative": tensor.relative,
                    "cosine": tensor.cosine,
                    "changed": [tensor.changed(tau) for tau in self.taus],
                }
                for tensor in self.tensors
            ],
            "uncompared": [{"slot": slot, "model": model, "reason": why} for slot, model, why in self.uncompared],
        }

    def _summary(self) -> list[tuple[str, ...]]:
        """Rows of a table of how many tensors changed in backbone and head, by kind; the first has the titles."""
        titles = ("part", "tensors", "median cosine", "median relative distance")
        rows = [titles + tuple(f"changed (tau {tau:g})" for tau in self.taus)]
        for backbone in (True, False):
            for kind in KINDS:
                part = [t for t in self.tensors if t.backbone == backbone and t.kind == kind]
                if part:
                    place = "backbone" if backbone else "head" if self.boundary else "network"
                    medians = _median(t.cosine for t in part), _median(t.relative for t in part)
                    counts = (f"{sum(t.changed(tau) for t in part):,}" for tau in self.taus)
                    rows.append((f"{place}, {kind}", f"{len(part):,}", *medians, *counts))
        return rows

    def _title(self) -> str:
        return f"{len(self.tensors):,} slots compared, {len(self.uncompared):,} not. {self.pretraining.message}"

    def to_markdown(self) -> str:
        """The verdict, and a table of how many tensors changed in backbone and head, by kind."""
        titles, *rows = (f"| {' | '.join(row)} |" for row in self._summary())
        rule = "|" + " --- |" * (4 + len(self.taus))
        return "\n".join([f"**Discrepancy**: {self._title()}", "", titles, rule, *rows]) + "\n"

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        from hf_lwmm.publishing.plots import plot_discrepancy
        from hf_lwmm.publishing.plots.style import inline

        rows = ("".join(f"<td>{cell}</td>" for cell in row) for row in self._summary())
        table = "".join(f"<tr>{row}</tr>" for row in rows)
        image = inline(lambda file: plot_discrepancy(self, file))
        return f"<p><b>Discrepancy</b>: {escape(self._title())}</p><table>{table}</table>{image}"


def diff(
    first: str | Path | ModelRef,
    second: str | Path | ModelRef,
    *,
    taus: Sequence[float] = (10.0,),
    granularity: str = "module",
    branch: str = "student",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Discrepancy:
    """Compare two models, whatever layouts they are stored in, in bounded memory (paper, Figure 2).

    Args:
        first, second: references, as for `merge`; relative distances are of the first's norms.
        taus: thresholds: a tensor counts as changed when ||a - b|| >= ||a|| / tau.
        granularity: what is a layer: module, block or stage.
        branch: of self-training checkpoints, student or teacher.

    Raises:
        AlignmentError: if the models are no networks of one architecture.
        CheckpointError: if a value is not finite.
        PlanError: for thresholds that are not positive, or another granularity.
    """
    if granularity not in GRANULARITIES[1:]:
        raise PlanError(f"--granularity {granularity} is none of {', '.join(GRANULARITIES[1:])}.")
    if not taus or not all(0 < tau < math.inf for tau in taus):
        raise PlanError("--tau takes positive numbers, such as 10: changed by a tenth of the first model's norm.")
    with contextlib.ExitStack() as stack:
        opened = []
        for done, ref in enumerate((first, second)):
            progress("Fetching weights", done, 2)
            checkpoint = open_checkpoint(hub.resolve(parse_ref(ref)), branch=branch)
            stack.callback(checkpoint.close)
            opened.append(checkpoint)
        return compare(opened[0], opened[1], taus=taus, granularity=granularity, progress=progress)


def compare(
    first: Checkpoint,
    second: Checkpoint,
    *,
    taus: Sequence[float] = (10.0,),
    granularity: str = "module",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Discrepancy:
    """As `diff`, of checkpoints that are open."""
    alignment = align((first, second), 0, granularity=granularity)
    tensors = []
    for done, shared in enumerate(alignment.shared):
        progress("Comparing", done, len(alignment.shared))
        sums = np.zeros(4)
        for a, b in _pairs(first, second, shared.slot):
            difference = a - b
            sums += (a @ a, b @ b, difference @ difference, a @ b)
        if not np.isfinite(sums).all():
            raise CheckpointError(f"{shared.slot}: {first.label} or {second.label} has a value that is not finite.")
        norm, norm_other, distance = map(float, np.sqrt(sums[:3]))
        slot, count = shared.slot, math.prod(shared.shape)
        tensors.append(
            TensorDifference(
                slot, shared.position, _kind(slot), in_backbone(slot), count, norm, norm_other, distance, float(sums[3])
            )
        )
    names = _names(first, second)
    uncompared = tuple(
        (entry.slot, names[entry.model], _reason(first, entry, names[0])) for entry in alignment.unshared
    )
    verdict = same_pretraining(first, second)
    return Discrepancy(names, tuple(map(float, taus)), granularity, tuple(tensors), uncompared, verdict)


def same_pretraining(first: Checkpoint, second: Checkpoint) -> Verdict:
    """Whether two models look like they come from one pre-training; reads a sample of their backbones.

    The median, over backbone weights of two and more dimensions and at least 256 elements, of the cosine of the two
    models' values with the mean over units taken out. Of each only the first rows are read, about 4,096 elements.
    Of networks that no layout knows all weights are taken.
    """
    cosines = [_unit_cosine(first, second, slot) for slot in _telling_slots(first, second)]
    known = [cosine for cosine in cosines if cosine is not None]
    median = float(np.median(known)) if known else None
    answer = "unclear"
    if median is not None and not DIFFERENT < median < SAME:
        answer = "same" if median >= SAME else "different"
    return Verdict(_names(first, second), answer, median, len(known))


def pretraining_warnings(plan: MergePlan) -> tuple[str, ...]:
    """Of each model that does not clearly share the anchor's pre-training, what its user should know.

    The plan's checkpoints must be readable. Nothing is said of a merge that permutes units.
    """
    if plan.permutes:
        return ()
    others = (model for model in plan.checkpoints if model is not plan.anchor)
    verdicts = (same_pretraining(plan.anchor, model) for model in others)
    return tuple(verdict.message for verdict in verdicts if verdict.answer != "same")


def _names(first: Checkpoint, second: Checkpoint) -> tuple[str, str]:
    """The models' labels, numbered where they would be the same."""
    if first.label != second.label:
        return first.label, second.label
    return f"{first.label} (1)", f"{second.label} (2)"


def _reason(first: Checkpoint, entry: Unshared, name: str) -> str:
    """Why a slot is not compared, of two models neither of which is an anchor."""
    if entry.model:
        return f"{name} has no such slot"
    dtype = first.tensors[first.slot_map.slots[entry.slot].tensor].dtype
    return entry.reason if is_float(dtype) else f"not a float weight ({dtype})"


def _telling_slots(first: Checkpoint, second: Checkpoint) -> Iterator[str]:
    ours, theirs = first.slot_map.slots, second.slot_map.slots
    for slot, atom in ours.items():
        if slot not in theirs or theirs[slot].shape != atom.shape:
            continue
        floats = all(is_float(c.tensors[c.slot_map.slots[slot].tensor].dtype) for c in (first, second))
        placed = in_backbone(slot) or first.slot_map.backbone is None
        if floats and placed and len(atom.shape) > 1 and math.prod(atom.shape) >= _SMALLEST:
            yield slot


def _unit_cosine(first: Checkpoint, second: Checkpoint, slot: str) -> float | None:
    shape = first.slot_map.slots[slot].shape
    width = math.prod(shape[1:])
    rows = min(shape[0], max(2, _SAMPLE // width))
    a, b = (each.slot_values(slot, 0, rows * width).reshape(rows, width) for each in (first, second))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return _cosine(float((a * b).sum()), float(np.linalg.norm(a)), float(np.linalg.norm(b)))


def _pairs(
    first: Checkpoint, second: Checkpoint, slot: str
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """A slot's values in both models, a chunk at a time."""
    size = math.prod(first.slot_map.slots[slot].shape)
    for start in range(0, size, CHUNK):
        count = min(CHUNK, size - start)
        yield first.slot_values(slot, start, count), second.slot_values(slot, start, count)


def _layer(tensors: Sequence[TensorDifference], taus: Sequence[float]) -> LayerDifference:
    norm, norm_other, distance = (
        math.sqrt(sum(getattr(t, name) ** 2 for t in tensors)) for name in ("norm", "norm_other", "distance")
    )
    kinds = {kind: [t for t in tensors if t.kind == kind] for kind in KINDS}
    return LayerDifference(
        name=_common_name([t.slot for t in tensors]),
        position=tensors[0].position,
        backbone=tensors[0].backbone,
        parameters=sum(t.count for t in tensors),
        relative=_relative(distance, norm),
        cosine=_cosine(sum(t.dot for t in tensors), norm, norm_other),
        tensors={kind: len(of_kind) for kind, of_kind in kinds.items()},
        changed={kind: tuple(sum(t.changed(tau) for t in of_kind) for tau in taus) for kind, of_kind in kinds.items()},
    )


def _common_name(slots: Sequence[str]) -> str:
    """The dotted beginning of all the slots' modules."""
    modules = [slot.split(".")[:-1] or [slot] for slot in slots]
    common = []
    for parts in zip(*modules, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common or modules[0])


def _kind(slot: str) -> str:
    if is_bn_stat(slot):
        return "statistics"
    return "biases" if slot.rpartition(".")[2] == "bias" else "weights"


def _relative(distance: float, norm: float) -> float | None:
    if distance == 0:
        return 0.0
    return distance / norm if norm else None


def _cosine(dot: float, norm: float, norm_other: float) -> float | None:
    if not (norm and norm_other and math.isfinite(dot)):
        return None
    return max(-1.0, min(1.0, dot / norm / norm_other))


def _median(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.median(known):.3g}" if known else "-"
