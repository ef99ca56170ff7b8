"""Segmenter's mask transformer, in MMSegmentation 1.x."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout
from hf_lwmm.layouts.tables.vit import MMSEG_BLOCKS

# The scores of classes are products of patches with embeddings of the classes, which run through the layers with them.
SEGMENTER = Component(
    name="segmenter",
    kind="head",
    title="Segmenter head",
    outline="""
project
classes! (classes)
for b:
    block{b}.norm1
    block{b}.attn.q
    block{b}.attn.k & block{b}.attn.v
    block{b}.attn.proj
    block{b}.norm2
    block{b}.mlp.fc1
    block{b}.mlp.fc2
norm
patch_project
class_project
mask_norm (classes)
""",
)

SEGMENTER_MMSEG = Layout(
    name="segmenter/mmseg",
    component=SEGMENTER,
    prefixes=("decode_head.",),
    table="""
cls_emb! = classes! (+1d)
"""
    + MMSEG_BLOCKS.replace("stage0.", "")
    + """
dec_proj = project
patch_proj = patch_project
classes_proj = class_project
decoder_norm = norm
mask_norm = mask_norm
""",
)

LAYOUTS = (SEGMENTER_MMSEG,)
