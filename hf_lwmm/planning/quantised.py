"""Find quantised weights by names and types: codes with what decodes them, and the quantisers that floats pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hf_lwmm.checkpoints.dtypes import is_float, is_minifloat
from hf_lwmm.checkpoints.safetensors_file import TensorInfo

# What bitsandbytes, torchao, GPTQ, AWQ, AQLM, HQQ, quanto, compressed-tensors, Brevitas, LSQ, ModelOpt, torch's
# observers and the fp8 formats keep beside codes: scales, zero points, code books, orders and shapes.
_SCALE = re.compile(
    r"scal(e|ing)|scb|zero|absmax|amax|quan|codebook|centroid|(^|_)lut|g_idx|_shape$|_min$|_max$|(min|max)_val|_meta",
    re.I,
)
# Codes that are packed into wider integers go by their names.
_PACKED = re.compile(r"^(q_?weight|qzeros|W_q|codes|\w*_packed|packed_\w+|\w*_qdata|\w*_blocks)$")
_NEAR = 8  # modules from a tensor outwards that it may belong to
_SHORT = ("I8", "U8", "I16", "U16")
_WEIGHT = re.compile(r"((?:.*?_)?)q?(?:weights?|w|kernel)(?:_\w+)?", re.I)
_BIAS = re.compile(r"(.*_)?bias(_\w+)?", re.I)
# Integers of ordinary networks, which may stand beside scales of another kind.
_PLACES = re.compile(r"index|indices|idx|(^|_)ids?$|mask|position|coord|count|num_|shape|step", re.I)
# Places of the values of a sparse matrix, or of the rows of a code book that make a weight up.
_SPARSE = re.compile(r"(|.*_)((crow|ccol|col|row)_)?(indices|indptr|assignments)")
_VALUES = ("values", "data", "centroids")
_BOOKS = re.compile(r"(codebook|centroid|(^|[._])lut)[^.]*$", re.I)  # in which places are looked up
# What a quantiser of floats has, beside its scale or range.
_OF_QUANTISERS = re.compile(r"(|.*_)(zero_?point|zp|histogram)s?", re.I)


@dataclass(frozen=True)
class Related:
    """The tensors inside each module, "" for those in none, and the scales that have a tensor's or module's name.

    bitsandbytes keeps what belongs to `weight` under its name (`weight.absmax`), others add to it (`weight_scale`).
    """

    inside: Mapping[str, Sequence[str]]
    beside: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, names: Iterable[str]) -> Related:
        """Relate tensors by their names."""
        inside: dict[str, list[str]] = {}
        beside: dict[str, list[str]] = {}
        for name in names:
            module, dot, part = name.rpartition(".")
            if not dot:
                inside.setdefault("", []).append(name)
            for _ in range(_NEAR):
                if dot:
                    inside.setdefault(module, []).append(name)
                if stem := _scaled(part):
                    beside.setdefault(module + dot + stem, []).append(name)
                module, dot, part = module.rpartition(".")
        return cls(inside, beside)


@lru_cache(1 << 12)  # blocks of a network have parts of the same names
def _scaled(part: str) -> str:
    """The name beside it that a part of a name scales, '' if it is no scale's or scales no single tensor."""
    found = _SCALE.search(part)
    return part[: found.start()].rstrip("_") if found else ""


def quantised_weights(tensors: Mapping[str, TensorInfo], related: Related) -> Iterator[list[str]]:
    """Yield codes, each with the tensors that decode it; `related` is of all tensors.

    Floats of few bits are codes, and so are integers of up to 16 bits with scales in their module, and any with scales
    of their own name. Where a weight is of integers, all else in its module decodes it, whatever it is called, but for
    the bias, which is added to the product.
    """
    inside, beside = related.inside, related.beside
    scales: dict[str, list[str]] = {}  # by the module that they are in
    for name in tensors:
        module, _, leaf = name.rpartition(".")
        if _SCALE.search(leaf):
            scales.setdefault(module, []).append(name)
    for name, info in tensors.items():
        module, _, leaf = name.rpartition(".")
        sure = _PACKED.fullmatch(leaf) is not None or is_minifloat(info.dtype)
        if is_float(info.dtype) or info.dtype == "C64" or not (sure or info.count > 1):
            continue
        near = scales.get(module, [])
        if values := _values_at(name, tensors):
            yield [name, *values]
            continue
        if not sure and _PLACES.search(leaf) and not any(map(_BOOKS.search, near)):
            continue
        decoders = [*inside.get(name, ()), *beside.get(name, ())]
        if sure or info.dtype in _SHORT:
            decoders += near
        if weight := _WEIGHT.fullmatch(leaf):
            cut = len(module) + bool(module)
            decoders += [each for each in inside.get(module, ()) if _decodes(each[cut:], weight[1])]
            decoders += beside.get(module, ())
        group = list(dict.fromkeys([name, *decoders]))
        if sure or len(group) > 1:
            yield group


def quantisers(names: Iterable[str], related: Related) -> Iterator[list[str]]:
    """Yield what belongs to each quantiser that floats pass in training: its scale, zero point, range and switches."""
    for name in names:
        module, _, leaf = name.rpartition(".")
        if found := _OF_QUANTISERS.fullmatch(leaf):
            cut = len(module) + bool(module)
            own = {each: each[cut:] for each in related.inside[module] if each.startswith(found[1], cut)}
            layer = any(_WEIGHT.fullmatch(rest) or _BIAS.fullmatch(rest) for rest in own.values())
            group = [each for each, rest in own.items() if each == name or not layer or _SCALE.search(rest)]
            if len(group) > 1:
                yield group


def _values_at(name: str, tensors: Mapping[str, TensorInfo]) -> list[str]:
    """The floats of which a tensor of integers has the places; none if it is no such tensor."""
    module, dot, leaf = name.rpartition(".")
    found = _SPARSE.fullmatch(leaf)
    values = [f"{module}{dot}{found[1]}{value}" for value in _VALUES] if found else []
    return [each for each in values if each in tensors and is_float(tensors[each].dtype)]


def _decodes(rest: str, stem: str) -> bool:
    """True if the name of a tensor, after its module's, is that of a decoder of the module's weight."""
    if "." in rest or _SCALE.search(rest):
        return _SCALE.search(rest) is not None
    return rest.startswith(stem) and not _BIAS.fullmatch(rest)
