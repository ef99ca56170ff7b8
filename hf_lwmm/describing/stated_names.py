"""Give a checkpoint's tensors the names that the class of its config.json reads, where they have another code base's.

transformers passes over tensors of other names, and fills its network at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from hf_lwmm.checkpoints.checkpoint import Checkpoint, classifier_rows
from hf_lwmm.checkpoints.companions import placeholders
from hf_lwmm.checkpoints.hosted import hosted_by
from hf_lwmm.describing.kinds import KINDS, Kind
from hf_lwmm.describing.libraries import library_of
from hf_lwmm.describing.network_fields import Fields
from hf_lwmm.describing.network_slots import network_slots, unfit
from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import LAYOUTS, Component, registration_order
from hf_lwmm.planning.conversion import Conversion, plan_conversion

_TRANSFORMERS = "transformers"  # also how the names of other code bases begin that are its, such as those in memory


def renaming(anchor: Checkpoint, kind: Kind | None) -> Conversion | None:
    """Return how tensors get the names that the class of the config.json beside them reads; None if they have them.

    None, too, where nothing is known of the class.

    Args:
        anchor: a checkpoint with a config.json.
        kind: the kind of network that its slots make, None if there is none.

    Raises:
        LayoutError: if they cannot be renamed, or are not of the network that the config.json describes.
    """
    stated = next((each for each in KINDS if each.model_type == anchor.config.get("model_type")), None)
    foreign = foreign_parts(anchor)
    ours = stated is not None and stated.module
    if kind is not None and stated is not None and (foreign or ours):
        if kind.model_type != stated.model_type:
            _refuse(anchor, f"they make a {kind.name}")
        return _of_kind(anchor, kind)
    if not foreign:
        return None
    model_type, backbone = str(anchor.config["model_type"]), anchor.slot_map.backbone
    if backbone is None or not _has_itself(model_type, backbone):
        _refuse(anchor, f"how it names its {' and '.join(foreign)} is not known here")
    try:
        conversion = plan_conversion(anchor, _TRANSFORMERS)
        if not any(tensor.name.startswith(f"{model_type}.") for tensor in conversion.tensors):
            raise LayoutError(f"they would be those of {conversion.layout}")
        return _renamed(anchor, conversion)
    except LayoutError as error:
        _refuse(anchor, _why(anchor, error))


def foreign_parts(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the parts of a network, in words, that are named otherwise than by the class of its config.json.

    There are none for classes of other code than transformers'. A class of transformers that has the network of another
    code base within it, such as a detector with torchvision's ResNet, has it under a prefix of its own.
    """
    config, hosted = checkpoint.config, hosted_by(checkpoint.config)
    known = hosted is None or bool(hosted.kind)
    if "model_type" not in config or "auto_map" in config or library_of(config) is not None or not known:
        return ()
    return tuple(
        match.layout.component.title
        for match in checkpoint.slot_map.matches
        if not _is_transformers(match.layout.code_bases)
        and (_has_itself(str(config["model_type"]), match.layout.component) or match.prefix in match.layout.prefixes)
    )


def _is_transformers(code_bases: Sequence[str]) -> bool:
    return any(each.startswith(_TRANSFORMERS) for each in code_bases)


def _has_itself(model_type: str, component: Component) -> bool:
    """True if transformers has a component as the network of this type, rather than within others."""
    own = [each for each in LAYOUTS if each.component is component and _is_transformers(each.code_bases)]
    return any(layout.prefixes[0].startswith(f"{model_type}.") for layout in own)


def _of_kind(anchor: Checkpoint, kind: Kind) -> Conversion | None:
    """The renaming for a network of a kind, if its config.json describes it, tensor by tensor."""
    try:
        conversion = _renamed(anchor, plan_conversion(anchor, kind.layouts))
        if conversion is None:
            return None
        faults = unfit(network_slots(kind.model_type, _fields(anchor, kind)), conversion.kept_shapes)
    except LayoutError as error:
        _refuse(anchor, _why(anchor, error))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        _refuse(anchor, f"it describes none ({error})")
    if faults:
        _refuse(anchor, f"they are not those of the network that it describes: {faults}")
    return conversion


def _fields(anchor: Checkpoint, kind: Kind) -> Fields:
    """The fields of the config.json, and those that follow from the tensors where it has none."""
    names = placeholders(classifier_rows(anchor.slot_map) or 0)
    try:
        derived = kind.fields(anchor.slot_map, names, None)
    except LayoutError:
        derived = {}
    return {**derived, **anchor.config, "id2label": dict(enumerate(names))}


def _renamed(anchor: Checkpoint, conversion: Conversion) -> Conversion | None:
    """The conversion, None if it leaves the tensors of the network as they are."""
    kept = {
        name for name, atoms in anchor.slot_map.atoms.items() if conversion.left_out.isdisjoint(a.slot for a in atoms)
    }
    if {tensor.name for tensor in conversion.tensors} == kept:
        return None
    if any(len(segment.terms) != 1 for tensor in conversion.tensors for segment in tensor.segments):
        raise LayoutError("Some of its tensors would be sums of those that are stored.")
    return conversion


def _why(anchor: Checkpoint, error: LayoutError) -> str:
    return str(error).removeprefix(f"{anchor.label}: ").rstrip(".")


def _refuse(anchor: Checkpoint, why: str) -> NoReturn:
    config = anchor.config
    name = next(iter(config.get("architectures") or ()), str(config.get("model_type")))
    first = registration_order(anchor.slot_map)[0]
    raise LayoutError(
        f"{anchor.label}: its config.json is that of {name}, which does not find its tensors by their names ({first}, "
        f"...) and would begin at random. They cannot be renamed: {why}. Take the config.json away, or keep the names "
        "with --format safetensors."
    )
