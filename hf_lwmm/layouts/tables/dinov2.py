"""DINOv2 with and without registers, as in its own code and in transformers (files; in memory; in EoMT).

timm's is its ViT.
"""

from __future__ import annotations

from hf_lwmm.layouts.layout import Layout
from hf_lwmm.layouts.tables.vit import TIMM_BLOCKS, VIT

_ORIGINAL = """
cls_token! = embed.class!
pos_embed! = embed.token_position! | embed.position! (tokens)
? register_tokens! = embed.registers!
mask_token! = embed.mask! (-1d)
patch_embed.proj = embed.proj
"""

DINOV2 = Layout(
    name="vit/dinov2",
    component=VIT,
    table=_ORIGINAL
    + TIMM_BLOCKS
    + """
norm = norm
""",
)

# In every code base's files, the gate and what it gates are one matrix; in memory, transformers has two.
_STACKED = "stage0.block{b}.mlp.gate | stage0.block{b}.mlp.fc1"
DINOV2_GIANT = Layout(
    name="vit/dinov2-giant",
    component=VIT,
    also=("dinov2",),
    table=_ORIGINAL
    + TIMM_BLOCKS.replace("fc1 = stage0.block{b}.mlp.fc1", f"w12 = {_STACKED}").replace("mlp.fc2 = ", "mlp.w3 = ")
    + """
norm = norm
""",
)

_HUB = """
    encoder.layer.{b}.attention.attention.query = stage0.block{b}.attn.q
    encoder.layer.{b}.attention.attention.key = stage0.block{b}.attn.k
    encoder.layer.{b}.attention.attention.value = stage0.block{b}.attn.v
    encoder.layer.{b}.attention.output.dense = stage0.block{b}.attn.proj
"""
_MEMORY = """
    encoder.layer.{b}.attention.q_proj = stage0.block{b}.attn.q
    encoder.layer.{b}.attention.k_proj = stage0.block{b}.attn.k
    encoder.layer.{b}.attention.v_proj = stage0.block{b}.attn.v
    encoder.layer.{b}.attention.o_proj = stage0.block{b}.attn.proj
"""
_PLAIN = """
    encoder.layer.{b}.mlp.fc1 = stage0.block{b}.mlp.fc1
    encoder.layer.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
"""
_GATED = f"""
    encoder.layer.{{b}}.mlp.weights_in = {_STACKED}
    encoder.layer.{{b}}.mlp.weights_out = stage0.block{{b}}.mlp.fc2
"""
_GATED_MEMORY = """
    encoder.layer.{b}.mlp.gate_proj = stage0.block{b}.mlp.gate
    encoder.layer.{b}.mlp.up_proj = stage0.block{b}.mlp.fc1
    encoder.layer.{b}.mlp.down_proj = stage0.block{b}.mlp.fc2
"""


def _blocks(attention: str, mlp: str) -> str:
    return f"""
for b:
    encoder.layer.{{b}}.norm1 = stage0.block{{b}}.norm1
{attention}
    encoder.layer.{{b}}.layer_scale1.lambda1! = stage0.block{{b}}.scale1!
    encoder.layer.{{b}}.norm2 = stage0.block{{b}}.norm2
{mlp}
    encoder.layer.{{b}}.layer_scale2.lambda1! = stage0.block{{b}}.scale2!
"""


def _transformers(name: str, attention: str, prefix: str, mlp: str) -> Layout:
    """The names of transformers, which differ in attention, in the feed-forward layers and in a line for registers."""
    registers = "embeddings.register_tokens! = embed.registers!" if "registers" in prefix else ""
    return Layout(
        name=f"vit/{name}",
        component=VIT,
        prefixes=(prefix, ""),
        also=() if attention is _MEMORY else ("transformers",),
        table=f"""
embeddings.cls_token! = embed.class!
? embeddings.mask_token! = embed.mask! (-1d)
embeddings.position_embeddings! = embed.token_position! | embed.position! (tokens)
{registers}
embeddings.patch_embeddings.projection = embed.proj
{_blocks(attention, mlp)}
layernorm = norm
""",
    )


def _eomt(name: str, mlp: str) -> Layout:
    """The names of EoMT, a DINOv2 that segments by queries of its own; its class token holds its position."""
    attention = """
    encoder.layer.{b}.attention.k_proj = stage0.block{b}.attn.k
    encoder.layer.{b}.attention.v_proj = stage0.block{b}.attn.v
    encoder.layer.{b}.attention.q_proj = stage0.block{b}.attn.q
    encoder.layer.{b}.attention.out_proj = stage0.block{b}.attn.proj
"""
    return Layout(
        name=f"vit/{name}",
        component=VIT,
        table=f"""
embeddings.cls_token! = embed.class!
embeddings.register_tokens! = embed.registers!
embeddings.patch_embeddings.projection = embed.proj
embeddings.position_embeddings.weight! = embed.position! (-1d)
layernorm = norm
{_blocks(attention, mlp).replace("encoder.layer", "layers")}
""",
    )


_REGISTERS = "dinov2_with_registers."
TRANSFORMERS = (
    _transformers("transformers-dinov2-registers", _HUB, _REGISTERS, _PLAIN),
    _transformers("transformers-dinov2-registers-giant", _HUB, _REGISTERS, _GATED),
    _transformers("transformers-dinov2", _HUB, "dinov2.", _PLAIN),
    _transformers("transformers-dinov2-giant", _HUB, "dinov2.", _GATED),
    _transformers("transformers-dinov2-registers-runtime", _MEMORY, _REGISTERS, _PLAIN),
    _transformers("transformers-dinov2-registers-giant-runtime", _MEMORY, _REGISTERS, _GATED_MEMORY),
    _transformers("transformers-dinov2-runtime", _MEMORY, "dinov2.", _PLAIN),
    _transformers("transformers-dinov2-giant-runtime", _MEMORY, "dinov2.", _GATED_MEMORY),
)

EOMT = (_eomt("transformers-eomt", _PLAIN), _eomt("transformers-eomt-giant", _GATED_MEMORY))

LAYOUTS = (DINOV2, DINOV2_GIANT, *TRANSFORMERS, *EOMT)
