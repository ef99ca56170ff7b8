"""Image classifiers behind a backbone: the usual linear layer, and the bottleneck classifier of GLC and CoNMix."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout

# Its layouts are in the files of the backbones that it goes with.
IMAGENET = Component(
    name="imagenet",
    kind="head",
    title="image classifier",
    outline="""
classifier (classes)
""",
)

BOTTLENECK = Component(
    name="bottleneck",
    kind="head",
    title="bottleneck classifier",
    outline="""
bottleneck
bn
classifier (classes)
""",
)

BOTTLENECK_GLC = Layout(
    name="bottleneck/glc",
    component=BOTTLENECK,
    table="""
? feat_embed_layer.bn = bn
feat_embed_layer.bottleneck = bottleneck
class_layer.fc = classifier
""",
)

# CoNMix keeps its parts in three files. Joined into one model, their names have no prefixes.
BOTTLENECK_CONMIX = Layout(
    name="bottleneck/conmix",
    component=BOTTLENECK,
    table="""
bn = bn
bottleneck = bottleneck
fc = classifier
""",
)

BOTTLENECK_CONMIX_PARTS = Layout(
    name="bottleneck/conmix-parts",
    component=BOTTLENECK,
    table="""
netB::bn = bn
netB::bottleneck = bottleneck
netC::fc = classifier
""",
)

LAYOUTS = (BOTTLENECK_GLC, BOTTLENECK_CONMIX, BOTTLENECK_CONMIX_PARTS)
