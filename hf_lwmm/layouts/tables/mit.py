"""Mix Transformer (MiT), the backbone of SegFormer, DAFormer, HRDA, MIC, PiPa and EDAPS, in five layouts."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant

MIT = Component(
    name="mit",
    kind="backbone",
    title="MiT",
    variants=(
        Variant("MiT-B0", (2, 2, 2, 2), 32),
        Variant("MiT-B1", (2, 2, 2, 2), 64),
        Variant("MiT-B2", (3, 4, 6, 3), 64),
        Variant("MiT-B3", (3, 4, 18, 3), 64),
        Variant("MiT-B4", (3, 8, 27, 3), 64),
        Variant("MiT-B5", (3, 6, 40, 3), 64),
    ),
    width_slot="mit.stage0.embed.proj.weight",
    outline="""
for s:
    stage{s}.embed.proj
    stage{s}.embed.norm
    for b:
        stage{s}.block{b}.norm1
        stage{s}.block{b}.attn.q
        stage{s}.block{b}.attn.sr
        stage{s}.block{b}.attn.norm
        stage{s}.block{b}.attn.k & stage{s}.block{b}.attn.v
        stage{s}.block{b}.attn.proj
        stage{s}.block{b}.norm2
        stage{s}.block{b}.mlp.fc1
        stage{s}.block{b}.mlp.dwconv
        stage{s}.block{b}.mlp.fc2
    stage{s}.norm
""",
)

_NVIDIA = """
for s:
    patch_embed{s+1}.proj = stage{s}.embed.proj
    patch_embed{s+1}.norm = stage{s}.embed.norm
for s:
    for b:
        block{s+1}.{b}.norm1 = stage{s}.block{b}.norm1
        block{s+1}.{b}.attn.q = stage{s}.block{b}.attn.q
        block{s+1}.{b}.attn.kv = stage{s}.block{b}.attn.k | stage{s}.block{b}.attn.v
        block{s+1}.{b}.attn.proj = stage{s}.block{b}.attn.proj
        ? block{s+1}.{b}.attn.sr = stage{s}.block{b}.attn.sr
        ? block{s+1}.{b}.attn.norm = stage{s}.block{b}.attn.norm
        block{s+1}.{b}.norm2 = stage{s}.block{b}.norm2
        block{s+1}.{b}.mlp.fc1 = stage{s}.block{b}.mlp.fc1
        block{s+1}.{b}.mlp.dwconv.dwconv = stage{s}.block{b}.mlp.dwconv
        block{s+1}.{b}.mlp.fc2 = stage{s}.block{b}.mlp.fc2
    norm{s+1} = stage{s}.norm
"""

MIT_TRANSFORMERS = Layout(  # files on the Hub
    name="mit/transformers",
    component=MIT,
    prefixes=("segformer.encoder.", "encoder."),
    table="""
for s:
    patch_embeddings.{s}.proj = stage{s}.embed.proj
    patch_embeddings.{s}.layer_norm = stage{s}.embed.norm
for s:
    for b:
        block.{s}.{b}.layer_norm_1 = stage{s}.block{b}.norm1
        block.{s}.{b}.attention.self.query = stage{s}.block{b}.attn.q
        block.{s}.{b}.attention.self.key = stage{s}.block{b}.attn.k
        block.{s}.{b}.attention.self.value = stage{s}.block{b}.attn.v
        ? block.{s}.{b}.attention.self.sr = stage{s}.block{b}.attn.sr
        ? block.{s}.{b}.attention.self.layer_norm = stage{s}.block{b}.attn.norm
        block.{s}.{b}.attention.output.dense = stage{s}.block{b}.attn.proj
        block.{s}.{b}.layer_norm_2 = stage{s}.block{b}.norm2
        block.{s}.{b}.mlp.dense1 = stage{s}.block{b}.mlp.fc1
        block.{s}.{b}.mlp.dwconv.dwconv = stage{s}.block{b}.mlp.dwconv
        block.{s}.{b}.mlp.dense2 = stage{s}.block{b}.mlp.fc2
for s:
    layer_norm.{s} = stage{s}.norm
""",
)

MIT_TRANSFORMERS_RUNTIME = Layout(  # transformers 5, in memory
    name="mit/transformers-runtime",
    component=MIT,
    prefixes=("segformer.", ""),
    table="""
for s:
    stages.{s}.patch_embeddings.proj = stage{s}.embed.proj
    stages.{s}.patch_embeddings.layer_norm = stage{s}.embed.norm
    for b:
        stages.{s}.blocks.{b}.layernorm_before = stage{s}.block{b}.norm1
        stages.{s}.blocks.{b}.attention.q_proj = stage{s}.block{b}.attn.q
        stages.{s}.blocks.{b}.attention.k_proj = stage{s}.block{b}.attn.k
        stages.{s}.blocks.{b}.attention.v_proj = stage{s}.block{b}.attn.v
        stages.{s}.blocks.{b}.attention.o_proj = stage{s}.block{b}.attn.proj
        ? stages.{s}.blocks.{b}.attention.sequence_reduction.sequence_reduction = stage{s}.block{b}.attn.sr
        ? stages.{s}.blocks.{b}.attention.sequence_reduction.layer_norm = stage{s}.block{b}.attn.norm
        stages.{s}.blocks.{b}.layernorm_after = stage{s}.block{b}.norm2
        stages.{s}.blocks.{b}.mlp.fc1 = stage{s}.block{b}.mlp.fc1
        stages.{s}.blocks.{b}.mlp.dwconv.dwconv = stage{s}.block{b}.mlp.dwconv
        stages.{s}.blocks.{b}.mlp.fc2 = stage{s}.block{b}.mlp.fc2
    stages.{s}.layer_norm = stage{s}.norm
""",
)

MIT_NVIDIA = Layout(  # also DAFormer, HRDA, MIC, PiPa, EDAPS; ImageNet weights have no prefix
    name="mit/nvidia",
    component=MIT,
    prefixes=("backbone.", ""),
    table=_NVIDIA,
    also=("daformer", "hrda", "mic", "pipa", "edaps", "edaps-bottomup"),
)

MIT_SMP = Layout(name="mit/smp", component=MIT, prefixes=("encoder.",), table=_NVIDIA)

MIT_MMSEG = Layout(
    name="mit/mmseg",
    component=MIT,
    prefixes=("backbone.", ""),
    table="""
for s:
    layers.{s}.0.projection = stage{s}.embed.proj
    layers.{s}.0.norm = stage{s}.embed.norm
    for b:
        layers.{s}.1.{b}.norm1 = stage{s}.block{b}.norm1
        layers.{s}.1.{b}.attn.attn.in_proj_{leaf} = \
stage{s}.block{b}.attn.q.{leaf} | stage{s}.block{b}.attn.k.{leaf} | stage{s}.block{b}.attn.v.{leaf}
        layers.{s}.1.{b}.attn.attn.out_proj = stage{s}.block{b}.attn.proj
        ? layers.{s}.1.{b}.attn.sr = stage{s}.block{b}.attn.sr
        ? layers.{s}.1.{b}.attn.norm = stage{s}.block{b}.attn.norm
        layers.{s}.1.{b}.norm2 = stage{s}.block{b}.norm2
        layers.{s}.1.{b}.ffn.layers.0 = stage{s}.block{b}.mlp.fc1 (1x1)
        layers.{s}.1.{b}.ffn.layers.1 = stage{s}.block{b}.mlp.dwconv
        layers.{s}.1.{b}.ffn.layers.4 = stage{s}.block{b}.mlp.fc2 (1x1)
    layers.{s}.2 = stage{s}.norm
""",
)

LAYOUTS = (MIT_TRANSFORMERS, MIT_TRANSFORMERS_RUNTIME, MIT_NVIDIA, MIT_SMP, MIT_MMSEG)
