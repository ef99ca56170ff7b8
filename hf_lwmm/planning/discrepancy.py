"""Compare two models tensor by tensor (paper, Figure 2; methods/README.md, section 6).

The measures are ||a - b|| against ||a||, and the cosine of a and b. A tensor counts as changed at a threshold tau when
||a - b|| >= ||a|| / tau.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import is_float
from hf_lwmm.errors import CheckpointError, PlanError
from hf_lwmm.layouts import in_backbone, is_bn_stat
from hf_lwmm.planning.alignment import GRANULARITIES, Unshared, align
from hf_lwmm.planning.pretraining import Verdict, cosine_of, model_names, relative_of, same_pretraining
from hf_lwmm.progress import Progress, silent
from hf_lwmm.text import near_one, one_line, plain, table

KINDS = ("weights", "biases", "bn_stats")
CHUNK = 1 << 17  # elements that are compared at a time: 1 MiB of float64 for each model


@dataclass(frozen=True)
class TensorDifference:
    """The difference of a slot in two models: a is the first model's values, b the second's.

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
        """The distance ||a - b|| / ||a||; None where a is zero and b is not."""
        return relative_of(self.distance, self.norm)

    @property
    def cosine(self) -> float | None:
        """The cosine a.b / (||a|| ||b||); None where a or b is zero."""
        return cosine_of(self.dot, self.norm, self.norm_other)

    def changed(self, tau: float) -> bool:
        """Return True if ||a - b|| >= ||a|| / tau; equal tensors never count, even if they are zero."""
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
class Discrepancy:
    """The differences of two models, slot by slot in depth order.

    `uncompared` holds slot, model and reason for what was not compared.
    """

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

    @cached_property
    def whole(self) -> LayerDifference | None:
        """All weights and biases as one vector, without running statistics; None if none were compared."""
        trained = [tensor for tensor in self.tensors if tensor.kind != "bn_stats"]
        return _layer(trained, self.taus) if trained else None

    @property
    def boundary(self) -> int:
        """The last position of the backbone, 0 if no layout knows which part is the backbone."""
        return max((tensor.position for tensor in self.tensors if tensor.backbone), default=0)

    @property
    def reasons(self) -> dict[str, list[str]]:
        """The slots that were not compared, by model and reason."""
        found: dict[str, list[str]] = {}
        for slot, model, reason in self.uncompared:
            found.setdefault(f"{model}: {reason}", []).append(slot)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with None where a figure is not defined."""
        return {
            "models": list(self.models),
            "taus": list(self.taus),
            "granularity": self.granularity,
            "boundary": self.boundary,
            "cosine": self.whole and self.whole.cosine,
            "relative": self.whole and self.whole.relative,
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

    def summary(self) -> list[tuple[str, ...]]:
        """Return the rows of a table that counts changed tensors by part and kind; the first row has the titles."""
        titles = ("part", "tensors", "median cosine", "median relative distance")
        rows = [titles + tuple(f"changed (tau {tau:g})" for tau in self.taus)]
        for backbone in (True, False):
            for kind in KINDS:
                part = [t for t in self.tensors if t.backbone == backbone and t.kind == kind]
                if part:
                    place = "backbone" if backbone else "head" if self.boundary else "network"
                    medians = _median((t.cosine for t in part), near_one), _median((t.relative for t in part), _short)
                    counts = (f"{sum(t.changed(tau) for t in part):,}" for tau in self.taus)
                    rows.append((f"{place}, {kind}", f"{len(part):,}", *medians, *counts))
        return rows

    def title(self) -> str:
        """Return the comparison in a few sentences."""
        counts = f"{len(self.tensors):,} slots compared, {len(self.uncompared):,} not."
        return f"{counts} {self.distance()} {self.pretraining.message}"

    def distance(self) -> str:
        """Return the distance of the two networks as a sentence, empty if they share no weights."""
        whole = self.whole
        if whole is None or whole.cosine is None or whole.relative is None:
            return ""
        return (
            f"All weights and biases together: cosine {near_one(whole.cosine)}, relative L2 distance "
            f"{_short(whole.relative)}."
        )

    def to_markdown(self) -> str:
        """Return the verdict, and a table that counts changed tensors by part and kind."""
        titles, *rows = self.summary()
        return f"**Discrepancy**: {plain(self.title())}\n\n{table(titles, rows)}\n"

    def __repr__(self) -> str:
        between = one_line(" and ".join(self.models))
        return f"<{type(self).__name__}: {between}; {len(self.tensors):,} slots compared. {self.distance()}>"

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def check_granularity(granularity: str) -> None:
    """Refuse a granularity that makes no layers. Raises PlanError."""
    if granularity not in GRANULARITIES[1:]:
        raise PlanError(f"--granularity {granularity} is not one of {', '.join(GRANULARITIES[1:])}.")


def compare(
    first: Checkpoint,
    second: Checkpoint,
    *,
    taus: Sequence[float] = (10.0,),
    granularity: str = "module",
    progress: Progress = silent,
) -> Discrepancy:
    """Compare two open checkpoints, whatever layouts they are stored in, in bounded memory.

    Args:
        taus: thresholds: a tensor counts as changed when ||a - b|| >= ||a|| / tau.
        granularity: the size of a layer: module, block or stage.

    Raises:
        AlignmentError: if the models are not networks of one architecture.
        CheckpointError: if a value is not finite.
        PlanError: for thresholds that are not positive, or another granularity.
    """
    check_granularity(granularity)
    if not taus or not all(0 < tau < math.inf for tau in taus):
        raise PlanError("--tau takes positive numbers, such as 10: changed by a tenth of the first model's norm.")
    alignment = align((first, second), 0, granularity=granularity)
    # What is tied in the first model may be stored once in the second: it is compared under the name that both have.
    both = [shared for shared in alignment.shared if shared.slot in second.slot_map.slots]
    copies = [shared.slot for shared in alignment.shared if shared.slot not in second.slot_map.slots]
    tensors = []
    for done, shared in enumerate(both):
        progress("Comparing", done, len(both))
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
    names = model_names(first, second)
    uncompared = [(entry.slot, names[entry.model], _reason(first, entry, names[0])) for entry in alignment.unshared]
    uncompared += [(slot, names[0], f"{names[1]} has no such slot") for slot in copies]
    verdict = same_pretraining(first, second)
    return Discrepancy(names, tuple(map(float, taus)), granularity, tuple(tensors), tuple(uncompared), verdict)


def _reason(first: Checkpoint, entry: Unshared, name: str) -> str:
    """The reason why a slot is not compared; neither model is an anchor here."""
    if entry.model:
        return f"{name} has no such slot"
    dtype = first.tensors[first.slot_map.slots[entry.slot].tensor].dtype
    return entry.reason if is_float(dtype) else f"not a float weight ({dtype})"


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
        relative=relative_of(distance, norm),
        cosine=cosine_of(sum(t.dot for t in tensors), norm, norm_other),
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
        return "bn_stats"
    return "biases" if slot.rpartition(".")[2] == "bias" else "weights"


def _median(values: Iterable[float | None], shown: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    return shown(float(np.median(known))) if known else "-"


def _short(value: float) -> str:
    return f"{value:.3g}"
