"""SwinV2, as in timm, in transformers and in Microsoft's code.

As for Swin, timm since version 0.9 merges patches at the start of a stage, the others at the end of the one before.
"""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

# Keys have no bias. Blocks are normalised behind attention and MLP, merged patches behind their reduction.
SWINV2 = Component(
    name="swinv2",
    kind="backbone",
    title="SwinV2",
    variants=(
        Variant("SwinV2-T", (2, 2, 6, 2), 96),
        Variant("SwinV2-S", (2, 2, 18, 2), 96),
        Variant("SwinV2-B", (2, 2, 18, 2), 128),
        Variant("SwinV2-L", (2, 2, 18, 2), 192),
        Variant("SwinV2-H", (2, 2, 18, 2), 352),
        Variant("SwinV2-G", (2, 2, 42, 4), 512),
    ),
    width_slot="swinv2.embed.proj.weight",
    outline="""
embed.proj
embed.norm
embed.mask!
embed.position!
for s:
    for b:
        stage{s}.block{b}.attn.q
        stage{s}.block{b}.attn.k & stage{s}.block{b}.attn.v
        stage{s}.block{b}.attn.scale!
        stage{s}.block{b}.attn.bias.fc1
        stage{s}.block{b}.attn.bias.fc2
        stage{s}.block{b}.attn.coordinates! (constant)
        stage{s}.block{b}.attn.index! (constant)
        stage{s}.block{b}.attn.mask! (constant)
        stage{s}.block{b}.attn.proj
        stage{s}.block{b}.norm1
        stage{s}.block{b}.mlp.fc1
        stage{s}.block{b}.mlp.fc2
        stage{s}.block{b}.norm2
    stage{s+1}.downsample.reduction
    stage{s+1}.downsample.norm
norm
""",
)

_BLOCK = """
for s:
    for b:
        ? layers.{s}.blocks.{b}.attn_mask! = stage{s}.block{b}.attn.mask!
        layers.{s}.blocks.{b}.attn.logit_scale! = stage{s}.block{b}.attn.scale!
        ? layers.{s}.blocks.{b}.attn.q_bias! = stage{s}.block{b}.attn.q.bias!
        ? layers.{s}.blocks.{b}.attn.v_bias! = stage{s}.block{b}.attn.v.bias!
        ? layers.{s}.blocks.{b}.attn.relative_coords_table! = stage{s}.block{b}.attn.coordinates!
        ? layers.{s}.blocks.{b}.attn.relative_position_index! = stage{s}.block{b}.attn.index!
        layers.{s}.blocks.{b}.attn.cpb_mlp.0 = stage{s}.block{b}.attn.bias.fc1
        layers.{s}.blocks.{b}.attn.cpb_mlp.2 = stage{s}.block{b}.attn.bias.fc2
        layers.{s}.blocks.{b}.attn.qkv.weight! = stage{s}.block{b}.attn.q.weight! | \
            stage{s}.block{b}.attn.k.weight! | stage{s}.block{b}.attn.v.weight!
        layers.{s}.blocks.{b}.attn.proj = stage{s}.block{b}.attn.proj
        layers.{s}.blocks.{b}.norm1 = stage{s}.block{b}.norm1
        layers.{s}.blocks.{b}.mlp.fc1 = stage{s}.block{b}.mlp.fc1
        layers.{s}.blocks.{b}.mlp.fc2 = stage{s}.block{b}.mlp.fc2
        layers.{s}.blocks.{b}.norm2 = stage{s}.block{b}.norm2
"""

SWINV2_TIMM = Layout(
    name="swinv2/timm",
    component=SWINV2,
    table=f"""
patch_embed.proj = embed.proj
patch_embed.norm = embed.norm
{_BLOCK}
    layers.{{s+1}}.downsample.reduction = stage{{s+1}}.downsample.reduction
    layers.{{s+1}}.downsample.norm = stage{{s+1}}.downsample.norm
? norm = norm
""",
)

SWINV2_TIMM_FEATURES = Layout(  # a network that timm builds for its features; smp and transformers wrap it
    name="swinv2/timm-features",
    component=SWINV2,
    prefixes=("", "encoder.model.", "backbone."),
    table=SWINV2_TIMM.table.replace("layers.{s", "layers_{s"),
)

SWINV2_MICROSOFT = Layout(
    name="swinv2/microsoft",
    component=SWINV2,
    prefixes=("", "backbone.", "encoder."),
    table=f"""
? mask_token! = embed.mask!
? absolute_pos_embed! = embed.position!
patch_embed.proj = embed.proj
patch_embed.norm = embed.norm
{_BLOCK}
    layers.{{s}}.downsample.reduction = stage{{s+1}}.downsample.reduction
    layers.{{s}}.downsample.norm = stage{{s+1}}.downsample.norm
layers.0.downsample.norm  # required, since timm has the same names one stage later
? norm = norm
""",
)

SWINV2_TRANSFORMERS = Layout(
    name="swinv2/transformers",
    component=SWINV2,
    prefixes=("swinv2.", "backbone.", ""),
    table="""
? embeddings.mask_token! = embed.mask!
? embeddings.position_embeddings! = embed.position!
embeddings.patch_embeddings.projection = embed.proj
embeddings.norm = embed.norm
for s:
    for b:
        encoder.layers.{s}.blocks.{b}.attention.self.logit_scale! = stage{s}.block{b}.attn.scale!
        ? encoder.layers.{s}.blocks.{b}.attention.self.relative_coords_table! = stage{s}.block{b}.attn.coordinates!
        ? encoder.layers.{s}.blocks.{b}.attention.self.relative_position_index! = stage{s}.block{b}.attn.index!
        encoder.layers.{s}.blocks.{b}.attention.self.continuous_position_bias_mlp.0 = stage{s}.block{b}.attn.bias.fc1
        encoder.layers.{s}.blocks.{b}.attention.self.continuous_position_bias_mlp.2 = stage{s}.block{b}.attn.bias.fc2
        encoder.layers.{s}.blocks.{b}.attention.self.query = stage{s}.block{b}.attn.q
        encoder.layers.{s}.blocks.{b}.attention.self.key = stage{s}.block{b}.attn.k
        encoder.layers.{s}.blocks.{b}.attention.self.value = stage{s}.block{b}.attn.v
        encoder.layers.{s}.blocks.{b}.attention.output.dense = stage{s}.block{b}.attn.proj
        encoder.layers.{s}.blocks.{b}.layernorm_before = stage{s}.block{b}.norm1
        encoder.layers.{s}.blocks.{b}.intermediate.dense = stage{s}.block{b}.mlp.fc1
        encoder.layers.{s}.blocks.{b}.output.dense = stage{s}.block{b}.mlp.fc2
        encoder.layers.{s}.blocks.{b}.layernorm_after = stage{s}.block{b}.norm2
    encoder.layers.{s}.downsample.reduction = stage{s+1}.downsample.reduction
    encoder.layers.{s}.downsample.norm = stage{s+1}.downsample.norm
? layernorm = norm
""",
)

IMAGENET_TIMM = Layout(
    name="imagenet/swinv2-timm", component=IMAGENET, beside=SWINV2, table="head.fc = classifier", also=("timm",)
)

IMAGENET_MICROSOFT = Layout(
    name="imagenet/swinv2-microsoft", component=IMAGENET, beside=SWINV2, table="head = classifier", also=("microsoft",)
)

IMAGENET_TRANSFORMERS = Layout(
    name="imagenet/swinv2-transformers",
    component=IMAGENET,
    beside=SWINV2,
    table="classifier = classifier",
    also=("transformers",),
)

LAYOUTS = (SWINV2_TIMM, SWINV2_TIMM_FEATURES, SWINV2_MICROSOFT, SWINV2_TRANSFORMERS)
HEADS = (IMAGENET_TIMM, IMAGENET_MICROSOFT, IMAGENET_TRANSFORMERS)
