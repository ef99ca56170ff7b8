"""Decide where each element of the merged file comes from: segments of elements, their terms, and a rule for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hf_lwmm.checkpoints.dtypes import BY_TORCH_NAME, is_float
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.layouts import Atom, Order, is_bn_stat, is_variance
from hf_lwmm.methods import Method, Slot, Values
from hf_lwmm.planning.alignment import SharedSlot
from hf_lwmm.planning.plan import MergePlan

Rows = Mapping[int, int]  # of a classifier matched by label: the row that each model has


@dataclass(frozen=True)
class Term:
    """`weight` times `count` elements of a stored tensor of one source, from element `start` on."""

    source: int
    tensor: str
    start: int
    weight: float


@dataclass(frozen=True)
class WeightNorm:
    """One factor of a weight-normalised layer, which a segment holds: weight = g * v / |v|, row by row.

    The terms' effective weights are merged, and the segment is the part `factor` of the sum: "g", the rows' lengths,
    or "v", their directions. `others` are tensor and first element of the other factor, term by term.
    """

    factor: str
    rows: int
    width: int  # weights in a row
    others: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Segment:
    """A run of elements of an output tensor: the weighted sum of its terms, the anchor's first.

    With a `rule` it is what the rule makes of the terms and of `extras`, which are tensors of any size, whole.
    """

    start: int
    count: int
    terms: tuple[Term, ...]
    weight_norm: WeightNorm | None = None
    rule: Callable[[Sequence[Values]], Values] | None = None
    extras: tuple[Term, ...] = ()

    @property
    def whole(self) -> bool:
        """True if the segment cannot be cut into chunks."""
        return self.rule is not None or self.weight_norm is not None


@dataclass(frozen=True)
class SlotRule:
    """The rule by which a method merges a slot.

    Its arguments are the models' flat values, the base's if any, and the measurements.
    """

    method: Method
    slot: str
    position: int
    positions: int
    shape: tuple[int, ...]
    models: int
    base: bool

    def __call__(self, arrays: Sequence[Values]) -> Values:
        count = self.models + self.base
        values = [array.reshape(self.shape) for array in arrays[:count]]
        rest = arrays[count:]
        if "grams" in self.method.needs:
            rest = [array.reshape(math.isqrt(array.size), -1) for array in rest]
        else:
            rest = [array.reshape(self.shape) for array in rest]
        base = values.pop() if self.base else None
        return self.method.merge(
            Slot(self.slot, self.position, self.positions, tuple(values), base, tuple(rest))
        ).reshape(-1)


@dataclass(frozen=True)
class PooledVariance:
    """Variance of a mixture of Gaussians: sum H (var + mean^2) - (sum H mean)^2; arguments all var, then all mean."""

    weights: tuple[float, ...]

    def __call__(self, arrays: Sequence[Values]) -> Values:
        count = len(self.weights)
        variances, means = np.stack(arrays[:count]), np.stack(arrays[count:])
        weights = np.asarray(self.weights)[:, None]
        # Around the anchor's mean, so that equal inputs give back themselves.
        shifted = means - means[0]
        spread = (weights * shifted**2).sum(axis=0) - (weights * shifted).sum(axis=0) ** 2
        return np.asarray(variances[0] + (weights * (variances - variances[0])).sum(axis=0) + spread)


@dataclass(frozen=True)
class TensorRecipe:
    """One tensor of the merged file, in the anchor's layout; its segments tile it from start to end.

    `variance` is True for a running variance, whose values are at least 0. With an `order` there is one segment, whose
    elements are in the order of the slot and are written in that of the file.
    """

    name: str
    info: TensorInfo
    segments: tuple[Segment, ...]
    variance: bool = False
    order: Order | None = None


def tensor_recipes(plan: MergePlan) -> tuple[TensorRecipe, ...]:
    """Return the recipe of every tensor of the merged file, in the anchor's own order."""
    shared = {slot.slot: slot for slot in plan.alignment.shared}
    recipes = []
    for name, info in plan.anchor.tensors.items():
        segments: list[Segment] = []
        dtype = info.dtype
        if not is_float(dtype):  # whole, for an element may be less than a byte
            segments.append(_own(plan, Atom("", name, 0, info.shape), 0, info.count))
        elif plan.knobs.dtype and name not in plan.alignment.intact:
            dtype = BY_TORCH_NAME[plan.knobs.dtype]
        # A copy by a tie is made as its original is, so that it still equals it.
        for atom in plan.anchor.slot_map.atoms[plan.alignment.copies.get(name, name)] if not segments else ():
            if atom.slot in shared:
                segments += _merged(plan, shared[atom.slot], atom)
            else:
                segments.append(_own(plan, atom, atom.start, math.prod(atom.shape)))
        variance = all(is_variance(atom.slot) for atom in plan.anchor.slot_map.atoms[name])
        order = plan.anchor.order_of(name)
        recipes.append(TensorRecipe(name, TensorInfo(dtype, info.shape), tuple(segments), variance, order))
    return tuple(recipes)


def tensors_read(plan: MergePlan) -> tuple[frozenset[str], ...]:
    """Return the stored tensors that a merge reads of each of the plan's sources.

    All of them where the plan is not yet complete: its weights are undecided, or models are permuted first.
    """
    if plan.undecided or plan.permutes:
        return tuple(frozenset(source.tensors) for source in plan.sources)
    read: list[set[str]] = [set() for _ in plan.sources]
    for recipe in tensor_recipes(plan):
        for segment in recipe.segments:
            for term in (*segment.terms, *segment.extras):
                read[term.source].add(term.tensor)
            if segment.weight_norm is not None:
                for term, (other, _) in zip(segment.terms, segment.weight_norm.others, strict=True):
                    read[term.source].add(other)
    return tuple(map(frozenset, read))


def _own(plan: MergePlan, atom: Atom, start: int, count: int) -> Segment:
    """Elements that stay the anchor's."""
    return Segment(start, count, (Term(plan.alignment.anchor, atom.tensor, start, 1.0),))


def _merged(plan: MergePlan, shared: SharedSlot, atom: Atom) -> list[Segment]:
    count = math.prod(atom.shape)
    if shared.rows is None:
        return [_segment(plan, shared, atom, shared.members, dict.fromkeys(shared.members, 0), atom.start, count)]
    # A classifier matched by label: each row is merged among the models that know its class.
    width = count // shared.shape[0]
    segments = []
    for row in range(shared.shape[0]):
        rows = {model: shared.rows[model][row] if model in shared.rows else row for model in shared.members}
        members = tuple(model for model in shared.members if rows[model] >= 0)
        start = atom.start + row * width
        alone = len(members) == 1  # the anchor: no method has anything to merge it with
        segments.append(
            _own(plan, atom, start, width) if alone else _segment(plan, shared, atom, members, rows, start, width)
        )
    return segments


def _segment(
    plan: MergePlan, shared: SharedSlot, atom: Atom, members: tuple[int, ...], rows: Rows, start: int, count: int
) -> Segment:
    slot, method, anchor = shared.slot, plan.method, plan.alignment.anchor
    order = (anchor, *(model for model in members if model != anchor))
    bn_stat = is_bn_stat(slot)
    if bn_stat and plan.knobs.bn_stats == "anchor":
        return _own(plan, atom, start, count)
    base: tuple[Term, ...] = ()
    if "base" in method.needs and (not bn_stat or method.interpolates):
        base = _base_term(plan, slot, atom, start)
        if not base or any(plan.base_atom(factor) is None for factor in shared.factors):
            return _own(plan, atom, start, count)
    measured, whole = _measurements(plan, shared, order, rows, count)
    by_weights = bn_stat or method.linear or (method.needs - {"base"} and not (measured or whole))
    if not by_weights:
        terms = (*(_term(plan, model, slot, rows, count) for model in order), *base)
        norm = _weight_norm(plan, shared, terms, count)
        shape = (norm.rows, norm.width) if norm else atom.shape if shared.rows is None else (1, *atom.shape[1:])
        rule = SlotRule(method, slot, shared.position, plan.alignment.positions, shape, len(order), bool(base))
        return Segment(start, count, (*terms, *measured), norm, rule, whole)
    mean = slot.removesuffix("running_var") + "running_mean" if slot.endswith(".running_var") else ""
    pooled = plan.knobs.bn_stats == "pooled" and mean in plan.positions
    pooled = pooled and not (base and plan.base_atom(mean) is None)
    position = plan.positions[mean] if pooled else shared.position  # the variance is around the mean that is written
    row = plan.member_weights(members, average=bn_stat or not method.linear)[position - 1]
    weights = dict(zip(members, map(float, row), strict=True))
    left = 1 - math.fsum(weights.values())  # the base's
    if pooled:
        of_base = [_base_term(plan, name, atom, start) for name in (slot, mean)] if base else [(), ()]
        parts = zip((slot, mean), of_base, strict=True)
        terms = tuple(t for name, own in parts for t in (*(_term(plan, m, name, rows, count) for m in order), *own))
        shares = (*(weights[model] for model in order), *(left for _ in base))
        return Segment(start, count, terms, rule=PooledVariance(shares))
    # A model of weight 0 is not read: the last layer is the anchor's, bit for bit. Nor is anything beside a 1.
    alone = [model for model in order if (method.convex or method.interpolates) and weights[model] == 1]
    used = alone or [model for model in order if model == anchor or weights[model]]
    rest = tuple(replace(term, weight=left) for term in base if left or not method.interpolates)
    if method.interpolates and left == 1:
        used = []
    terms = (*(_term(plan, model, slot, rows, count, weights[model]) for model in used), *rest)
    return Segment(start, count, terms, _weight_norm(plan, shared, terms, count))


def _term(plan: MergePlan, model: int, slot: str, rows: Rows, count: int, weight: float = 1.0) -> Term:
    atom = plan.checkpoints[model].slot_map.slots[slot]
    return Term(model, atom.tensor, atom.start + rows[model] * count, weight)


def _base_term(plan: MergePlan, slot: str, atom: Atom, start: int) -> tuple[Term, ...]:
    """The base's part of a slot, beginning where element `start` of the anchor's tensor is; empty if it has none."""
    found = plan.base_atom(slot)
    return (Term(len(plan.checkpoints), found.tensor, found.start + start - atom.start, 1.0),) if found else ()


def _measurements(
    plan: MergePlan, shared: SharedSlot, order: Sequence[int], rows: Rows, count: int
) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """The measurements of a slot, element by element or as whole matrices; empty if a model has none."""
    slot, first = shared.slot, len(plan.sources) - len(plan.measurements)
    if is_bn_stat(slot) or shared.factors or not plan.measurements:
        return (), ()
    if any(slot not in plan.measurements[model].tensors for model in order):
        return (), ()
    if "grams" in plan.method.needs:
        return (), tuple(Term(first + model, slot, 0, 1.0) for model in order)
    return tuple(Term(first + model, slot, rows[model] * count, 1.0) for model in order), ()


def _weight_norm(plan: MergePlan, shared: SharedSlot, terms: Sequence[Term], count: int) -> WeightNorm | None:
    if not shared.factors:
        return None
    lengths, directions = shared.factors
    factor, other = ("g", directions) if shared.slot == lengths else ("v", lengths)
    width, others = 0, []
    for term in terms:
        slots = plan.sources[term.source].slot_map.slots
        mine, partner = slots[shared.slot], slots[other]
        width = math.prod(slots[directions].shape[1:])
        row, of_row = (1, width) if factor == "g" else (width, 1)
        others.append((partner.tensor, partner.start + (term.start - mine.start) // row * of_row))
    return WeightNorm(factor, count if factor == "g" else count // width, width, tuple(others))
