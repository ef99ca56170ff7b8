"""BEiT, BEiT-v2 and data2vec-vision, as in their own code, in timm and in transformers (files; in memory)."""

from __future__ import annotations

import re
from dataclasses import replace

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

# Keys have no bias. Every block has a table of relative positions, or all share one; the indices into it follow from
# the size of the grid. What is pooled, the mean of the patches, has a norm of its own.
BEIT = Component(
    name="beit",
    kind="backbone",
    title="BEiT",
    variants=(Variant("BEiT-B", (12,), 768), Variant("BEiT-L", (24,), 1024)),
    width_slot="beit.stage0.block0.norm1.weight",
    outline="""
embed.proj
embed.class! (with embed.token_position)
embed.mask! (pretraining)
embed.token_position! & embed.position! (grid)
relative_position! (relative)
relative_index! (constant)
for b:
    stage0.block{b}.norm1
    stage0.block{b}.attn.q
    stage0.block{b}.attn.k & stage0.block{b}.attn.v
    stage0.block{b}.attn.relative_position! (relative)
    stage0.block{b}.attn.relative_index! (constant)
    stage0.block{b}.attn.proj
    stage0.block{b}.scale1!
    stage0.block{b}.norm2
    stage0.block{b}.mlp.fc1
    stage0.block{b}.mlp.fc2
    stage0.block{b}.scale2!
norm
pool.norm
""",
)

BEIT_TIMM = Layout(
    name="beit/timm",
    component=BEIT,
    also=("unilm",),
    table="""
cls_token! = embed.class!
? mask_token! = embed.mask!
? pos_embed! = embed.token_position! | embed.position! (tokens)
patch_embed.proj = embed.proj
? rel_pos_bias.relative_position_bias_table! = relative_position!
? rel_pos_bias.relative_position_index! = relative_index!
for b:
    blocks.{b}.gamma_1! = stage0.block{b}.scale1!
    blocks.{b}.gamma_2! = stage0.block{b}.scale2!
    blocks.{b}.norm1 = stage0.block{b}.norm1
    blocks.{b}.attn.q_bias! = stage0.block{b}.attn.q.bias!
    blocks.{b}.attn.v_bias! = stage0.block{b}.attn.v.bias!
    ? blocks.{b}.attn.relative_position_bias_table! = stage0.block{b}.attn.relative_position!
    ? blocks.{b}.attn.relative_position_index! = stage0.block{b}.attn.relative_index!
    blocks.{b}.attn.qkv.weight! = stage0.block{b}.attn.q.weight! | \
        stage0.block{b}.attn.k.weight! | stage0.block{b}.attn.v.weight!
    blocks.{b}.attn.proj = stage0.block{b}.attn.proj
    blocks.{b}.norm2 = stage0.block{b}.norm2
    blocks.{b}.mlp.fc1 = stage0.block{b}.mlp.fc1
    blocks.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
? norm = norm
? fc_norm = pool.norm
""",
)

_EMBEDDINGS = """
embeddings.cls_token! = embed.class!
? embeddings.mask_token! = embed.mask!
? embeddings.position_embeddings! = embed.token_position! | embed.position! (tokens)
embeddings.patch_embeddings.projection = embed.proj
"""
_NORMS = """
? layernorm = norm
? pooler.layernorm = pool.norm
"""


def _transformers(name: str, prefix: str) -> Layout:
    """The names in files; data2vec-vision has them in memory, too."""
    return Layout(
        name=f"beit/{name}",
        component=BEIT,
        prefixes=(prefix, ""),
        table=_EMBEDDINGS
        + """
for b:
    encoder.layer.{b}.lambda_1! = stage0.block{b}.scale1!
    encoder.layer.{b}.lambda_2! = stage0.block{b}.scale2!
    encoder.layer.{b}.attention.attention.query = stage0.block{b}.attn.q
    encoder.layer.{b}.attention.attention.key = stage0.block{b}.attn.k
    encoder.layer.{b}.attention.attention.value = stage0.block{b}.attn.v
    ? encoder.layer.{b}.attention.attention.relative_position_bias.relative_position_bias_table! = \
        stage0.block{b}.attn.relative_position!
    ? encoder.layer.{b}.attention.attention.relative_position_bias.relative_position_index! = \
        stage0.block{b}.attn.relative_index!
    encoder.layer.{b}.attention.output.dense = stage0.block{b}.attn.proj
    encoder.layer.{b}.intermediate.dense = stage0.block{b}.mlp.fc1
    encoder.layer.{b}.output.dense = stage0.block{b}.mlp.fc2
    encoder.layer.{b}.layernorm_before = stage0.block{b}.norm1
    encoder.layer.{b}.layernorm_after = stage0.block{b}.norm2
? encoder.relative_position_bias.relative_position_bias_table! = relative_position!
? encoder.relative_position_bias.relative_position_index! = relative_index!
"""
        + _NORMS,
    )


def _masked(layout: Layout) -> Layout:
    """The same names in a network for pre-training with masked images, which norms what it reconstructs from itself."""
    inner = re.sub(r"(?m)^( *(?:\? )?)(?!for )(?=\S)", r"\1beit.", layout.table.removesuffix(_NORMS))
    name = layout.name.replace("transformers", "transformers-masked")
    return replace(layout, name=name, prefixes=("",), table=f"{inner}\nlayernorm = norm")


BEIT_TRANSFORMERS = _transformers("transformers", "beit.")
BEIT_DATA2VEC = _transformers("transformers-data2vec", "data2vec_vision.")

BEIT_TRANSFORMERS_RUNTIME = Layout(
    name="beit/transformers-runtime",
    component=BEIT,
    prefixes=("beit.", ""),
    table=_EMBEDDINGS
    + """
? shared_position_bias.relative_position_bias_table! = relative_position!
for b:
    layers.{b}.lambda_1! = stage0.block{b}.scale1!
    layers.{b}.lambda_2! = stage0.block{b}.scale2!
    layers.{b}.attention.q_proj = stage0.block{b}.attn.q
    layers.{b}.attention.k_proj = stage0.block{b}.attn.k
    layers.{b}.attention.v_proj = stage0.block{b}.attn.v
    layers.{b}.attention.o_proj = stage0.block{b}.attn.proj
    layers.{b}.layernorm_before = stage0.block{b}.norm1
    layers.{b}.layernorm_after = stage0.block{b}.norm2
    layers.{b}.mlp.fc1 = stage0.block{b}.mlp.fc1
    layers.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
    ? layers.{b}.relative_position_bias.relative_position_bias_table! = stage0.block{b}.attn.relative_position!
"""
    + _NORMS,
)

IMAGENET_TIMM = Layout(
    name="imagenet/beit-timm", component=IMAGENET, beside=BEIT, table="head = classifier", also=("timm", "unilm")
)

IMAGENET_TRANSFORMERS = Layout(
    name="imagenet/beit-transformers",
    component=IMAGENET,
    beside=BEIT,
    table="classifier = classifier",
    also=("transformers", "transformers-data2vec"),
)

LAYOUTS = (
    *(BEIT_TIMM, BEIT_TRANSFORMERS, BEIT_DATA2VEC, BEIT_TRANSFORMERS_RUNTIME),
    *(_masked(BEIT_TRANSFORMERS), _masked(BEIT_TRANSFORMERS_RUNTIME)),
)
HEADS = (IMAGENET_TIMM, IMAGENET_TRANSFORMERS)
