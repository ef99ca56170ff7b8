"""SETR's heads in MMSegmentation 1.x: progressive upsampling (PUP, also naive) and multi-level aggregation (MLA)."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout

SETR_PUP = Component(
    name="setr_pup",
    kind="head",
    title="SETR-PUP head",
    outline="""
norm
for i:
    up{i}.conv
    up{i}.bn
classifier (classes)
""",
)

SETR_PUP_MMSEG = Layout(
    name="setr_pup/mmseg",
    component=SETR_PUP,
    prefixes=("decode_head.",),
    table="""
conv_seg = classifier
norm = norm
for i:
    up_convs.{i}.0.conv = up{i}.conv
    up_convs.{i}.0.bn = up{i}.bn
""",
)

# `conv` and the layers before it are the neck's.
SETR_MLA = Component(
    name="setr_mla",
    kind="head",
    title="SETR-MLA head",
    outline="""
for i:
    norm{i}
for i:
    project{i}.conv
    project{i}.bn
for i:
    conv{i}.conv
    conv{i}.bn
for i:
    up{i}.first.conv
    up{i}.first.bn
    up{i}.second.conv
    up{i}.second.bn
classifier (classes)
""",
)

SETR_MLA_MMSEG = Layout(
    name="setr_mla/mmseg",
    component=SETR_MLA,
    table="""
for i:
    neck.norm.{i} = norm{i}
for i:
    neck.mla.channel_proj.{i}.conv = project{i}.conv
    neck.mla.channel_proj.{i}.bn = project{i}.bn
for i:
    neck.mla.feat_extract.{i}.conv = conv{i}.conv
    neck.mla.feat_extract.{i}.bn = conv{i}.bn
decode_head.conv_seg = classifier
for i:
    decode_head.up_convs.{i}.0.conv = up{i}.first.conv
    decode_head.up_convs.{i}.0.bn = up{i}.first.bn
    decode_head.up_convs.{i}.1.conv = up{i}.second.conv
    decode_head.up_convs.{i}.1.bn = up{i}.second.bn
""",
)

LAYOUTS = (SETR_PUP_MMSEG, SETR_MLA_MMSEG)
