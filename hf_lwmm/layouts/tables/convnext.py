"""ConvNeXt and ConvNeXtV2, as in timm, transformers, MMPretrain (for MMSegmentation) and Meta's code.

The second version scales channels by their norms in the whole picture (GRN) and has no learned scale of blocks.
Pointwise convolutions are matrices in some code bases and convolutions in others.
"""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET


def _lines_without(word: str, table: str) -> str:
    return "\n".join(line for line in table.splitlines() if word not in line)


# A stage's own `norm` is one of a segmenter's backbone.
_OUTLINE = """
embed.proj
embed.norm
for s:
    stage{s}.downsample.norm
    stage{s}.downsample.conv
    for b:
        stage{s}.block{b}.dwconv
        stage{s}.block{b}.norm
        stage{s}.block{b}.fc1
        stage{s}.block{b}.grn
        stage{s}.block{b}.fc2
        stage{s}.block{b}.scale!
    stage{s}.norm
norm
"""

_DEPTHS = {"A": (2, 2, 6, 2), "F": (2, 2, 6, 2), "P": (2, 2, 6, 2), "N": (2, 2, 8, 2), "T": (3, 3, 9, 3)}
_DEPTHS |= dict.fromkeys(("S", "B", "L", "XL", "H"), (3, 3, 27, 3))
_WIDTHS = {"A": 40, "F": 48, "P": 64, "N": 80, "T": 96, "S": 96, "B": 128, "L": 192, "XL": 256, "H": 352}


def _component(name: str, title: str) -> Component:
    return Component(
        name=name,
        kind="backbone",
        title=title,
        variants=tuple(Variant(f"{title}-{size}", _DEPTHS[size], width) for size, width in _WIDTHS.items()),
        width_slot=f"{name}.embed.proj.weight",
        outline=_OUTLINE,
    )


CONVNEXT = _component("convnext", "ConvNeXt")
CONVNEXT_V2 = _component("convnextv2", "ConvNeXtV2")

_TIMM = """
stem.0 = embed.proj
stem.1 = embed.norm
for s:
    ? stages.{s}.downsample.0 = stage{s}.downsample.norm
    ? stages.{s}.downsample.1 = stage{s}.downsample.conv
    for b:
        stages.{s}.blocks.{b}.gamma! = stage{s}.block{b}.scale!
        stages.{s}.blocks.{b}.conv_dw = stage{s}.block{b}.dwconv
        stages.{s}.blocks.{b}.norm = stage{s}.block{b}.norm
        stages.{s}.blocks.{b}.mlp.fc1 = stage{s}.block{b}.fc1 (1x1?)
        stages.{s}.blocks.{b}.mlp.grn = stage{s}.block{b}.grn
        stages.{s}.blocks.{b}.mlp.fc2 = stage{s}.block{b}.fc2 (1x1?)
        no stages.{s}.blocks.{b}.gamma_xca!  # EdgeNeXt
? head.norm = norm
"""

_META = """
for s:
    downsample_layers.{s+1}.0 = stage{s+1}.downsample.norm
    downsample_layers.{s+1}.1 = stage{s+1}.downsample.conv
for s:
    for b:
        stages.{s}.{b}.gamma! = stage{s}.block{b}.scale!
        stages.{s}.{b}.dwconv = stage{s}.block{b}.dwconv
        stages.{s}.{b}.norm = stage{s}.block{b}.norm
        stages.{s}.{b}.pwconv1 = stage{s}.block{b}.fc1
        stages.{s}.{b}.grn.gamma! = stage{s}.block{b}.grn.weight! (+3d)
        stages.{s}.{b}.grn.beta! = stage{s}.block{b}.grn.bias! (+3d)
        stages.{s}.{b}.pwconv2 = stage{s}.block{b}.fc2
? norm = norm
for s:
    ? norm{s} = stage{s}.norm
"""

_STEM = "downsample_layers.0.0 = embed.proj\ndownsample_layers.0.1 = embed.norm"

_MMSEG = """
for s:
    downsample_layers.{s+1}.0 = stage{s+1}.downsample.norm
    downsample_layers.{s+1}.1 = stage{s+1}.downsample.conv
for s:
    for b:
        stages.{s}.{b}.gamma! = stage{s}.block{b}.scale!
        stages.{s}.{b}.depthwise_conv = stage{s}.block{b}.dwconv
        stages.{s}.{b}.norm = stage{s}.block{b}.norm
        stages.{s}.{b}.pointwise_conv1 = stage{s}.block{b}.fc1 (1x1?)
        stages.{s}.{b}.pointwise_conv2 = stage{s}.block{b}.fc2 (1x1?)
        stages.{s}.{b}.grn.gamma! = stage{s}.block{b}.grn.weight!
        stages.{s}.{b}.grn.beta! = stage{s}.block{b}.grn.bias!
for s:
    ? norm{s} = stage{s}.norm
"""

_TRANSFORMERS = """
embeddings.patch_embeddings = embed.proj
embeddings.layernorm = embed.norm
for s:
    ? encoder.stages.{s}.downsampling_layer.0 = stage{s}.downsample.norm
    ? encoder.stages.{s}.downsampling_layer.1 = stage{s}.downsample.conv
    for b:
        encoder.stages.{s}.layers.{b}.layer_scale_parameter! = stage{s}.block{b}.scale!
        encoder.stages.{s}.layers.{b}.dwconv = stage{s}.block{b}.dwconv
        encoder.stages.{s}.layers.{b}.layernorm = stage{s}.block{b}.norm
        encoder.stages.{s}.layers.{b}.pwconv1 = stage{s}.block{b}.fc1
        encoder.stages.{s}.layers.{b}.grn = stage{s}.block{b}.grn (+3d)
        encoder.stages.{s}.layers.{b}.pwconv2 = stage{s}.block{b}.fc2
? layernorm = norm
"""

_STAGE_NORMS = "for s:\n    hidden_states_norms.stage{s+1} = stage{s}.norm"

_CODE_BASES = {
    "timm": (("",), _TIMM),
    # Of networks that timm builds for their features; smp and transformers wrap them.
    "timm-features": (
        ("", "encoder.model.", "backbone."),
        _TIMM.replace("stem.", "stem_").replace("stages.{s}", "stages_{s}"),
    ),
    "meta": (("", "backbone."), _STEM + _META),
    "mmseg": (("backbone.", ""), _STEM + _MMSEG),
    "transformers-segmenter": (("backbone.", ""), _TRANSFORMERS.replace("? layernorm = norm", _STAGE_NORMS)),
    "transformers": (("NAME.", ""), _TRANSFORMERS + _STAGE_NORMS.replace("hidden", "? hidden")),
}


def _layouts(component: Component, lacks: str) -> tuple[Layout, ...]:
    return tuple(
        Layout(
            name=f"{component.name}/{code_base}",
            component=component,
            prefixes=tuple(prefix.replace("NAME", component.name) for prefix in prefixes),
            also=("transformers",) if code_base == "transformers-segmenter" else (),
            table=_lines_without(lacks, table),
        )
        for code_base, (prefixes, table) in _CODE_BASES.items()
    )


def _heads(component: Component) -> tuple[Layout, ...]:
    names = {"timm": "head.fc", "meta": "head", "transformers": "classifier"}
    return tuple(
        Layout(
            name=f"imagenet/{component.name}-{code_base}",
            component=IMAGENET,
            beside=component,
            table=f"{name} = classifier",
            also=(code_base,),
        )
        for code_base, name in names.items()
    )


LAYOUTS = (*_layouts(CONVNEXT, ".grn"), *_layouts(CONVNEXT_V2, ".scale!"))
HEADS = (*_heads(CONVNEXT), *_heads(CONVNEXT_V2))
