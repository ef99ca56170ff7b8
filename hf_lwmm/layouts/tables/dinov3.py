"""DINOv3's ViT, as in its own code, in timm (its Eva class) and in transformers (files; in memory; in EoMT)."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

# Positions are rotations, whose periods follow from the width. Keys have no bias, or one that the original stores and
# masks, but transformers' may have one that counts. Wide feed-forward layers have a gate. Only pre-training norms the
# class token of small crops by itself.
DINOV3 = Component(
    name="dinov3",
    kind="backbone",
    title="DINOv3",
    variants=(
        Variant("DINOv3-S", (12,), 384),
        Variant("DINOv3-B", (12,), 768),
        Variant("DINOv3-L", (24,), 1024),
        Variant("DINOv3-H+", (32,), 1280),
        Variant("DINOv3-7B", (40,), 4096),
    ),
    width_slot="dinov3.stage0.block0.norm1.weight",
    outline="""
embed.proj
embed.class!
embed.mask! (pretraining)
embed.registers!
embed.periods! (constant)
for b:
    stage0.block{b}.norm1
    stage0.block{b}.attn.q
    stage0.block{b}.attn.k.masked_bias! (unused)
    stage0.block{b}.attn.bias_mask! (constant)
    stage0.block{b}.attn.k & stage0.block{b}.attn.v
    stage0.block{b}.attn.proj
    stage0.block{b}.scale1!
    stage0.block{b}.norm2
    stage0.block{b}.mlp.gate
    stage0.block{b}.mlp.fc1
    stage0.block{b}.mlp.fc2
    stage0.block{b}.scale2!
norm
local_norm (unused)
""",
)

_QKV_WEIGHT = """
    blocks.{b}.attn.qkv.weight! = stage0.block{b}.attn.q.weight! | \
        stage0.block{b}.attn.k.weight! | stage0.block{b}.attn.v.weight!
"""
_PLAIN = """
    blocks.{b}.mlp.fc1 = stage0.block{b}.mlp.fc1
    blocks.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
"""


def _original(name: str, mlp: str, also: tuple[str, ...] = ()) -> Layout:
    return Layout(
        name=f"dinov3/{name}",
        component=DINOV3,
        also=also,
        table="""
cls_token! = embed.class!
storage_tokens! = embed.registers!
? mask_token! = embed.mask! (-1d)
patch_embed.proj = embed.proj
? rope_embed.periods! = embed.periods!
for b:
    blocks.{b}.norm1 = stage0.block{b}.norm1
"""
        + _QKV_WEIGHT
        + """
    ? blocks.{b}.attn.qkv.bias! = stage0.block{b}.attn.q.bias! | \
        stage0.block{b}.attn.k.masked_bias! | stage0.block{b}.attn.v.bias!
    ? blocks.{b}.attn.qkv.bias_mask! = stage0.block{b}.attn.bias_mask!
    blocks.{b}.attn.proj = stage0.block{b}.attn.proj
    blocks.{b}.ls1.gamma! = stage0.block{b}.scale1!
    blocks.{b}.norm2 = stage0.block{b}.norm2
"""
        + mlp
        + """
    blocks.{b}.ls2.gamma! = stage0.block{b}.scale2!
norm = norm
? local_cls_norm = local_norm
""",
    )


def _timm(name: str, mlp: str, also: tuple[str, ...] = ()) -> Layout:
    return Layout(
        name=f"dinov3/{name}",
        component=DINOV3,
        also=also,
        table="""
cls_token! = embed.class!
reg_token! = embed.registers!
patch_embed.proj = embed.proj
for b:
    blocks.{b}.gamma_1! = stage0.block{b}.scale1!
    blocks.{b}.gamma_2! = stage0.block{b}.scale2!
    blocks.{b}.norm1 = stage0.block{b}.norm1
    ? blocks.{b}.attn.q_bias! = stage0.block{b}.attn.q.bias!
    ? blocks.{b}.attn.v_bias! = stage0.block{b}.attn.v.bias!
"""
        + _QKV_WEIGHT
        + """
    blocks.{b}.attn.proj = stage0.block{b}.attn.proj
    blocks.{b}.norm2 = stage0.block{b}.norm2
"""
        + mlp
        + """
norm = norm
""",
    )


_TRANSFORMERS = """
embeddings.cls_token! = embed.class!
? embeddings.mask_token! = embed.mask!
embeddings.register_tokens! = embed.registers!
embeddings.patch_embeddings = embed.proj
"""
_TRANSFORMERS_BLOCKS = """
for b:
    LAYER.{b}.norm1 = stage0.block{b}.norm1
    LAYER.{b}.attention.k_proj = stage0.block{b}.attn.k
    LAYER.{b}.attention.v_proj = stage0.block{b}.attn.v
    LAYER.{b}.attention.q_proj = stage0.block{b}.attn.q
    LAYER.{b}.attention.o_proj = stage0.block{b}.attn.proj
    LAYER.{b}.layer_scale1.lambda1! = stage0.block{b}.scale1!
    LAYER.{b}.norm2 = stage0.block{b}.norm2
    ? LAYER.{b}.mlp.gate_proj = stage0.block{b}.mlp.gate
    LAYER.{b}.mlp.up_proj = stage0.block{b}.mlp.fc1
    LAYER.{b}.mlp.down_proj = stage0.block{b}.mlp.fc2
    LAYER.{b}.layer_scale2.lambda1! = stage0.block{b}.scale2!
"""


def _transformers(name: str, layers: str) -> Layout:
    """The names, which differ in what the list of blocks is called."""
    blocks = _TRANSFORMERS_BLOCKS.replace("LAYER", layers)
    return Layout(name=f"dinov3/{name}", component=DINOV3, table=_TRANSFORMERS + blocks + "norm = norm")


_GATED = """
    blocks.{b}.mlp.w1 = stage0.block{b}.mlp.gate
    blocks.{b}.mlp.w2 = stage0.block{b}.mlp.fc1
    blocks.{b}.mlp.w3 = stage0.block{b}.mlp.fc2
"""
_GATED_TIMM = """
    blocks.{b}.mlp.fc1_g = stage0.block{b}.mlp.gate
    blocks.{b}.mlp.fc1_x = stage0.block{b}.mlp.fc1
    blocks.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
"""
EOMT = Layout(  # a DINOv3 that segments by queries of its own
    name="dinov3/transformers-eomt",
    component=DINOV3,
    table=_TRANSFORMERS + "layernorm = norm" + _TRANSFORMERS_BLOCKS.replace("LAYER", "layers"),
)

LAYOUTS = (
    _original("dinov3", _PLAIN),
    _original("dinov3-gated", _GATED, ("dinov3",)),
    _timm("timm", _PLAIN),
    _timm("timm-gated", _GATED_TIMM, ("timm",)),
    _transformers("transformers", "layer"),
    _transformers("transformers-runtime", "model.layer"),
    EOMT,
)

IMAGENET_TIMM = Layout(
    name="imagenet/dinov3-timm", component=IMAGENET, beside=DINOV3, table="head = classifier", also=("timm",)
)

HEADS = (IMAGENET_TIMM,)
