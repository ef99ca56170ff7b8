"""Swin, as in timm, transformers (files on the Hub; in memory since version 5), MMSegmentation and Microsoft's code.

Microsoft and transformers merge patches at the end of a stage, timm since version 0.9 at the start of the next one;
timm before 0.9 has Microsoft's names. MMSegmentation's unfolding puts the inputs of merged patches in another order.
"""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

# Merging of patches is named after the stage that it leads to. A stage's own `norm` is one of a segmenter's backbone.
SWIN = Component(
    name="swin",
    kind="backbone",
    title="Swin",
    variants=(
        Variant("Swin-T", (2, 2, 6, 2), 96),
        Variant("Swin-S", (2, 2, 18, 2), 96),
        Variant("Swin-B", (2, 2, 18, 2), 128),
        Variant("Swin-L", (2, 2, 18, 2), 192),
    ),
    width_slot="swin.embed.proj.weight",
    outline="""
embed.proj
embed.norm
embed.mask!
embed.position!
for s:
    for b:
        stage{s}.block{b}.norm1
        stage{s}.block{b}.attn.q
        stage{s}.block{b}.attn.k & stage{s}.block{b}.attn.v
        stage{s}.block{b}.attn.bias_table! (relative)
        stage{s}.block{b}.attn.index! (constant)
        stage{s}.block{b}.attn.mask! (constant)
        stage{s}.block{b}.attn.proj
        stage{s}.block{b}.norm2
        stage{s}.block{b}.mlp.fc1
        stage{s}.block{b}.mlp.fc2
    stage{s+1}.downsample.norm
    stage{s+1}.downsample.reduction
    stage{s}.norm
norm
unused_norm (unused)
""",
)

_BLOCKS = """
for s:
    for b:
        ? layers.{s}.blocks.{b}.attn_mask! = stage{s}.block{b}.attn.mask!
        layers.{s}.blocks.{b}.norm1 = stage{s}.block{b}.norm1
        layers.{s}.blocks.{b}.attn.relative_position_bias_table! = stage{s}.block{b}.attn.bias_table!
        ? layers.{s}.blocks.{b}.attn.relative_position_index! = stage{s}.block{b}.attn.index!
        layers.{s}.blocks.{b}.attn.qkv = \
            stage{s}.block{b}.attn.q | stage{s}.block{b}.attn.k | stage{s}.block{b}.attn.v
        layers.{s}.blocks.{b}.attn.proj = stage{s}.block{b}.attn.proj
        layers.{s}.blocks.{b}.norm2 = stage{s}.block{b}.norm2
        layers.{s}.blocks.{b}.mlp.fc1 = stage{s}.block{b}.mlp.fc1
        layers.{s}.blocks.{b}.mlp.fc2 = stage{s}.block{b}.mlp.fc2
"""

SWIN_TIMM = Layout(
    name="swin/timm",
    component=SWIN,
    table=f"""
patch_embed.proj = embed.proj
patch_embed.norm = embed.norm
{_BLOCKS}
    layers.{{s+1}}.downsample.norm = stage{{s+1}}.downsample.norm
    layers.{{s+1}}.downsample.reduction = stage{{s+1}}.downsample.reduction
? norm = norm
""",
)

SWIN_TIMM_FEATURES = Layout(  # a network that timm builds for its features; smp and transformers wrap it
    name="swin/timm-features",
    component=SWIN,
    prefixes=("", "encoder.model.", "backbone."),
    table=SWIN_TIMM.table.replace("layers.{s", "layers_{s"),
)

SWIN_MICROSOFT = Layout(
    name="swin/microsoft",
    component=SWIN,
    prefixes=("", "backbone.", "encoder."),  # the longer ones in its segmenters and in SimMIM
    table=f"""
? mask_token! = embed.mask!
? absolute_pos_embed! = embed.position!
patch_embed.proj = embed.proj
patch_embed.norm = embed.norm
{_BLOCKS}
    layers.{{s}}.downsample.reduction = stage{{s+1}}.downsample.reduction
    layers.{{s}}.downsample.norm = stage{{s+1}}.downsample.norm
layers.0.downsample.norm  # required, since timm has the same names one stage later
? norm = norm
for s:
    ? norm{{s}} = stage{{s}}.norm
""",
)

SWIN_MMSEG = Layout(
    name="swin/mmseg",
    component=SWIN,
    prefixes=("backbone.", ""),
    table="""
? absolute_pos_embed! = embed.position!
patch_embed.projection = embed.proj
patch_embed.norm = embed.norm
for s:
    for b:
        stages.{s}.blocks.{b}.norm1 = stage{s}.block{b}.norm1
        stages.{s}.blocks.{b}.attn.w_msa.relative_position_bias_table! = stage{s}.block{b}.attn.bias_table!
        ? stages.{s}.blocks.{b}.attn.w_msa.relative_position_index! = stage{s}.block{b}.attn.index!
        stages.{s}.blocks.{b}.attn.w_msa.qkv = \
            stage{s}.block{b}.attn.q | stage{s}.block{b}.attn.k | stage{s}.block{b}.attn.v
        stages.{s}.blocks.{b}.attn.w_msa.proj = stage{s}.block{b}.attn.proj
        stages.{s}.blocks.{b}.norm2 = stage{s}.block{b}.norm2
        stages.{s}.blocks.{b}.ffn.layers.0.0 = stage{s}.block{b}.mlp.fc1
        stages.{s}.blocks.{b}.ffn.layers.1 = stage{s}.block{b}.mlp.fc2
    stages.{s}.downsample.norm = stage{s+1}.downsample.norm (unfolded)
    stages.{s}.downsample.reduction = stage{s+1}.downsample.reduction (unfolded)
for s:
    ? norm{s} = stage{s}.norm
""",
)

_FILES = """
? PREFIXembeddings.mask_token! = embed.mask!
? PREFIXembeddings.position_embeddings! = embed.position!
PREFIXembeddings.patch_embeddings.projection = embed.proj
PREFIXembeddings.norm = embed.norm
for s:
    for b:
        PREFIXencoder.layers.{s}.blocks.{b}.layernorm_before = stage{s}.block{b}.norm1
        PREFIXencoder.layers.{s}.blocks.{b}.attention.self.relative_position_bias_table! = \
            stage{s}.block{b}.attn.bias_table!
        ? PREFIXencoder.layers.{s}.blocks.{b}.attention.self.relative_position_index! = stage{s}.block{b}.attn.index!
        PREFIXencoder.layers.{s}.blocks.{b}.attention.self.query = stage{s}.block{b}.attn.q
        PREFIXencoder.layers.{s}.blocks.{b}.attention.self.key = stage{s}.block{b}.attn.k
        PREFIXencoder.layers.{s}.blocks.{b}.attention.self.value = stage{s}.block{b}.attn.v
        PREFIXencoder.layers.{s}.blocks.{b}.attention.output.dense = stage{s}.block{b}.attn.proj
        PREFIXencoder.layers.{s}.blocks.{b}.layernorm_after = stage{s}.block{b}.norm2
        PREFIXencoder.layers.{s}.blocks.{b}.intermediate.dense = stage{s}.block{b}.mlp.fc1
        PREFIXencoder.layers.{s}.blocks.{b}.output.dense = stage{s}.block{b}.mlp.fc2
    PREFIXencoder.layers.{s}.downsample.reduction = stage{s+1}.downsample.reduction
    PREFIXencoder.layers.{s}.downsample.norm = stage{s+1}.downsample.norm
"""

SWIN_TRANSFORMERS = Layout(
    name="swin/transformers",
    component=SWIN,
    prefixes=("swin.", ""),
    table=_FILES.replace("PREFIX", "")
    + """
? layernorm = norm
for s:
    ? hidden_states_norms.stage{s+1} = stage{s}.norm
""",
)

SWIN_SEGMENTER = Layout(
    name="swin/transformers-segmenter",
    component=SWIN,
    prefixes=("backbone.", "model.pixel_level_module.encoder.", ""),
    also=("transformers",),
    table=_FILES.replace("PREFIX", "")
    + """
? swin.layernorm = unused_norm
for s:
    hidden_states_norms.stage{s+1} = stage{s}.norm
""",
)

SWIN_MASKFORMER = Layout(  # whose first segmenters had a Swin of their own
    name="swin/transformers-maskformer",
    component=SWIN,
    prefixes=("model.pixel_level_module.encoder.", ""),
    table=_FILES.replace("PREFIX", "model.")
    + """
? model.layernorm = unused_norm
for s:
    hidden_states_norms.{s} = stage{s}.norm
""",
)

_RUNTIME = """
? PREFIXembeddings.mask_token! = embed.mask!
? PREFIXembeddings.position_embeddings! = embed.position!
PREFIXembeddings.patch_embeddings.projection = embed.proj
PREFIXembeddings.norm = embed.norm
for s:
    for b:
        PREFIXencoder.layers.{s}.blocks.{b}.attention.q_proj = stage{s}.block{b}.attn.q
        PREFIXencoder.layers.{s}.blocks.{b}.attention.k_proj = stage{s}.block{b}.attn.k
        PREFIXencoder.layers.{s}.blocks.{b}.attention.v_proj = stage{s}.block{b}.attn.v
        PREFIXencoder.layers.{s}.blocks.{b}.attention.o_proj = stage{s}.block{b}.attn.proj
        PREFIXencoder.layers.{s}.blocks.{b}.attention.relative_position_bias.relative_position_bias_table! = \
            stage{s}.block{b}.attn.bias_table!
        PREFIXencoder.layers.{s}.blocks.{b}.layernorm_before = stage{s}.block{b}.norm1
        PREFIXencoder.layers.{s}.blocks.{b}.layernorm_after = stage{s}.block{b}.norm2
        PREFIXencoder.layers.{s}.blocks.{b}.mlp.fc1 = stage{s}.block{b}.mlp.fc1
        PREFIXencoder.layers.{s}.blocks.{b}.mlp.fc2 = stage{s}.block{b}.mlp.fc2
    PREFIXencoder.layers.{s}.downsample.reduction = stage{s+1}.downsample.reduction
    PREFIXencoder.layers.{s}.downsample.norm = stage{s+1}.downsample.norm
"""

SWIN_TRANSFORMERS_RUNTIME = Layout(
    name="swin/transformers-runtime",
    component=SWIN,
    prefixes=("swin.", ""),
    table=_RUNTIME.replace("PREFIX", "") + "? layernorm = norm",
)

SWIN_TRANSFORMERS_BACKBONE = Layout(  # the backbone of a segmenter, in memory
    name="swin/transformers-backbone",
    component=SWIN,
    prefixes=("backbone.", "model.pixel_level_module.encoder.", ""),
    table=_RUNTIME.replace("PREFIX", "swin.")
    + "? swin.layernorm = unused_norm\nfor s:\n    hidden_states_norms.stage{s+1} = stage{s}.norm",
)

IMAGENET_TIMM = Layout(
    name="imagenet/swin-timm", component=IMAGENET, beside=SWIN, table="head.fc = classifier", also=("timm",)
)

IMAGENET_MICROSOFT = Layout(
    name="imagenet/swin-microsoft", component=IMAGENET, beside=SWIN, table="head = classifier", also=("microsoft",)
)

IMAGENET_TRANSFORMERS = Layout(
    name="imagenet/swin-transformers",
    component=IMAGENET,
    beside=SWIN,
    table="classifier = classifier",
    also=("transformers", "transformers-runtime"),
)

LAYOUTS = (
    SWIN_TIMM,
    SWIN_TIMM_FEATURES,
    SWIN_MICROSOFT,
    SWIN_MMSEG,
    SWIN_SEGMENTER,
    SWIN_TRANSFORMERS,
    SWIN_MASKFORMER,
    SWIN_TRANSFORMERS_RUNTIME,
    SWIN_TRANSFORMERS_BACKBONE,
)
HEADS = (IMAGENET_TIMM, IMAGENET_MICROSOFT, IMAGENET_TRANSFORMERS)
