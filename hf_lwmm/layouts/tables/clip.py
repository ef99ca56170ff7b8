"""Image towers of CLIP and SigLIP, as OpenAI, open_clip, transformers and timm name them; timm's CLIP is its ViT."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Layout
from hf_lwmm.layouts.tables.vit import TIMM_BLOCKS, VIT

CLIP_OPENAI = Layout(
    name="vit/openai",
    component=VIT,
    prefixes=("visual.",),
    also=("open_clip",),
    table="""
class_embedding! = embed.class! (-2d)
positional_embedding! = embed.token_position! | embed.position! (-1d) (tokens)
conv1 = embed.proj
ln_pre = embed.norm
for b:
    transformer.resblocks.{b}.ln_1 = stage0.block{b}.norm1
    transformer.resblocks.{b}.attn.in_proj_weight! = stage0.block{b}.attn.q.weight! | \
        stage0.block{b}.attn.k.weight! | stage0.block{b}.attn.v.weight!
    transformer.resblocks.{b}.attn.in_proj_bias! = stage0.block{b}.attn.q.bias! | \
        stage0.block{b}.attn.k.bias! | stage0.block{b}.attn.v.bias!
    transformer.resblocks.{b}.attn.out_proj = stage0.block{b}.attn.proj
    transformer.resblocks.{b}.ln_2 = stage0.block{b}.norm2
    transformer.resblocks.{b}.mlp.c_fc = stage0.block{b}.mlp.fc1
    transformer.resblocks.{b}.mlp.c_proj = stage0.block{b}.mlp.fc2
ln_post = norm
""",
)

_TRANSFORMERS_BLOCKS = """
for b:
    encoder.layers.{b}.self_attn.k_proj = stage0.block{b}.attn.k
    encoder.layers.{b}.self_attn.v_proj = stage0.block{b}.attn.v
    encoder.layers.{b}.self_attn.q_proj = stage0.block{b}.attn.q
    encoder.layers.{b}.self_attn.out_proj = stage0.block{b}.attn.proj
    encoder.layers.{b}.layer_norm1 = stage0.block{b}.norm1
    encoder.layers.{b}.mlp.fc1 = stage0.block{b}.mlp.fc1
    encoder.layers.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
    encoder.layers.{b}.layer_norm2 = stage0.block{b}.norm2
"""

CLIP_TRANSFORMERS = Layout(
    name="vit/transformers-clip",
    component=VIT,
    prefixes=("vision_model.", ""),
    also=("transformers",),
    table="""
embeddings.class_embedding! = embed.class! (-2d)
? embeddings.position_ids! = embed.position_ids!
embeddings.patch_embedding = embed.proj
embeddings.position_embedding.weight! = embed.token_position! | embed.position! (-1d) (tokens)
pre_layrnorm = embed.norm
"""
    + _TRANSFORMERS_BLOCKS
    + """
post_layernorm = norm
""",
)

SIGLIP_TRANSFORMERS = Layout(
    name="vit/transformers-siglip",
    component=VIT,
    prefixes=("vision_model.", ""),
    also=("transformers",),
    table="""
? embeddings.position_ids! = embed.position_ids!
embeddings.patch_embedding = embed.proj
embeddings.position_embedding.weight! = embed.position! (-1d)
"""
    + _TRANSFORMERS_BLOCKS
    + """
post_layernorm = norm
? head.probe! = pool.probe!
? head.attention.in_proj_weight! = pool.q.weight! | pool.k.weight! | pool.v.weight!
? head.attention.in_proj_bias! = pool.q.bias! | pool.k.bias! | pool.v.bias!
? head.attention.out_proj = pool.proj
? head.layernorm = pool.norm
? head.mlp.fc1 = pool.fc1
? head.mlp.fc2 = pool.fc2
""",
)

SIGLIP_TIMM = Layout(  # and any other ViT without a class token; open_clip keeps it behind `visual.trunk.`
    name="vit/timm-no-class",
    component=VIT,
    also=("timm",),
    table="""
pos_embed! = embed.position!
? reg_token! = embed.registers!
patch_embed.proj = embed.proj
"""
    + TIMM_BLOCKS
    + """
? norm = norm
? attn_pool.latent! = pool.probe!
? attn_pool.q = pool.q
? attn_pool.kv = pool.k | pool.v
? attn_pool.proj = pool.proj
? attn_pool.norm = pool.norm
? attn_pool.mlp.fc1 = pool.fc1
? attn_pool.mlp.fc2 = pool.fc2
? fc_norm = pooled
""",
)

LAYOUTS = (CLIP_OPENAI, CLIP_TRANSFORMERS, SIGLIP_TRANSFORMERS, SIGLIP_TIMM)
