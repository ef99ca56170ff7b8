"""Describe the network of a merge as a repository that transformers loads in one line, from headers and without torch.

Networks that transformers lacks travel as code, which runs with `trust_remote_code=True`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from hf_lwmm.checkpoints.checkpoint import Checkpoint, classifier_rows, main_float_type
from hf_lwmm.checkpoints.companions import CONFIG, PROCESSORS, placeholders
from hf_lwmm.checkpoints.inert_pickle import shown
from hf_lwmm.describing.image_settings import image_settings
from hf_lwmm.describing.kinds import KINDS, Kind, kind_of
from hf_lwmm.describing.network_description import IMAGENET_MEAN, IMAGENET_STD
from hf_lwmm.describing.network_fields import Fields
from hf_lwmm.describing.network_slots import network_slots, some, unfit
from hf_lwmm.describing.stated_names import renaming
from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import LAYOUTS, SlotMap, place_of
from hf_lwmm.planning.conversion import Conversion, plan_conversion
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.tensor_recipes import Segment, TensorRecipe, tensor_recipes

_PROCESSOR = "SegmentationImageProcessor"
_PROCESSOR_MODULE = "image_processing"
_SEGFORMER_PROCESSOR = {
    "image_processor_type": "SegformerImageProcessor",
    "do_resize": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
}
_RELATIVE = re.compile(r"^from \.(\w+) import", re.MULTILINE)


@dataclass(frozen=True)
class HostedNetwork:
    """The additions that make a merge a repository that transformers loads.

    `kind` is None for a network of transformers that the anchor's config.json alone describes. `entries` are added to
    the settings files of the anchor, by file, and are all of a file that the anchor lacks. `conversion` gives the
    anchor's tensors the network's names; None where they have them. `system` is the code base of a DeepLabV2, which its
    configuration rests on. `notes` say what was assumed and left out.
    """

    kind: Kind | None
    entries: Mapping[str, Mapping[str, Any]]
    conversion: Conversion | None = field(default=None, repr=False)
    system: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def code(self) -> Mapping[str, str]:
        """The files of code that travel with the network: their text by name."""
        wanted = [self.kind.module, _PROCESSOR_MODULE] if self.kind and self.kind.module else []
        found: dict[str, str] = {}
        while wanted:
            name = wanted.pop()
            if f"{name}.py" not in found:
                text = files("hf_lwmm").joinpath(f"networks/{name}.py").read_text(encoding="utf-8")
                found[f"{name}.py"] = text
                wanted += _RELATIVE.findall(text)
        return found

    @property
    def names(self) -> Mapping[str, str]:
        """The names that tensors of the anchor get, of those that stay whole."""
        if self.conversion is None:
            return {}
        stored = self.conversion.source.tensors
        terms = {each.name: each.segments[0].terms[0].tensor for each in self.conversion.tensors}
        sizes = {each.name: each.info.count for each in self.conversion.tensors}
        return {tensor: name for name, tensor in terms.items() if stored[tensor].count == sizes[name]}

    def tensors(self, plan: MergePlan) -> tuple[TensorRecipe, ...]:
        """Return the recipes of a plan's merged tensors under the network's names; they are cut and stacked anew."""
        assert self.conversion is not None
        merged = {recipe.name: recipe for recipe in tensor_recipes(plan)}
        return tuple(_restacked(each, merged) for each in self.conversion.tensors)


@dataclass(frozen=True)
class NotHosted:
    """The reason why a merge is not made a repository that transformers loads, though its network is known."""

    notes: tuple[str, ...]

    @classmethod
    def of(cls, anchor: Checkpoint, kind: Kind, why: str) -> NotHosted:
        """Return the reason as a note, from a sentence that says why the anchor makes no network of a kind."""
        return cls(
            (
                f"{anchor.label}: keeps its own names and files, since transformers would not load it as "
                f"{kind.name}: {why}",
            )
        )


def host(plan: MergePlan, system: str | None) -> HostedNetwork | NotHosted | None:
    """Return what makes a merge a repository that transformers loads; None where nothing is known or lacking.

    That is of anchors without a config.json, if there is a network for them, of networks of this package whose code
    does not travel with the anchor, and of tensors that have other names than the class of the config.json reads.

    Raises:
        LayoutError: for a `system` that the anchor cannot be of, and for tensors that cannot get the names that the
            class of the config.json reads.
    """
    anchor, kind = plan.anchor, kind_of(plan.anchor.slot_map)
    if anchor.config:
        return _of_config(anchor, kind, system)
    if incomplete := _incomplete(anchor.slot_map):
        larger, parts = incomplete
        return NotHosted.of(anchor, larger, f"it has parts of one ({some(parts)}), though not all.")
    return _of_slots(plan, kind, system) if kind else None


def _of_config(anchor: Checkpoint, kind: Kind | None, system: str | None) -> HostedNetwork | None:
    """The network that the anchor's config.json describes, with the settings that it lacks."""
    config, conversion = anchor.config, renaming(anchor, kind)
    own = kind is not None and kind.model_type == config.get("model_type")
    entries: dict[str, Mapping[str, Any]] = {}
    if kind is not None and own and kind.module and "auto_map" not in config:
        entries = {CONFIG: {"auto_map": kind.auto_map}, **_processor(anchor, kind, {})}
    elif conversion is None:
        return None
    if conversion is None:
        return HostedNetwork(kind, entries, system=system)
    if own and kind is not None and anchor.processor is None:
        entries = {**_processor(anchor, kind, {}), **entries}
    if own and kind is not None and "architectures" not in config:
        entries[CONFIG] = {**entries.get(CONFIG, {}), "architectures": [kind.model]}
    first = conversion.tensors[0].segments[0].terms[0].tensor
    named = (
        f"{anchor.label}: its tensors ({shown(first)}, ...) get the names that the network of its "
        f"config.json has ({conversion.tensors[0].name}, ...)"
    )
    return HostedNetwork(kind if own else None, entries, conversion, system, (named, *conversion.notes))


def _of_slots(plan: MergePlan, kind: Kind, system: str | None) -> HostedNetwork | NotHosted:
    anchor = plan.anchor
    rows = classifier_rows(anchor.slot_map)
    classes = anchor.classes or placeholders(rows or 0)
    try:
        fields = kind.fields(anchor.slot_map, classes, system)
        conversion = plan_conversion(anchor, kind.layouts)
        faults = unfit(network_slots(kind.model_type, fields), conversion.kept_shapes)
    except LayoutError as error:
        if system is not None:
            raise LayoutError(f"{anchor.label}: {error}") from None
        return NotHosted.of(anchor, kind, str(error).removeprefix(f"{anchor.label}: "))
    except (ArithmeticError, LookupError, ValueError):  # shapes of no, or too few, dimensions
        return NotHosted.of(anchor, kind, "its shapes make none.")
    if faults:
        return NotHosted.of(anchor, kind, f"{faults}.")
    assumed = fields.get("system") if system is None else None
    notes = [f"{anchor.label}: assumed to be {assumed}'s; --system chooses another"] if assumed else []
    auto_map = {"auto_map": kind.auto_map} if kind.auto_map else {}
    config = {
        "architectures": [kind.model],
        **auto_map,
        "model_type": kind.model_type,
        "dtype": plan.knobs.dtype or main_float_type(anchor),
        **fields,
    }
    entries = {CONFIG: config, **_processor(anchor, kind, fields)}
    return HostedNetwork(kind, entries, conversion, fields.get("system"), (*notes, *conversion.notes))


def _incomplete(slot_map: SlotMap) -> tuple[Kind, list[str]] | None:
    """A kind of network of whose further parts a checkpoint has some tensors, though not all, and these tensors.

    Those of a checkpoint of no kind are all in it: single names, such as that of a classifier, are other heads', too.
    """
    found = {match.layout.component.name for match in slot_map.matches}
    unknown = [slot for slot in slot_map.slots if place_of(slot) is None]
    for kind in (each for each in KINDS if found < set(each.needs)):
        further = [layout for layout in LAYOUTS if layout.component.name in set(kind.needs) - found]
        named = [(layout, prefix) for layout in further for prefix in layout.prefixes]
        parts = [s for s in unknown if any(s.startswith(p) and layout.slots(s.removeprefix(p)) for layout, p in named)]
        if parts and (len(parts) == len(unknown) or kind_of(slot_map) is not None):
            return kind, parts
    return None


def _processor(anchor: Checkpoint, kind: Kind, fields: Fields) -> Mapping[str, Mapping[str, Any]]:
    """The entries of the image processor's settings, by file."""
    auto_map = {"auto_map": {"AutoImageProcessor": f"{_PROCESSOR_MODULE}.{_PROCESSOR}"}}
    if anchor.processor is not None:
        same = anchor.processor.kind == _PROCESSOR and anchor.processor.file.endswith(PROCESSORS[1])
        return {PROCESSORS[1]: auto_map} if same else {}
    if not kind.module:
        return {PROCESSORS[1]: _SEGFORMER_PROCESSOR}
    config = fields or anchor.config
    settings = image_settings(kind.model_type, str(config.get("system", "")), str(config.get("backbone", "")))
    return {PROCESSORS[1]: {"image_processor_type": _PROCESSOR, **settings, **auto_map}}


def _restacked(tensor: TensorRecipe, merged: Mapping[str, TensorRecipe]) -> TensorRecipe:
    """The recipe of a tensor that is cut or stacked from pieces of merged tensors."""
    segments: list[Segment] = []
    dtype = tensor.info.dtype
    variance = all(merged[piece.terms[0].tensor].variance for piece in tensor.segments)
    for piece in tensor.segments:
        term = piece.terms[0]
        recipe, end = merged[term.tensor], term.start + piece.count
        dtype = recipe.info.dtype
        inside = [each for each in recipe.segments if term.start <= each.start and each.start + each.count <= end]
        assert sum(each.count for each in inside) == piece.count, "segments end where slots do"
        segments += [replace(each, start=piece.start + each.start - term.start) for each in inside]
    return replace(tensor, info=replace(tensor.info, dtype=dtype), segments=tuple(segments), variance=variance)
