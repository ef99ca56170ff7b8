"""The kinds of network that are known here: how their checkpoints are recognised, and what transformers calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hf_lwmm.describing.network_fields import (
    Fields,
    bottleneck_fields,
    daformer_fields,
    deeplab_fields,
    edaps_fields,
    faster_rcnn_fields,
    hrda_fields,
    segformer_fields,
    segformer_mmseg_fields,
)
from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import SlotMap

FieldsOf = Callable[[SlotMap, Sequence[str], str | None], Fields]


@dataclass(frozen=True)
class Kind:
    """A kind of network: how its checkpoints are recognised, and how transformers names what it is made of.

    `needs` are the components of layouts that a checkpoint has. `layouts` are the code bases whose names the network's
    own tensors have, by component. `module` is the file of this package's networks that has the code, empty for a
    network of transformers.
    """

    name: str
    needs: tuple[str, ...]
    model_type: str
    model: str
    config: str
    module: str
    fields: FieldsOf = field(repr=False)
    layouts: Mapping[str, str]
    task: str = "semantic"

    @property
    def auto_map(self) -> dict[str, str]:
        """The classes of the code that travels, by the Auto class that loads each; empty for transformers' own."""
        if not self.module:
            return {}
        return {"AutoConfig": f"{self.module}.{self.config}", AUTO_CLASSES[self.task]: f"{self.module}.{self.model}"}


# The Auto class of transformers for the networks of a task.
AUTO_CLASSES: Mapping[str, str] = {
    "semantic": "AutoModelForSemanticSegmentation",
    "panoptic": "AutoModelForUniversalSegmentation",
    "classification": "AutoModelForImageClassification",
    "detection": "AutoModelForObjectDetection",
}


def _without_system(fields: Callable[[SlotMap, Sequence[str]], Fields]) -> FieldsOf:
    def with_system(slot_map: SlotMap, classes: Sequence[str], system: str | None) -> Fields:
        check_no_system(system)
        return fields(slot_map, classes)

    return with_system


def check_no_system(system: str | None) -> None:
    """Refuse a system for a network that is no DeepLabV2. Raises LayoutError."""
    if system is not None:
        raise LayoutError(f"--system {system} does not apply: the tensors alone decide which network this is.")


_DEEPLAB = ("hf-lwmm-deeplabv2", "DeepLabV2ForSemanticSegmentation", "DeepLabV2Config", "deeplab", deeplab_fields)
_EDAPS = ("hf-lwmm-edaps", "EDAPSForPanopticSegmentation", "EDAPSConfig", "edaps", _without_system(edaps_fields))
# A checkpoint is of the first kind whose components it all has, so that those with more parts come first.
KINDS: tuple[Kind, ...] = (
    Kind(
        "EDAPS", ("mit", "daformer", "edaps_instance"), *_EDAPS,
        {"mit": "transformers", "daformer": "daformer", "edaps_instance": "edaps"}, "panoptic",
    ),
    Kind(
        "EDAPS bottom-up", ("mit", "daformer", "edaps_center"), *_EDAPS,
        {"mit": "transformers", "daformer": "edaps-bottomup", "edaps_center": "edaps-bottomup"}, "panoptic",
    ),
    Kind(
        "HRDA", ("mit", "daformer", "scale_attention"), "hf-lwmm-hrda", "HRDAForSemanticSegmentation", "HRDAConfig",
        "hrda", _without_system(hrda_fields), {"mit": "transformers", "daformer": "hrda", "scale_attention": "hrda"},
    ),
    Kind(
        "DAFormer", ("mit", "daformer"), "hf-lwmm-daformer", "DAFormerForSemanticSegmentation", "DAFormerConfig",
        "daformer", _without_system(daformer_fields), {"mit": "transformers", "daformer": "daformer"},
    ),
    Kind(
        "MMSegmentation SegFormer", ("mit", "segformer_mmseg"), "hf-lwmm-segformer-mmseg",
        "SegformerMMSegForSemanticSegmentation", "SegformerMMSegConfig", "segformer_mmseg",
        _without_system(segformer_mmseg_fields), {"mit": "transformers", "segformer_mmseg": "mmseg"},
    ),
    Kind(
        "SegFormer", ("mit", "segformer"), "segformer", "SegformerForSemanticSegmentation", "SegformerConfig", "",
        _without_system(segformer_fields), {"mit": "transformers", "segformer": "transformers"},
    ),
    Kind("DeepLabV2", ("resnet", "deeplab"), *_DEEPLAB, {"resnet": "deeplab-multi", "deeplab": "layer6"}),
    Kind("DeepLabV2", ("resnet", "diga"), *_DEEPLAB, {"resnet": "deeplab-multi", "diga": "diga"}),
    Kind("DeepLabV2", ("vgg", "deeplab"), *_DEEPLAB, {"vgg": "adaptsegnet-vgg", "deeplab": "classifier"}),
    Kind(
        "bottleneck classifier", ("resnet", "bottleneck"), "hf-lwmm-bottleneck", "BottleneckForImageClassification",
        "BottleneckConfig", "bottleneck", _without_system(bottleneck_fields),
        {"resnet": "glc", "bottleneck": "glc"}, "classification",
    ),
    Kind(
        "Faster R-CNN", ("resnet", "faster_rcnn"), "hf-lwmm-faster-rcnn", "FasterRCNNForObjectDetection",
        "FasterRCNNConfig", "faster_rcnn", _without_system(faster_rcnn_fields),
        {"resnet": "backbone", "faster_rcnn": "hf-lwmm"}, "detection",
    ),
)  # fmt: skip


def kind_of(slot_map: SlotMap) -> Kind | None:
    """Return the kind of network that a checkpoint with these slots is of, None if there is none."""
    found = {match.layout.component.name for match in slot_map.matches}
    return next((kind for kind in KINDS if set(kind.needs) <= found), None)
