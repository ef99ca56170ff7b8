"""Derive the fields of a network's configuration from the shapes of a checkpoint's slots, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_lwmm.errors import LayoutError
from hf_lwmm.labels import label_sets, normalise
from hf_lwmm.layouts import COMPONENTS, Shape, SlotMap, classes_of_rows

Fields = dict[str, Any]
DILATIONS = (1, 6, 12, 18)  # of DAFormer's head

# Fields of DeepLabV2 that cannot be read off a checkpoint's tensors, by system. `summed_branches`: AdaptSegNet's
# classifier returns inside its loop, so that only the first two of its branches count; MaxSquare took its code from
# there.
SYSTEM_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "advent": {},
    "minent": {},
    "adaptsegnet": {"summed_branches": 2},
    "maxsquare": {"summed_branches": 2},
    "fada": {"stride_in_1x1": False, "ceil_mode": False, "dilations": [[1, 1], [1, 1], [1, 2], [2, 4]]},
    "diga": {"head": "diga"},
}


def _require_parts(slot_map: SlotMap, components: Sequence[str], network: str) -> None:
    found = {match.layout.component.name for match in slot_map.matches}
    if lacking := [COMPONENTS[name].title for name in components if name not in found]:
        raise LayoutError(
            f"This is no {network} checkpoint: it has no {' and no '.join(lacking)} (found: {slot_map.architecture}). "
            "See what it holds with `hf-lwmm inspect`."
        )


def _backbone_fields(slot_map: SlotMap) -> Fields:
    """The fields of a `MitConfig` that follow from the shapes of a backbone's slots.

    Strides and attention heads leave no trace in shapes. As in every published MiT, a patch embedding with a k x k
    kernel is given the stride (k + 1) / 2, and an attention head the width of the first stage.
    """
    shapes = _shapes_of(slot_map)
    stages = max(_count(shapes, "mit.stage{}.embed.proj.weight"), 1)
    embeddings = [shapes[f"mit.stage{s}.embed.proj.weight"] for s in range(stages)]
    widths = [shape[0] for shape in embeddings]
    reductions = [shapes.get(f"mit.stage{s}.block0.attn.sr.weight", (0, 0, 1, 1)) for s in range(stages)]
    return {
        "num_channels": embeddings[0][1],
        "num_encoder_blocks": stages,
        "depths": [_count(shapes, f"mit.stage{s}.block{{}}.norm1.weight") for s in range(stages)],
        "hidden_sizes": widths,
        "num_attention_heads": _attention_heads(widths),
        "patch_sizes": [shape[2] for shape in embeddings],
        "strides": [(shape[2] + 1) // 2 for shape in embeddings],
        "sr_ratios": [shape[2] for shape in reductions],
        "mlp_ratios": [shapes[f"mit.stage{s}.block0.mlp.fc1.weight"][0] // widths[s] for s in range(stages)],
    }


def _attention_heads(widths: Sequence[int]) -> list[int]:
    """The heads of each stage, if all are as wide as the first stage."""
    if odd := [width for width in widths if width % widths[0]]:
        raise LayoutError(
            f"The widths {odd} of stages are not multiples of the first, {widths[0]}, as those of published MiTs are: "
            "how many attention heads there are is unknown, since they leave no trace in tensors. Put the model's "
            "config.json, which says it, beside the file, and name both: FOLDER/:FILE."
        )
    return [width // widths[0] for width in widths]


def stated_heads(slot_map: SlotMap, config: Mapping[str, Any]) -> Sequence[int] | None:
    """Return the attention heads that a configuration states, if they do not follow from the tensors of a MiT."""
    stated = config.get("num_attention_heads")
    if "mit.stage0.embed.proj.weight" not in slot_map.shapes or not isinstance(stated, list):
        return None
    try:
        follow = _attention_heads([slot_map.shapes[f"mit.stage{s}.embed.proj.weight"][0] for s in range(len(stated))])
    except (ArithmeticError, LookupError, LayoutError):
        return stated
    return None if stated == follow else stated


def _label_fields(slot_map: SlotMap, classifier: str, classes: Sequence[str]) -> Fields:
    rows = classes_of_rows(classifier, _shapes_of(slot_map)[classifier][0])
    if rows != len(classes):
        raise LayoutError(
            f"The checkpoint has {rows} classes, but {len(classes)} labels were given "
            f"({', '.join(classes[:3])}, ...). Name its own label set."
        )
    names = dict(enumerate(classes))
    return {"id2label": names, "label2id": {name: row for row, name in names.items()}}


class _Shapes(dict[str, Shape]):
    """Shapes by slot; a missing slot is an error that names it."""

    def __missing__(self, slot: str) -> Shape:
        raise LayoutError(f"The checkpoint has no {slot}.")


def faster_rcnn_fields(slot_map: SlotMap, classes: Sequence[str]) -> Fields:
    """Return the fields of the configuration of a checkpoint's network, with the published thresholds.

    Args:
        slot_map: the checkpoint's slots.
        classes: names of the box classifier's rows but for the background's.

    Raises:
        LayoutError: saying what is missing, has another shape, or does not fit the classes.
    """
    _require_parts(slot_map, ("resnet", "faster_rcnn"), "Faster R-CNN")
    shapes = _shapes_of(slot_map)
    labels = _label_fields(slot_map, "faster_rcnn.box.classifier.weight", classes)
    return {
        "fpn_hidden_size": shapes["faster_rcnn.neck.lateral0.weight"][0],
        "box_hidden_size": shapes["faster_rcnn.box.fc0.weight"][0],
        **_resnet_fields(slot_map),
        **labels,
    }


def _shapes_of(slot_map: SlotMap) -> Mapping[str, Shape]:
    return _Shapes(slot_map.shapes)


def _count(shapes: Mapping[str, Shape], slot: str) -> int:
    """The number of consecutive slots `slot.format(0)`, `slot.format(1)`, ..."""
    number = 0
    while slot.format(number) in shapes:
        number += 1
    return number


def _head_fields(slot_map: SlotMap) -> Fields:
    """The fields of a `DAFormerConfig` that follow from shapes of the head's slots; these show no dilations."""
    shapes = _shapes_of(slot_map)
    channels, joined = shapes["daformer.bottleneck.conv.weight"][:2]
    if joined != len(DILATIONS) * channels:
        raise LayoutError(
            f"The head joins {joined // channels} branches; DAFormer's has {len(DILATIONS)}, with the dilations "
            f"{', '.join(map(str, DILATIONS))}. Other dilations cannot be read off a checkpoint."
        )
    return {"embedding_size": shapes["daformer.embed0.proj.weight"][0], "decoder_hidden_size": channels}


def daformer_fields(slot_map: SlotMap, classes: Sequence[str]) -> Fields:
    """Return the fields of the configuration of a checkpoint's network.

    Args:
        slot_map: the checkpoint's slots.
        classes: names of the classifier's rows.

    Raises:
        LayoutError: saying what is missing, has another shape, or does not fit the classes.
    """
    _require_parts(slot_map, ("mit", "daformer"), "DAFormer")
    labels = _label_fields(slot_map, "daformer.classifier.weight", classes)
    return {**_backbone_fields(slot_map), **_head_fields(slot_map), **labels}


def hrda_fields(slot_map: SlotMap, classes: Sequence[str]) -> Fields:
    """Return the fields of the configuration of a checkpoint's network, with the published scales and crops.

    Args:
        slot_map: the checkpoint's slots.
        classes: names of the classifier's rows.

    Raises:
        LayoutError: saying what is missing, has another shape, or does not fit the classes.
    """
    _require_parts(slot_map, ("mit", "daformer", "scale_attention"), "HRDA")
    labels = _label_fields(slot_map, "daformer.classifier.weight", classes)
    width = _shapes_of(slot_map)["scale_attention.fuse.conv.weight"][0]
    return {**_backbone_fields(slot_map), **_head_fields(slot_map), **labels, "attention_hidden_size": width}


def edaps_fields(slot_map: SlotMap, classes: Sequence[str]) -> Fields:
    """Return the fields of the configuration of a checkpoint's network, with the published thresholds.

    The rows of the box classifier are the countable classes of Cityscapes.

    Args:
        slot_map: the checkpoint's slots.
        classes: names of the classifier's rows.

    Raises:
        LayoutError: saying what is missing, has another shape, or does not fit the classes.
    """
    _require_parts(slot_map, ("mit", "daformer"), "EDAPS")
    shapes = _shapes_of(slot_map)
    fields: Fields = {"instance_decoder": "centers"}
    if "edaps_center.center.weight" not in shapes:
        _require_parts(slot_map, ("edaps_instance",), "EDAPS")
        fields = {
            "instance_decoder": "boxes",
            "fpn_hidden_size": shapes["edaps_instance.neck.lateral0.weight"][0],
            "box_hidden_size": shapes["edaps_instance.box.fc0.weight"][0],
            "mask_hidden_size": shapes["edaps_instance.mask.conv0.weight"][0],
            "mask_depth": _count(shapes, "edaps_instance.mask.conv{}.weight"),
        }
    labels = _label_fields(slot_map, "daformer.classifier.weight", classes)
    ids = _thing_ids(classes, label_sets()["cityscapes19"].things)
    return {**fields, **_backbone_fields(slot_map), **_head_fields(slot_map), **labels, "thing_ids": ids}


def _thing_ids(classes: Sequence[str], things: Sequence[str]) -> list[int]:
    rows = {normalise(name): row for row, name in enumerate(classes)}
    if unknown := [name for name in things if normalise(name) not in rows]:
        raise LayoutError(
            f"The countable classes {', '.join(unknown)} are not among the labels; --labels names the classes."
        )
    return [rows[normalise(name)] for name in things]


def segformer_mmseg_fields(slot_map: SlotMap, classes: Sequence[str]) -> Fields:
    """Return the fields of the configuration of a checkpoint's network.

    Args:
        slot_map: the checkpoint's slots.
        classes: names of the classifier's rows.

    Raises:
        LayoutError: saying what is missing, has another shape, or does not fit the classes.
    """
    _require_parts(slot_map, ("mit", "segformer_mmseg"), "MMSegmentation SegFormer")
    labels = _label_fields(slot_map, "segformer_mmseg.classifier.weight", classes)
    width = _shapes_of(slot_map)["segformer_mmseg.fuse.conv.weight"][0]
    return {**_backbone_fields(slot_map), "decoder_hidden_size": width, **labels}


def segformer_fields(slot_map: SlotMap, classes: Sequence[str]) -> Fields:
    """Return the fields of the configuration of a checkpoint's network, given the names of the classifier's rows.

    Raises:
        LayoutError: if a tensor is missing, or the classifier has another number of rows.
    """
    labels = _label_fields(slot_map, "segformer.classifier.weight", classes)
    width = _shapes_of(slot_map)["segformer.proj0.weight"][0]
    return {**_backbone_fields(slot_map), "decoder_hidden_size": width, **labels}


def _resnet_fields(slot_map: SlotMap) -> Fields:
    shapes = _shapes_of(slot_map)
    depths = [_count(shapes, f"resnet.stage{s}.block{{}}.conv1.weight") for s in range(4)]
    kind = "bottleneck" if "resnet.stage0.block0.conv3.weight" in shapes else "basic"
    return {"depths": depths, "block": kind, "width": shapes["resnet.stem.conv.weight"][0]}


def deeplab_fields(slot_map: SlotMap, classes: Sequence[str], system: str | None) -> Fields:
    """Return the fields of the configuration of a checkpoint's network.

    Args:
        slot_map: the checkpoint's slots.
        classes: names of the classifier's rows.
        system: the code base that it comes from, one of `SYSTEM_FIELDS`; a probable one if None.

    Raises:
        LayoutError: for a system with another head, or another number of classes.
    """
    shapes = _shapes_of(slot_map)
    system = system or probable_system(slot_map)
    fields: Fields = {"system": system, **SYSTEM_FIELDS[system]}
    diga = "diga.classifier.weight" in shapes
    if diga != (fields.get("head") == "diga"):
        raise LayoutError(f"--system {system} has another head than this checkpoint ({slot_map.architecture}).")
    labels = _label_fields(slot_map, "diga.classifier.weight" if diga else "deeplab.branch0.weight", classes)
    if "vgg.stage0.conv0.weight" in shapes:
        return {"backbone": "vgg16", **fields, **labels}
    if system == "fada" and not any(slot.endswith("num_batches_tracked") for slot in shapes):
        fields["batch_norm_eps"] = 0.0  # FADA's frozen batch normalisation, which counts nothing
    multi = "resnet.stage2.aux.branch0.weight" in shapes
    return {"multi_level": multi, **_resnet_fields(slot_map), **fields, **labels}


def probable_system(slot_map: SlotMap) -> str:
    """Return the system whose code writes such names; of several it is ADVENT, whose classifier uses all it stores."""
    names = {match.layout.name for match in slot_map.matches}
    if "diga/diga" in names:
        return "diga"
    if "deeplab/classifier" in names:
        return "adaptsegnet" if "vgg/adaptsegnet-vgg" in names else "fada"
    return "adaptsegnet" if "deeplab/single-layer5" in names else "advent"


def bottleneck_fields(slot_map: SlotMap, classes: Sequence[str]) -> Fields:
    """Return the fields of the configuration of a checkpoint's network, given the names of the classifier's rows.

    Raises:
        LayoutError: if a tensor is missing, or the classifier has another number of rows.
    """
    shapes = _shapes_of(slot_map)
    labels = _label_fields(slot_map, "bottleneck.classifier.weight_v", classes)
    size = shapes["bottleneck.bottleneck.weight"][0]
    normalised = "bottleneck.bn.weight" in shapes
    return {"bottleneck_size": size, "normalised": normalised, **_resnet_fields(slot_map), **labels}
