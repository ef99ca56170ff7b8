"""List the slots of a network and their shapes as its configuration makes them, without torch, and hold others to it.

BatchNorm's counters are left out: no forward pass reads them, and frozen layers have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hf_lwmm.describing.network_fields import DILATIONS, Fields
from hf_lwmm.layouts import Shape

Slots = dict[str, Shape]
_ATROUS = 4  # parallel convolutions of DeepLabV2's classifier
_ANCHORS = 3  # boxes that region proposals begin with at each place
_POOLED = 7  # side of the regions that a box head sees
_DIGA_SIZE, _DIGA_SQUEEZE = 256, 16
_VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of each stage


def network_slots(model_type: str, fields: Fields) -> Mapping[str, Shape]:
    """Return the shape of each slot of a network.

    Args:
        model_type: the network's, as its configuration has it.
        fields: those of its configuration that `network_fields` derives from a checkpoint.
    """
    return _NETWORKS[model_type](fields)


def misfits(needed: Mapping[str, Shape], given: Mapping[str, Shape]) -> str:
    """Return in words which slots of a network a checkpoint lacks or has in another shape; empty if it fits.

    Where some are missing, those that the checkpoint has and the network lacks may be the same under other names.

    BatchNorm's counters may be missing, as they are from frozen layers: no forward pass reads them.

    Args:
        needed: the network's slots.
        given: the checkpoint's.
    """
    missing = [slot for slot in needed if slot not in given and not is_counter(slot)]
    other = [f"{s} is {given[s]}, not {shape}" for s, shape in needed.items() if given.get(s, shape) != shape]
    unknown = surplus(needed, given) if missing else []
    faults = [f"{len(missing)} slots are missing ({some(missing)})"] if missing else []
    faults += [f"{len(unknown)} of its own are unknown there ({some(unknown)})"] if unknown else []
    faults += [f"{len(other)} have another shape ({some(other)})"] if other else []
    return "; ".join(faults)


def unfit(needed: Mapping[str, Shape], given: Mapping[str, Shape]) -> str:
    """Return in words why tensors are not all of a network's, and no others; empty if they are.

    Args:
        needed: the network's slots.
        given: those of the tensors.
    """
    if faults := misfits(needed, given):
        return faults
    if more := surplus(needed, given):
        return f"it lacks {len(more)} of the slots ({some(more)})"
    return ""


def surplus(needed: Mapping[str, Shape], given: Mapping[str, Shape]) -> list[str]:
    """Return the slots of a checkpoint that a network lacks, but for BatchNorm's counters."""
    return [slot for slot in given if slot not in needed and not is_counter(slot)]


def is_counter(slot: str) -> bool:
    """Return True for the slot of a BatchNorm's counter."""
    return slot.endswith("num_batches_tracked")


def some(items: Sequence[str]) -> str:
    """Return the first few names in words."""
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")


def _layer(slot: str, *shape: int, bias: bool = True) -> Slots:
    """A linear layer, a convolution or, of one dimension, a normalisation."""
    return {f"{slot}.weight": shape, **({f"{slot}.bias": shape[:1]} if bias else {})}


def _batch_norm(slot: str, width: int) -> Slots:
    return {**_layer(slot, width), **{f"{slot}.running_{name}": (width,) for name in ("mean", "var")}}


def _normalised(slot: str, outputs: int, inputs: int, kernel: int = 1) -> Slots:
    """A convolution without bias, and its batch normalisation."""
    conv = _layer(f"{slot}.conv", outputs, inputs, kernel, kernel, bias=False)
    return {**conv, **_batch_norm(f"{slot}.bn", outputs)}


def _joined(parts: Sequence[Slots]) -> Slots:
    return {slot: shape for part in parts for slot, shape in part.items()}


def _classes(fields: Fields) -> int:
    return len(fields["id2label"])


def _mit(fields: Fields) -> Slots:
    channels = fields["num_channels"]
    parts = []
    per_stage = zip(
        *(fields[name] for name in ("hidden_sizes", "depths", "patch_sizes", "sr_ratios", "mlp_ratios")), strict=True
    )
    for s, (width, depth, patch, reduction, ratio) in enumerate(per_stage):
        stage = f"mit.stage{s}"
        parts += [_layer(f"{stage}.embed.proj", width, channels, patch, patch), _layer(f"{stage}.embed.norm", width)]
        parts += [_mit_block(f"{stage}.block{b}", width, width * ratio, reduction) for b in range(depth)]
        parts.append(_layer(f"{stage}.norm", width))
        channels = width
    return _joined(parts)


def _mit_block(block: str, width: int, hidden: int, reduction: int) -> Slots:
    parts = [_layer(f"{block}.attn.{name}", width, width) for name in ("q", "k", "v", "proj")]
    if reduction > 1:
        parts += [_layer(f"{block}.attn.sr", width, width, reduction, reduction), _layer(f"{block}.attn.norm", width)]
    parts += [_layer(f"{block}.norm1", width), _layer(f"{block}.norm2", width)]
    parts += [_layer(f"{block}.mlp.fc1", hidden, width), _layer(f"{block}.mlp.dwconv", hidden, 1, 3, 3)]
    return _joined([*parts, _layer(f"{block}.mlp.fc2", width, hidden)])


def _projections(slots: str, fields: Fields, outputs: int) -> Slots:
    """A linear map of each stage's features; `slots` is such as `daformer.embed{}.proj`."""
    return _joined([_layer(slots.format(i), outputs, width) for i, width in enumerate(fields["hidden_sizes"])])


def _context_fusion(head: str, fields: Fields) -> Slots:
    """The embeddings of the stages and the dilated convolutions across them, as in DAFormer's head."""
    size, channels = fields["embedding_size"], fields["decoder_hidden_size"]
    joined = len(fields["hidden_sizes"]) * size
    parts = [_projections(head + ".embed{}.proj", fields, size)]
    for i, dilation in enumerate(DILATIONS):
        if dilation == 1:
            parts.append(_normalised(f"{head}.aspp{i}", channels, joined))
        else:
            parts.append(_layer(f"{head}.aspp{i}.depthwise.conv", joined, 1, 3, 3, bias=False))
            parts.append(_batch_norm(f"{head}.aspp{i}.depthwise.bn", joined))
            parts.append(_normalised(f"{head}.aspp{i}.pointwise", channels, joined))
    return _joined([*parts, _normalised(f"{head}.bottleneck", channels, len(DILATIONS) * channels, 3)])


def _daformer(fields: Fields) -> Slots:
    classifier = _layer("daformer.classifier", _classes(fields), fields["decoder_hidden_size"], 1, 1)
    return {**_mit(fields), **_context_fusion("daformer", fields), **classifier}


def _hrda(fields: Fields) -> Slots:
    head, width = "scale_attention", fields["attention_hidden_size"]
    return {
        **_daformer(fields),
        **_projections(head + ".embed{}.proj", fields, width),
        **_normalised(f"{head}.fuse", width, len(fields["hidden_sizes"]) * width),
        **_layer(f"{head}.classifier", _classes(fields), width, 1, 1),
    }


def _edaps(fields: Fields) -> Slots:
    if fields["instance_decoder"] == "centers":
        channels = fields["decoder_hidden_size"]
        outputs = [_layer("edaps_center.center", 1, channels, 1, 1), _layer("edaps_center.offset", 2, channels, 1, 1)]
        return _joined([_daformer(fields), _context_fusion("edaps_center", fields), *outputs])
    mask, things, channels = "edaps_instance.mask", len(fields["thing_ids"]), fields["mask_hidden_size"]
    width = fields["fpn_hidden_size"]
    parts = [_box_parts("edaps_instance", fields, fields["hidden_sizes"], things + 1, things)]
    inputs = [width, *[channels] * (fields["mask_depth"] - 1)]
    parts += [_layer(f"{mask}.conv{i}", channels, size, 3, 3) for i, size in enumerate(inputs)]
    parts += [
        _layer(f"{mask}.upsample", channels, channels, 2, 2),
        _layer(f"{mask}.classifier", things, channels, 1, 1),
    ]
    return _joined([_daformer(fields), *parts])


def _box_parts(head: str, fields: Fields, sizes: Sequence[int], rows: int, boxes: int) -> Slots:
    """The pyramid over the features of a backbone, the region proposals and the box head.

    Args:
        head: what the slots begin with.
        fields: those of the configuration.
        sizes: the channels of each stage's features.
        rows: the rows of the box classifier.
        boxes: the boxes that are predicted for a region, one for each class.
    """
    width, hidden = fields["fpn_hidden_size"], fields["box_hidden_size"]
    neck, rpn, box = (f"{head}.{part}" for part in ("neck", "rpn", "box"))
    parts = [_layer(f"{neck}.lateral{i}", width, size, 1, 1) for i, size in enumerate(sizes)]
    parts += [_layer(f"{neck}.fpn{i}", width, width, 3, 3) for i in range(len(sizes))]
    parts += [_layer(f"{rpn}.conv", width, width, 3, 3), _layer(f"{rpn}.classifier", _ANCHORS, width, 1, 1)]
    parts += [_layer(f"{rpn}.regression", 4 * _ANCHORS, width, 1, 1)]
    parts += [_layer(f"{box}.fc0", hidden, width * _POOLED**2), _layer(f"{box}.fc1", hidden, hidden)]
    return _joined([*parts, _layer(f"{box}.classifier", rows, hidden), _layer(f"{box}.regression", 4 * boxes, hidden)])


def _segformer(fields: Fields) -> Slots:
    width = fields["decoder_hidden_size"]
    return {
        **_mit(fields),
        **_projections("segformer.proj{}", fields, width),
        **_normalised("segformer.fuse", width, len(fields["hidden_sizes"]) * width),
        **_layer("segformer.classifier", _classes(fields), width, 1, 1),
    }


def _segformer_mmseg(fields: Fields) -> Slots:
    head, width, sizes = "segformer_mmseg", fields["decoder_hidden_size"], fields["hidden_sizes"]
    return {
        **_mit(fields),
        **_joined([_normalised(f"{head}.proj{i}", width, size) for i, size in enumerate(sizes)]),
        **_normalised(f"{head}.fuse", width, len(sizes) * width),
        **_layer(f"{head}.classifier", _classes(fields), width, 1, 1),
    }


def _resnet(fields: Fields) -> tuple[Slots, list[int]]:
    """The slots of a ResNet, and the channels of each stage's output."""
    width, expansion = fields["width"], 1 if fields["block"] == "basic" else 4
    parts = [_layer("resnet.stem.conv", width, 3, 7, 7, bias=False), _batch_norm("resnet.stem.bn", width)]
    channels = [width]
    for s, depth in enumerate(fields["depths"]):
        inner = width << s
        for b in range(depth):
            inputs = channels[-1] if b == 0 else inner * expansion
            parts.append(_resnet_block(f"resnet.stage{s}.block{b}", inputs, inner, expansion))
        channels.append(inner * expansion)
    return _joined(parts), channels[1:]


def _resnet_block(block: str, inputs: int, inner: int, expansion: int) -> Slots:
    kernels = (3, 3) if expansion == 1 else (1, 3, 1)
    outputs, parts, widths = inner * expansion, [], [inputs, *[inner] * (len(kernels) - 1), inner * expansion]
    for i, kernel in enumerate(kernels):
        parts.append(_layer(f"{block}.conv{i + 1}", widths[i + 1], widths[i], kernel, kernel, bias=False))
        parts.append(_batch_norm(f"{block}.bn{i + 1}", widths[i + 1]))
    return _joined([*parts, _normalised(f"{block}.downsample", outputs, inputs) if inputs != outputs else {}])


def _atrous(slots: str, classes: int, channels: int) -> Slots:
    return _joined([_layer(f"{slots}.branch{i}", classes, channels, 3, 3) for i in range(_ATROUS)])


def _deeplab(fields: Fields) -> Slots:
    classes = _classes(fields)
    if fields.get("backbone") == "vgg16":
        return {**_vgg(), **_atrous("deeplab", classes, 1024)}
    backbone, channels = _resnet(fields)
    auxiliary = _atrous("resnet.stage2.aux", classes, channels[2]) if fields["multi_level"] else {}
    if fields.get("head") == "diga":
        return {**backbone, **auxiliary, **_diga(classes, channels[3])}
    return {**backbone, **auxiliary, **_atrous("deeplab", classes, channels[3])}


def _diga(classes: int, channels: int) -> Slots:
    size, joined = _DIGA_SIZE, (1 + _ATROUS) * _DIGA_SIZE
    parts = []
    for i, kernel in enumerate((1, *[3] * _ATROUS)):
        parts += [_layer(f"diga.branch{i}.conv", size, channels, kernel, kernel), _layer(f"diga.branch{i}.norm", size)]
    squeezed = joined // _DIGA_SQUEEZE
    parts += [_layer("diga.squeeze.fc1", squeezed, joined), _layer("diga.squeeze.fc2", joined, squeezed)]
    parts += [_layer("diga.bottleneck.conv", size, joined, 3, 3), _layer("diga.bottleneck.norm", size)]
    return _joined([*parts, _layer("diga.classifier", classes, size, 1, 1, bias=False)])


def _vgg() -> Slots:
    parts, inputs = [], 3
    for s, (width, number) in enumerate(_VGG):
        for i in range(number):
            parts.append(_layer(f"vgg.stage{s}.conv{i}", width, inputs, 3, 3))
            inputs = width
    return _joined([*parts, _layer("vgg.dilated0", 1024, inputs, 3, 3), _layer("vgg.dilated1", 1024, 1024, 3, 3)])


def _bottleneck(fields: Fields) -> Slots:
    backbone, channels = _resnet(fields)
    size, classes, head = fields["bottleneck_size"], _classes(fields), "bottleneck.classifier"
    return {
        **backbone,
        **_layer("bottleneck.bottleneck", size, channels[-1]),
        **(_batch_norm("bottleneck.bn", size) if fields["normalised"] else {}),
        **{f"{head}.weight_g": (classes, 1), f"{head}.weight_v": (classes, size), f"{head}.bias": (classes,)},
    }


def _faster_rcnn(fields: Fields) -> Slots:
    backbone, channels = _resnet(fields)
    rows = 1 + _classes(fields)  # the first for the background
    return {**backbone, **_box_parts("faster_rcnn", fields, channels, rows, rows)}


_NETWORKS: Mapping[str, Callable[[Fields], Slots]] = {
    "hf-lwmm-edaps": _edaps,
    "hf-lwmm-hrda": _hrda,
    "hf-lwmm-daformer": _daformer,
    "hf-lwmm-segformer-mmseg": _segformer_mmseg,
    "segformer": _segformer,
    "hf-lwmm-deeplabv2": _deeplab,
    "hf-lwmm-bottleneck": _bottleneck,
    "hf-lwmm-faster-rcnn": _faster_rcnn,
}
