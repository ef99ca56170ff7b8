"""HRNet: timm, MMSegmentation 1.x and Microsoft's code name it alike."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

_WIDTHS = (18, 30, 32, 40, 44, 48, 64)

# Stage 0 is that of a ResNet. A later stage begins with a transition to one more branch, each of half the resolution of
# the one before; its modules end by fusing all branches j into each branch i. Image classifiers go on behind them.
HRNET = Component(
    name="hrnet",
    kind="backbone",
    title="HRNet",
    variants=(
        *(Variant(f"HRNet-W{width}", (4,), width) for width in _WIDTHS),
        Variant("HRNet-W18-Small", (1,)),
        Variant("HRNet-W18-Small-v2", (2,)),
    ),
    width_slot="hrnet.stage3.module0.branch0.block0.conv1.weight",
    outline="""
stem.conv1
stem.bn1
stem.conv2
stem.bn2
for b:
    stage0.block{b}.conv1
    stage0.block{b}.bn1
    stage0.block{b}.conv2
    stage0.block{b}.bn2
    stage0.block{b}.conv3
    stage0.block{b}.bn3
    stage0.block{b}.downsample.conv
    stage0.block{b}.downsample.bn
for s:
    for i:
        stage{s}.transition{i}.conv
        stage{s}.transition{i}.bn
        for j:
            stage{s}.transition{i}.down{j}.conv
            stage{s}.transition{i}.down{j}.bn
    for m:
        for i:
            for b:
                stage{s}.module{m}.branch{i}.block{b}.conv1
                stage{s}.module{m}.branch{i}.block{b}.bn1
                stage{s}.module{m}.branch{i}.block{b}.conv2
                stage{s}.module{m}.branch{i}.block{b}.bn2
        for i:
            for j:
                stage{s}.module{m}.fuse{i}.from{j}.conv
                stage{s}.module{m}.fuse{i}.from{j}.bn
                for k:
                    stage{s}.module{m}.fuse{i}.from{j}.down{k}.conv
                    stage{s}.module{m}.fuse{i}.from{j}.down{k}.bn
for b:
    increase0.block{b}.conv1
    increase0.block{b}.bn1
    increase0.block{b}.conv2
    increase0.block{b}.bn2
    increase0.block{b}.conv3
    increase0.block{b}.bn3
    increase0.block{b}.downsample.conv
    increase0.block{b}.downsample.bn
for i:
    for b:
        increase{i+1}.block{b}.conv1
        increase{i+1}.block{b}.bn1
        increase{i+1}.block{b}.conv2
        increase{i+1}.block{b}.bn2
        increase{i+1}.block{b}.conv3
        increase{i+1}.block{b}.bn3
        increase{i+1}.block{b}.downsample.conv
        increase{i+1}.block{b}.downsample.bn
    down{i}.conv
    down{i}.bn
final.conv
final.bn
""",
)

HRNET_TIMM = Layout(
    name="hrnet/timm",
    component=HRNET,
    prefixes=("", "backbone.", "encoder.model.", "model."),
    also=("mmseg", "microsoft"),
    table="""
conv1 = stem.conv1
bn1 = stem.bn1
conv2 = stem.conv2
bn2 = stem.bn2
for b:
    layer1.{b}.conv1 = stage0.block{b}.conv1
    layer1.{b}.bn1 = stage0.block{b}.bn1
    layer1.{b}.conv2 = stage0.block{b}.conv2
    layer1.{b}.bn2 = stage0.block{b}.bn2
    layer1.{b}.conv3 = stage0.block{b}.conv3
    layer1.{b}.bn3 = stage0.block{b}.bn3
    layer1.{b}.downsample.0 = stage0.block{b}.downsample.conv
    layer1.{b}.downsample.1 = stage0.block{b}.downsample.bn
for s:
    for i:
        ? transition{s+1}.{i}.0 = stage{s+1}.transition{i}.conv
        ? transition{s+1}.{i}.1 = stage{s+1}.transition{i}.bn
        for j:
            ? transition{s+1}.{i}.{j}.0 = stage{s+1}.transition{i}.down{j}.conv
            ? transition{s+1}.{i}.{j}.1 = stage{s+1}.transition{i}.down{j}.bn
    for m:
        for i:
            for b:
                stage{s+2}.{m}.branches.{i}.{b}.conv1 = stage{s+1}.module{m}.branch{i}.block{b}.conv1
                stage{s+2}.{m}.branches.{i}.{b}.bn1 = stage{s+1}.module{m}.branch{i}.block{b}.bn1
                stage{s+2}.{m}.branches.{i}.{b}.conv2 = stage{s+1}.module{m}.branch{i}.block{b}.conv2
                stage{s+2}.{m}.branches.{i}.{b}.bn2 = stage{s+1}.module{m}.branch{i}.block{b}.bn2
        for i:
            for j:
                stage{s+2}.{m}.fuse_layers.{i}.{j}.0 = stage{s+1}.module{m}.fuse{i}.from{j}.conv
                stage{s+2}.{m}.fuse_layers.{i}.{j}.1 = stage{s+1}.module{m}.fuse{i}.from{j}.bn
                for k:
                    stage{s+2}.{m}.fuse_layers.{i}.{j}.{k}.0 = stage{s+1}.module{m}.fuse{i}.from{j}.down{k}.conv
                    stage{s+2}.{m}.fuse_layers.{i}.{j}.{k}.1 = stage{s+1}.module{m}.fuse{i}.from{j}.down{k}.bn
for i:
    for b:
        ? incre_modules.{i}.{b}.conv1 = increase{i}.block{b}.conv1
        ? incre_modules.{i}.{b}.bn1 = increase{i}.block{b}.bn1
        ? incre_modules.{i}.{b}.conv2 = increase{i}.block{b}.conv2
        ? incre_modules.{i}.{b}.bn2 = increase{i}.block{b}.bn2
        ? incre_modules.{i}.{b}.conv3 = increase{i}.block{b}.conv3
        ? incre_modules.{i}.{b}.bn3 = increase{i}.block{b}.bn3
        ? incre_modules.{i}.{b}.downsample.0 = increase{i}.block{b}.downsample.conv
        ? incre_modules.{i}.{b}.downsample.1 = increase{i}.block{b}.downsample.bn
for i:
    ? downsamp_modules.{i}.0 = down{i}.conv
    ? downsamp_modules.{i}.1 = down{i}.bn
? final_layer.0 = final.conv
? final_layer.1 = final.bn
""",
)

IMAGENET_TIMM = Layout(
    name="imagenet/hrnet-timm",
    component=IMAGENET,
    beside=HRNET,
    table="classifier = classifier",
    also=("timm", "microsoft"),
)

LAYOUTS = (HRNET_TIMM,)
HEADS = (IMAGENET_TIMM,)
