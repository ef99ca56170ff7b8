"""ResNet, the backbone of ADVENT, MinEnt, AdaptSegNet, MaxSquare, FADA, DIGA, GLC, CoNMix, CVRN and MIC's detectors.

Frozen BatchNorm (FADA, MIC's detectors) differs from trainable BatchNorm only in having no `num_batches_tracked`.
"""

from __future__ import annotations

from collections.abc import Callable

from hf_lwmm.layouts.forms import Shape
from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

# DeepLabV2's auxiliary classifier counts as a part of the backbone, since the last stage runs after it.
RESNET = Component(
    name="resnet",
    kind="backbone",
    title="ResNet",
    variants=(
        Variant("ResNet-18", (2, 2, 2, 2)),
        Variant("ResNet-34", (3, 4, 6, 3), 512),
        Variant("ResNet-50", (3, 4, 6, 3), 2048),
        Variant("ResNet-101", (3, 4, 23, 3)),
        Variant("ResNet-152", (3, 8, 36, 3)),
    ),
    width_slot="resnet.stage3.block0.downsample.conv.weight",
    outline="""
stem.conv
stem.bn
for s:
    for b:
        stage{s}.block{b}.conv1
        stage{s}.block{b}.bn1
        stage{s}.block{b}.conv2
        stage{s}.block{b}.bn2
        stage{s}.block{b}.conv3
        stage{s}.block{b}.bn3
        stage{s}.block{b}.downsample.conv
        stage{s}.block{b}.downsample.bn
    for i:
        stage{s}.aux.branch{i} (classes)
""",
)

STAGES = """
for s:
    for b:
        layer{s+1}.{b}.conv1 = stage{s}.block{b}.conv1
        layer{s+1}.{b}.bn1 = stage{s}.block{b}.bn1
        layer{s+1}.{b}.conv2 = stage{s}.block{b}.conv2
        layer{s+1}.{b}.bn2 = stage{s}.block{b}.bn2
        ? layer{s+1}.{b}.conv3 = stage{s}.block{b}.conv3
        ? layer{s+1}.{b}.bn3 = stage{s}.block{b}.bn3
        ? layer{s+1}.{b}.downsample.0 = stage{s}.block{b}.downsample.conv
        ? layer{s+1}.{b}.downsample.1 = stage{s}.block{b}.downsample.bn
        no layer{s+1}.{b}.se.fc1  # squeeze and excitation
        no layer{s+1}.{b}.se.conv  # ECA
layer4.{b}.conv1  # required, because HRNet has the names of a single stage
"""

_TABLE = f"""
conv1 = stem.conv
bn1 = stem.bn
{STAGES}
"""

RESNET_TORCHVISION = Layout(  # torchvision's detectors have the longer prefix
    name="resnet/torchvision",
    component=RESNET,
    prefixes=("", "backbone.body."),
    table=_TABLE,
    also=("timm", "advent", "minent", "adaptsegnet", "maxsquare", "conmix"),
)

# In AdaptSegNet's single-level model, layer5 is the main classifier; it is the auxiliary one only beside a layer6.
RESNET_DEEPLAB_MULTI = Layout(
    name="resnet/deeplab-multi",
    component=RESNET,
    also=("advent", "minent", "adaptsegnet", "maxsquare"),
    table=f"""{_TABLE}
for i:
    layer5.conv2d_list.{{i}} = stage2.aux.branch{{i}}
for i:
    layer6.conv2d_list.{{i}}
""",
)

RESNET_FADA = Layout(name="resnet/fada", component=RESNET, prefixes=("feature_extractor.backbone.",), table=_TABLE)

RESNET_BACKBONE = Layout(  # FADA's feature extractor in its own file, torchvision's segmentation models, mmseg
    name="resnet/backbone", component=RESNET, prefixes=("backbone.",), table=_TABLE
)

RESNET_GLC = Layout(name="resnet/glc", component=RESNET, prefixes=("backbone_layer.",), table=_TABLE)

RESNET_CONMIX_PARTS = Layout(name="resnet/conmix-parts", component=RESNET, prefixes=("netF::",), table=_TABLE)

RESNET_SMP = Layout(name="resnet/smp", component=RESNET, prefixes=("encoder.",), table=_TABLE)

RESNET_DIGA = Layout(
    name="resnet/diga",
    component=RESNET,
    table=f"""
layer0.0 = stem.conv
layer0.1 = stem.bn
{STAGES}
""",
)

RESNET_CVRN = Layout(  # CVRN's panoptic branches, which are built on UPSNet
    name="resnet/cvrn",
    component=RESNET,
    prefixes=("resnet_backbone.",),
    table="conv1.conv1 = stem.conv\nconv1.bn1 = stem.bn"
    + STAGES.replace("layer{s+1}.{b}", "res{s+2}.layers.{b}").replace("layer4.{b}", "res5.layers.{b}"),
)


def _has_no_regnets_stem(shape_of: Callable[[str], Shape]) -> bool:
    return shape_of("stem.conv.weight")[2:] != (3, 3)


RESNET_TRANSFORMERS = Layout(  # RegNetX has the same names
    name="resnet/transformers",
    component=RESNET,
    prefixes=("resnet.", ""),
    told_by=_has_no_regnets_stem,
    table="""
embedder.embedder.convolution = stem.conv
embedder.embedder.normalization = stem.bn
for s:
    for b:
        ? encoder.stages.{s}.layers.{b}.shortcut.convolution = stage{s}.block{b}.downsample.conv
        ? encoder.stages.{s}.layers.{b}.shortcut.normalization = stage{s}.block{b}.downsample.bn
        encoder.stages.{s}.layers.{b}.layer.0.convolution = stage{s}.block{b}.conv1
        encoder.stages.{s}.layers.{b}.layer.0.normalization = stage{s}.block{b}.bn1
        encoder.stages.{s}.layers.{b}.layer.1.convolution = stage{s}.block{b}.conv2
        encoder.stages.{s}.layers.{b}.layer.1.normalization = stage{s}.block{b}.bn2
        ? encoder.stages.{s}.layers.{b}.layer.2.convolution = stage{s}.block{b}.conv3
        ? encoder.stages.{s}.layers.{b}.layer.2.normalization = stage{s}.block{b}.bn3
""",
)

_MASKRCNN_STAGE = """
for b:
    ? STAGE.{b}.downsample.0 = SLOT.block{b}.downsample.conv
    ? STAGE.{b}.downsample.1 = SLOT.block{b}.downsample.bn
    STAGE.{b}.conv1 = SLOT.block{b}.conv1
    STAGE.{b}.bn1 = SLOT.block{b}.bn1
    STAGE.{b}.conv2 = SLOT.block{b}.conv2
    STAGE.{b}.bn2 = SLOT.block{b}.bn2
    STAGE.{b}.conv3 = SLOT.block{b}.conv3
    STAGE.{b}.bn3 = SLOT.block{b}.bn3
"""


def _maskrcnn(last_stage: str) -> str:
    stem = "backbone.body.stem.conv1 = stem.conv\nbackbone.body.stem.bn1 = stem.bn"
    stages = [*(f"backbone.body.layer{number}" for number in (1, 2, 3)), last_stage]
    return stem + "".join(
        _MASKRCNN_STAGE.replace("STAGE", name).replace("SLOT", f"stage{s}") for s, name in enumerate(stages)
    )


# maskrcnn-benchmark, on which MIC's detectors are built. Without a feature pyramid, the last stage is in the box head.
RESNET_MASKRCNN_C4 = Layout(
    name="resnet/maskrcnn-c4", component=RESNET, table=_maskrcnn("roi_heads.box.feature_extractor.head.layer4")
)
RESNET_MASKRCNN_FPN = Layout(name="resnet/maskrcnn-fpn", component=RESNET, table=_maskrcnn("backbone.body.layer4"))

IMAGENET_TORCHVISION = Layout(
    name="imagenet/resnet-torchvision",
    component=IMAGENET,
    beside=RESNET,
    table="fc = classifier",
    also=("torchvision", "timm"),
)

IMAGENET_TRANSFORMERS = Layout(
    name="imagenet/resnet-transformers",
    component=IMAGENET,
    beside=RESNET,
    table="classifier.1 = classifier",
    also=("transformers",),
)

LAYOUTS = (
    RESNET_TORCHVISION,
    RESNET_DEEPLAB_MULTI,
    RESNET_FADA,
    RESNET_BACKBONE,
    RESNET_GLC,
    RESNET_CONMIX_PARTS,
    RESNET_SMP,
    RESNET_DIGA,
    RESNET_CVRN,
    RESNET_TRANSFORMERS,
    RESNET_MASKRCNN_C4,
    RESNET_MASKRCNN_FPN,
)
HEADS = (IMAGENET_TORCHVISION, IMAGENET_TRANSFORMERS)
