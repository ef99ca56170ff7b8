"""Find weights that are products of stored factors of a low rank, by the names and shapes of the factors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.layouts import Shape

# Factors under plain names, as layers or parameters: LoRA's, and those of a decomposition into singular vectors, but
# not the two biases of relative attention.
_FACTOR = re.compile(r"(|(?:.*[._])(?<!bias_))(down|a|A|u|U|left)((?:_proj|Linear|)\.weight|)")
_LAST = {
    "down": ("up",), "a": ("b",), "A": ("B",), "left": ("right",),
    "u": ("v", "vh", "vt"), "U": ("V", "Vh", "VH", "Vt", "VT"),
}  # fmt: skip
_BETWEEN = ("s", "S", "sigma", "Sigma", "core")
_VECTORS = ("u", "U", "left")
# What is a layer of its own as often as a factor, unless there is a weight that the product is added to.
_COMMON = ("down", "a", "left.weight")
# tensorly-torch's factors of a tensor, beside its core or weights.
_FACTORISED = re.compile(r"(.+)\.(factors|cores)\.(factor_|core_)?\d+")


def added_products(tensors: Mapping[str, TensorInfo]) -> Iterator[list[str]]:
    """Yield the factors of each product that is added to the weight of a layer, of the same shape."""
    return (names for names, added in _products(tensors) if added)


def factorised_weights(tensors: Mapping[str, TensorInfo]) -> Iterator[list[str]]:
    """Yield the factors of each weight that is stored as such alone."""
    yield from (names for names, added in _products(tensors) if not added)
    factors: dict[str, list[str]] = {}
    for name in tensors:
        if found := _FACTORISED.fullmatch(name):
            factors.setdefault(found[1], []).append(name)
    for stem, names in factors.items():
        if len(names) > 1:
            yield [*names, *(name for each in ("core", "weights") if (name := f"{stem}.{each}") in tensors)]


def _products(tensors: Mapping[str, TensorInfo]) -> Iterator[tuple[list[str], bool]]:
    """The factors of each product, and whether a weight is stored that it is added to."""
    for first, info in tensors.items():
        if (found := _FACTOR.fullmatch(first)) is None:
            continue
        stem, mark, tail = found.groups()
        layer = stem.rstrip("._")
        weight = tensors.get(layer if re.search(r"(^|\.)weight$", layer) else f"{layer}.weight")
        # The A and B of state space models are factors of nothing.
        lone = mark not in _COMMON and mark + tail not in _COMMON and f"{stem}C{tail}" not in tensors
        for last in (stem + each + tail for each in _LAST[mark] if stem + each + tail in tensors):
            shapes = _product_shapes(info.shape, tensors[last].shape, mark in _VECTORS and not tail)
            if lone and shapes if weight is None else sorted(weight.shape[:2]) in map(sorted, shapes):
                between = [name for each in _BETWEEN if (name := stem + each + tail) in tensors]
                yield [first, *between, last], weight is not None


def _product_shapes(first: Shape, last: Shape, vectors: bool) -> list[Shape]:
    """The shapes that a product of two factors may have, whose rank is below both sides.

    Vectors may stand in rows or columns. A single one on either side of a weight is spectral norm's.
    """
    if len(first) != len(last) or len(first) < 2:
        return []
    stacked = len(first) == 3 and first[0] == last[0]
    (rows, columns), (others, rest) = first[stacked:][:2], last[stacked:][:2]
    pairs = [(columns, others, rows, rest), (rows, rest, columns, others)]
    if vectors:
        pairs.append((columns, rest, rows, others))
    return [(one, other) for rank, same, one, other in pairs if vectors < rank == same < min(one, other)]
