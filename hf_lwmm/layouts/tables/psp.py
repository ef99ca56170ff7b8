"""PSPNet's head, in MMSegmentation 1.x and, with other kernels, in segmentation_models.pytorch."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout

_OUTLINE = """
for i:
    pool{i}.conv
    pool{i}.bn
fuse.conv
fuse.bn
classifier (classes)
"""

PSP = Component(name="psp", kind="head", title="PSPNet head", outline=_OUTLINE)
PSP_OF_SMP = Component(name="psp_smp", kind="head", title="PSPNet head of smp", outline=_OUTLINE)

PSP_MMSEG = Layout(
    name="psp/mmseg",
    component=PSP,
    prefixes=("decode_head.",),
    table="""
conv_seg = classifier
for i:
    psp_modules.{i}.1.conv = pool{i}.conv
    psp_modules.{i}.1.bn = pool{i}.bn
bottleneck.conv = fuse.conv
bottleneck.bn = fuse.bn
""",
)

PSP_SMP = Layout(  # whose pooling to a single pixel has no normalisation
    name="psp_smp/smp",
    component=PSP_OF_SMP,
    table="""
for i:
    decoder.psp.blocks.{i}.pool.1.0 = pool{i}.conv
    ? decoder.psp.blocks.{i}.pool.1.1 = pool{i}.bn
decoder.conv.0 = fuse.conv
decoder.conv.1 = fuse.bn
segmentation_head.0 = classifier
""",
)

LAYOUTS = (PSP_MMSEG, PSP_SMP)
