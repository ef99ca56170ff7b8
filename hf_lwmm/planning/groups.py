"""Find the parameters of a model that mean something only together, from its headers alone.

A group merges as a unit, where it is known how: the factors of a weight norm by their product, and tied tensors as the
one tensor that they are. Any other group stays the anchor's, byte for byte, since parts of two models make no weight:
two models' averaged scales mean nothing to the codes of one, and a product of averages is no average of products.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import is_float
from hf_lwmm.checkpoints.inert_pickle import shown
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.checkpoints.torch_tensors import TorchReader
from hf_lwmm.checkpoints.weight_files import ADAPTER_FILE
from hf_lwmm.errors import CheckpointError
from hf_lwmm.layouts import depth_order
from hf_lwmm.planning.low_rank import added_products, factorised_weights
from hf_lwmm.planning.quantised import Related, quantised_weights, quantisers


@dataclass(frozen=True)
class Kind:
    """A reason why parameters belong together, as an adjective, and the remedy if they cannot be merged as a unit.

    `silent` kinds are part of ordinary networks, and not worth a note.
    """

    name: str
    remedy: str = ""
    silent: bool = False

    @property
    def merges(self) -> bool:
        """True if groups of this kind merge as a unit."""
        return not self.remedy


TIED = Kind("tied")
WEIGHT_NORM = Kind("weight-normalised")
_PLAIN = "Make it a plain weight first: torch.nn.utils.{}."
OTHER_TIES = Kind(
    "sharing memory in other shapes", "Save them apart first: {name: tensor.clone() for name, tensor in ...}."
)
OTHER_NORM = Kind("weight-normalised otherwise than row by row", _PLAIN.format("parametrize.remove_parametrizations"))
COMPUTED = Kind(
    "computed from several stored tensors",
    _PLAIN.format("parametrize.remove_parametrizations, remove_spectral_norm or prune.remove")
    + " For a layer of other code, save the weight that it computes.",
)
ADAPTER = Kind(
    "part of an adapter",
    "Merge each adapter into its base model first (peft: `merge_and_unload()`), then merge those models.",
)
QUANTISED = Kind("quantised", "Save the model in floats first (transformers: `dequantize()`), then merge that.")
QUANTISER = Kind(
    "of quantisers that the weights pass in training",
    "Merge the models without them (torch: before `prepare_qat`), and quantise the result.",
)
COMPLEX = Kind("complex", "Save real and imaginary parts as tensors of their own to merge them.")
INTEGER = Kind("of integers", "Save the model in floats first, then merge that.", silent=True)


@dataclass(frozen=True)
class Group:
    """Stored tensors of one model that belong together, and all their slots; of tied ones the first in use is first."""

    kind: Kind
    tensors: tuple[str, ...]
    slots: tuple[str, ...]


@dataclass(frozen=True)
class Groups:
    """The groups of a model. A slot may be in several, as the factors of a tied weight-normalised layer are."""

    groups: tuple[Group, ...]
    by_slot: Mapping[str, tuple[Group, ...]] = field(repr=False)

    def obstacle(self, slot: str) -> Kind | None:
        """Return why a slot can be part of no merge, None if it can."""
        return next((group.kind for group in self.by_slot.get(slot, ()) if not group.kind.merges), None)

    def of(self, slot: str, kind: Kind) -> Group | None:
        """Return the slot's group of a kind, None if it is in none."""
        return next((group for group in self.by_slot.get(slot, ()) if group.kind is kind), None)

    @property
    def products(self) -> Iterator[str]:
        """The slots that weight-normalised layers would have as plain ones, such as fc.weight for fc.weight_g."""
        for group in self.groups:
            if group.kind is WEIGHT_NORM:
                yield group.slots[0].removesuffix("_g").removesuffix(".original0").replace(".parametrizations.", ".")

    def unit(self, slot: str) -> tuple[str, ...]:
        """Return all slots that are merged together with a slot, or not at all: itself, and those of its groups."""
        found, pending = dict.fromkeys([slot]), [slot]
        while pending:
            for group in self.by_slot.get(pending.pop(), ()):
                pending += [each for each in group.slots if each not in found]
                found |= dict.fromkeys(group.slots)
        return tuple(found)


def groups_of(checkpoint: Checkpoint) -> Groups:
    """Find the groups of a checkpoint, by names, types, shapes and places in its files."""
    atoms = checkpoint.slot_map.atoms
    found = [*_adapters(checkpoint), *_quantised(checkpoint), *_computed(checkpoint), *_ties(checkpoint)]
    grouped = {name for kind, names in found if not kind.merges for name in names}
    for name, info in checkpoint.tensors.items():
        if not is_float(info.dtype) and name not in grouped:
            found.append((COMPLEX if info.dtype == "C64" else INTEGER, [name]))
    groups, by_slot = [], dict[str, tuple[Group, ...]]()
    for kind, names in found:
        if kind is TIED:
            rank = {slot: at for at, slot in enumerate(depth_order(atom.slot for n in names for atom in atoms[n]))}
            names = sorted(names, key=lambda name: rank[atoms[name][0].slot])
        group = Group(kind, tuple(names), tuple(atom.slot for name in names for atom in atoms[name]))
        groups.append(group)
        for slot in group.slots:
            by_slot[slot] = (*by_slot.get(slot, ()), group)
    return Groups(tuple(groups), by_slot)


def copies_of(groups: Groups, model: Checkpoint, others: Sequence[Checkpoint]) -> Mapping[str, str]:
    """Return the stored tensors of a model that are copies by a tie, each with the original.

    The original is the first in depth order that the other models have, too: their files may hold a tie under one of
    its names alone.
    """
    atoms, theirs = model.slot_map.atoms, [checkpoint.slot_map.slots for checkpoint in others]
    copies: dict[str, str] = {}
    for group in groups.groups:
        if group.kind is TIED:
            holders = [slots for slots in theirs if any(slot in slots for slot in group.slots)]
            had = (n for n in group.tensors if all(atom.slot in slots for atom in atoms[n] for slots in holders))
            original = next(had, group.tensors[0])
            copies |= {name: original for name in group.tensors if name != original}
    return copies


def described(groups: Groups) -> list[str]:
    """Return in words what cannot be merged as a unit in a model, kind by kind, but for what any network may have."""
    found: dict[Kind, dict[str, None]] = {}
    for group in groups.groups:
        if not group.kind.merges and not group.kind.silent:
            found.setdefault(group.kind, {}).update(dict.fromkeys(group.slots))
    return [sentence(kind, list(slots)) for kind, slots in found.items()]


def sentence(kind: Kind, slots: Sequence[str]) -> str:
    """Return what some slots are in words, with the remedy, as in "2 tensors (a, b) are quantised. Save ..."."""
    names = ", ".join(map(shown, slots[:2])) + (", ..." if len(slots) > 2 else "")
    what = f"1 tensor ({names}) is" if len(slots) == 1 else f"{len(slots):,} tensors ({names}) are"
    return f"{what} {kind.name}. {kind.remedy}"


def check_runnable(checkpoint: Checkpoint) -> None:
    """Refuse weights that are no network's by themselves, or whose values need a decoder of their own.

    Raises:
        CheckpointError: naming the tensors and the remedy.
    """
    groups = groups_of(checkpoint).groups
    for kind in (ADAPTER, QUANTISED):
        if slots := [slot for group in groups if group.kind is kind for slot in group.slots]:
            raise CheckpointError(f"{checkpoint.label}: cannot be run as a network: {sentence(kind, slots)}")


# Adapters' parameters as peft, loralib, kohya, LyCORIS, diffusers and SAMed name them, which also saves them by number
# in a file of their own (w_a_000, w_b_000): LoRA, DoRA, LoHa, LoKr, IA3, OFT, VeRA.
_ADAPTER = re.compile(
    r"(^|\.)(lora[ab]?|(\w+_)?lora_\w+|\w+_lora[ab]?|linear_[ab]_[qkv]|w_[ab]_\d+|(hada|lokr)_[wt]\d?\w*|ia3_l|b?oft_\w+|vera_\w+"
    r"|dora_scale|glora_\w+)(\.|$)",
    re.IGNORECASE,
)


def _adapters(checkpoint: Checkpoint) -> Iterator[tuple[Kind, list[str]]]:
    names = [name for name in checkpoint.tensors if _ADAPTER.search(name)]
    names += [name for factors in added_products(checkpoint.tensors) for name in factors if name not in names]
    for part in checkpoint.parts:
        if PurePosixPath(part.name).name.startswith(ADAPTER_FILE):
            names += [name for name in part.tensors if name not in names]
    if names:
        yield ADAPTER, names


def _quantised(checkpoint: Checkpoint) -> Iterator[tuple[Kind, list[str]]]:
    tensors, related = checkpoint.tensors, Related.of(checkpoint.tensors)
    coded = list(quantised_weights(tensors, related))
    yield from ((QUANTISED, names) for names in coded)
    known = {name for names in coded for name in names}
    yield from ((QUANTISER, names) for names in quantisers(tensors, related) if known.isdisjoint(names))


_PARAMETRISED = re.compile(r"^(.*parametrizations\.[^.]+)\.(.+)$")
_FACTOR = re.compile(r"^(.*\bweight\w*)_[gv]$")
_STORED = re.compile(r"(.+)_(?:orig|bar)|weight")  # a weight that another may be computed from
# With what, after its name or alone: singular vectors and values, or a mask.
_WITH = re.compile(r"_?(mask|s?[uv])\d*")


def _computed(checkpoint: Checkpoint) -> Iterator[tuple[Kind, list[str]]]:
    """Weights that a layer computes from several tensors at each call.

    A weight norm's factors have a product, which is merged. Spectral norm's `u` and `v` are the singular vectors of one
    weight: an average's are others, and its largest singular value is no longer 1, so no `u` and `v` give the merged
    weight back. A pruned weight is a product with a mask, and the average of two has neither's zeros. The average of
    two products of a low rank has a higher one, and factors of that rank have other averages.
    """
    tensors = checkpoint.tensors
    for factors in factorised_weights(tensors):
        if not any(map(_ADAPTER.search, factors)):
            yield COMPUTED, factors
    parametrised: dict[str, list[str]] = {}
    beside: dict[str, list[str]] = {}
    for name in tensors:
        beside.setdefault(name.rpartition(".")[0], []).append(name)
    for name in tensors:
        if found := _PARAMETRISED.match(name):
            parametrised.setdefault(found[1], []).append(name)
        elif (found := _FACTOR.match(name)) and name.endswith("_g") and f"{found[1]}_v" in tensors:
            yield _norm(checkpoint, name, f"{found[1]}_v")
        elif direction := _direction(name, tensors):
            yield COMPUTED, [name, direction]
        elif others := _computed_with(name, tensors, beside[name.rpartition(".")[0]]):
            yield COMPUTED, [name, *others]
    for stem, names in parametrised.items():
        if set(names) == {f"{stem}.original0", f"{stem}.original1"}:
            yield _norm(checkpoint, f"{stem}.original0", f"{stem}.original1")
        elif len(names) > 1:
            yield COMPUTED, names


def _direction(name: str, tensors: Mapping[str, TensorInfo]) -> str | None:
    """The direction of a weight of which a tensor is the length, under names of other code than torch's."""
    module, dot, leaf = name.rpartition(".")
    for other in {"g": ("v", "V"), "magnitude": ("direction",)}.get(leaf, ()):
        found = tensors.get(module + dot + other) if f"{module}{dot}weight" not in tensors else None
        if found and len(found.shape) > 1 and tensors[name].count in found.shape[:2]:
            return module + dot + other
    return None


def _computed_with(name: str, tensors: Mapping[str, TensorInfo], beside: Sequence[str]) -> list[str]:
    """The tensors of a module that one of its weights is used with; [] for a weight that is used as it is."""
    module, dot, leaf = name.rpartition(".")
    if (found := _STORED.fullmatch(leaf)) is None:
        return []
    stem, others = found[1] or "weight", []
    for other in beside:
        kind = _WITH.fullmatch(other[len(module + dot) :].removeprefix(stem))
        if kind and (found[1] or _fits(kind[1], name, other, tensors)):
            others.append(other)
    return others


def _fits(kind: str, weight: str, other: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """True if a tensor has the shape of a weight's mask, or as many elements as its singular vectors or value."""
    shape, count, own = tensors[weight].shape, tensors[weight].count, tensors[other].count
    if kind == "mask":
        return tensors[other].shape == shape
    counts = {"u": set(shape[:2]), "v": {count // side for side in shape[:2] if side}}
    return len(shape) > 1 and own in counts.get(kind, {1})


def _norm(checkpoint: Checkpoint, length: str, direction: str) -> tuple[Kind, list[str]]:
    lengths, directions = checkpoint.tensors[length].shape, checkpoint.tensors[direction].shape
    by_row = lengths[:1] == directions[:1] != () and all(size == 1 for size in lengths[1:])
    return WEIGHT_NORM if by_row else OTHER_NORM, [length, direction]


_EMBEDDING = re.compile(r"(^|\.)(shared|wte|embed_tokens|tok_embeddings|word_embeddings)\.weight$")
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out|predictions\.decoder)\.weight$")


def _ties(checkpoint: Checkpoint) -> Iterator[tuple[Kind, list[str]]]:
    """Floats that are one tensor under several names: the same bytes of a torch file, or tied by the configuration."""
    tensors = checkpoint.tensors
    readers = [part.reader for part in checkpoint.parts if isinstance(part.reader, TorchReader)]
    for reader in readers:
        for names in reader.ties:
            stored = [reader.tensors[name] for name in names]
            alike = len({(each.info.shape, each.strides) for each in stored}) == 1
            alike |= all(each.contiguous for each in stored)
            yield TIED if alike else OTHER_TIES, list(names)
    if not readers and _declares_ties(checkpoint.config):
        words = [name for name in tensors if _EMBEDDING.search(name) or _OUTPUT.search(name)]
        alike = len({(tensors[name].dtype, tensors[name].shape) for name in words}) == 1
        if alike and len(words) > 1 and any(map(_OUTPUT.search, words)):
            yield TIED, words


def _declares_ties(config: Mapping[str, object]) -> bool:
    inner = (config, *(value for value in config.values() if isinstance(value, Mapping)))
    return any(each.get("tie_word_embeddings") is True for each in inner)
