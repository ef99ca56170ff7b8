"""ViT, DeiT, DeiT-3 and MAE, in timm, transformers (files; in memory since version 5), MMSegmentation, CoNMix's hybrid.

The component holds their kin, too: CLIP and SigLIP (`clip`) and DINOv2 (`dinov2`), whose blocks have the same modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hf_lwmm.layouts.forms import Shape
from hf_lwmm.layouts.layout import Component, Kin, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

# Hybrids embed the output of a ResNet's first three stages. All transformer blocks count as one stage. Where the class
# token has no position, as in DeiT-3 and in timm's DINOv2 with registers, training or a conversion has added it to the
# token.
VIT = Component(
    name="vit",
    kind="backbone",
    title="ViT",
    variants=(
        Variant("ViT-Ti", (12,), 192),
        Variant("ViT-S", (12,), 384),
        Variant("ViT-B", (12,), 768),
        Variant("ViT-L", (24,), 1024),
        Variant("ViT-SO400M", (27,), 1152),
        Variant("ViT-H", (32,), 1280),
        Variant("ViT-g", (40,), 1408),
        Variant("ViT-g", (40,), 1536),
        Variant("ViT-bigG", (48,), 1664),
    ),
    width_slot="vit.stage0.block0.norm1.weight",
    kin=(
        Kin("SigLIP", ("pool.probe",)),
        Kin("CLIP", ("embed.norm.weight",)),
        Kin("DINOv2", ("embed.class", "embed.registers", "stage0.block0.scale1")),
        Kin("DINOv2", ("embed.class", "embed.token_position", "stage0.block0.scale1")),
        Kin("DeiT-3", ("embed.class", "stage0.block0.scale1")),
    ),
    outline="""
hybrid.stem.conv
hybrid.stem.norm
for s:
    for b:
        hybrid.stage{s}.block{b}.downsample.conv
        hybrid.stage{s}.block{b}.downsample.norm
        hybrid.stage{s}.block{b}.conv1
        hybrid.stage{s}.block{b}.norm1
        hybrid.stage{s}.block{b}.conv2
        hybrid.stage{s}.block{b}.norm2
        hybrid.stage{s}.block{b}.conv3
        hybrid.stage{s}.block{b}.norm3
embed.proj
embed.class! (with embed.token_position)
embed.distillation!
embed.mask! (pretraining)
embed.token_position! & embed.position! (grid)
embed.position_ids! (constant)
embed.registers!
embed.norm
for b:
    stage0.block{b}.norm1
    stage0.block{b}.attn.q
    stage0.block{b}.attn.k & stage0.block{b}.attn.v
    stage0.block{b}.attn.proj
    stage0.block{b}.scale1!
    stage0.block{b}.norm2
    stage0.block{b}.mlp.gate
    stage0.block{b}.mlp.fc1
    stage0.block{b}.mlp.fc2
    stage0.block{b}.scale2!
norm
pool.probe!
pool.q
pool.k & pool.v
pool.proj
pool.norm
pool.fc1
pool.fc2
pooled
pooler
projection
""",
)

TIMM_BLOCKS = """
for b:
    no blocks.{b}.attn.q_bias!  # BEiT, EVA
    blocks.{b}.norm1 = stage0.block{b}.norm1
    blocks.{b}.attn.qkv = stage0.block{b}.attn.q | stage0.block{b}.attn.k | stage0.block{b}.attn.v
    blocks.{b}.attn.proj = stage0.block{b}.attn.proj
    ? blocks.{b}.ls1.gamma! = stage0.block{b}.scale1!
    blocks.{b}.norm2 = stage0.block{b}.norm2
    blocks.{b}.mlp.fc1 = stage0.block{b}.mlp.fc1
    blocks.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
    ? blocks.{b}.ls2.gamma! = stage0.block{b}.scale2!
"""


def _has_gate(shape_of: Callable[[str], Shape]) -> bool:
    first, second = (shape_of(f"stage0.block0.mlp.fc{i}.weight") for i in (1, 2))
    return first[:1] == tuple(2 * width for width in second[1:2]) != ()


def _has_no_gate(shape_of: Callable[[str], Shape]) -> bool:
    return not _has_gate(shape_of)


def _gated(layout: Layout) -> Layout:
    """Return timm's layout of a network whose feed-forward layers have a gate, stacked on what it gates."""
    table = layout.table.replace("= stage0.block{b}.mlp.fc1", "= stage0.block{b}.mlp.gate | stage0.block{b}.mlp.fc1")
    return replace(layout, name=f"{layout.name}-gated", also=("timm",), told_by=_has_gate, table=table)


VIT_TIMM = Layout(
    name="vit/timm",
    component=VIT,
    also=("mae",),
    told_by=_has_no_gate,
    table="""
cls_token! = embed.class!
pos_embed! = embed.token_position! | embed.position! (tokens?)
? dist_token! = embed.distillation!
? patch_embed.backbone.stem.conv = hybrid.stem.conv
? patch_embed.backbone.stem.norm = hybrid.stem.norm
for s:
    for b:
        ? patch_embed.backbone.stages.{s}.blocks.{b}.downsample.conv = hybrid.stage{s}.block{b}.downsample.conv
        ? patch_embed.backbone.stages.{s}.blocks.{b}.downsample.norm = hybrid.stage{s}.block{b}.downsample.norm
        ? patch_embed.backbone.stages.{s}.blocks.{b}.conv1 = hybrid.stage{s}.block{b}.conv1
        ? patch_embed.backbone.stages.{s}.blocks.{b}.norm1 = hybrid.stage{s}.block{b}.norm1
        ? patch_embed.backbone.stages.{s}.blocks.{b}.conv2 = hybrid.stage{s}.block{b}.conv2
        ? patch_embed.backbone.stages.{s}.blocks.{b}.norm2 = hybrid.stage{s}.block{b}.norm2
        ? patch_embed.backbone.stages.{s}.blocks.{b}.conv3 = hybrid.stage{s}.block{b}.conv3
        ? patch_embed.backbone.stages.{s}.blocks.{b}.norm3 = hybrid.stage{s}.block{b}.norm3
patch_embed.proj = embed.proj
? norm_pre = embed.norm
"""
    + TIMM_BLOCKS
    + """
? norm = norm
? fc_norm = pooled
""",
)

VIT_TIMM_REGISTERS = Layout(  # their class token holds its position
    name="vit/timm-registers",
    component=VIT,
    also=("timm",),
    told_by=_has_no_gate,
    table="""
cls_token! = embed.class!
reg_token! = embed.registers!
pos_embed! = embed.position!
patch_embed.proj = embed.proj
"""
    + TIMM_BLOCKS
    + """
? norm = norm
? fc_norm = pooled
""",
)

_HUB_BLOCKS = """
for b:
    encoder.layer.{b}.attention.attention.query = stage0.block{b}.attn.q
    encoder.layer.{b}.attention.attention.key = stage0.block{b}.attn.k
    encoder.layer.{b}.attention.attention.value = stage0.block{b}.attn.v
    encoder.layer.{b}.attention.output.dense = stage0.block{b}.attn.proj
    encoder.layer.{b}.intermediate.dense = stage0.block{b}.mlp.fc1
    encoder.layer.{b}.output.dense = stage0.block{b}.mlp.fc2
    encoder.layer.{b}.layernorm_before = stage0.block{b}.norm1
    encoder.layer.{b}.layernorm_after = stage0.block{b}.norm2
"""

_MEMORY_BLOCKS = """
for b:
    layers.{b}.attention.q_proj = stage0.block{b}.attn.q
    layers.{b}.attention.k_proj = stage0.block{b}.attn.k
    layers.{b}.attention.v_proj = stage0.block{b}.attn.v
    layers.{b}.attention.o_proj = stage0.block{b}.attn.proj
    layers.{b}.layernorm_before = stage0.block{b}.norm1
    layers.{b}.layernorm_after = stage0.block{b}.norm2
    layers.{b}.mlp.fc1 = stage0.block{b}.mlp.fc1
    layers.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
"""


def _transformers(name: str, blocks: str, *, distilled: bool) -> Layout:
    """The names of transformers, in which DeiT is always distilled."""
    distillation = "embeddings.distillation_token! = embed.distillation!" if distilled else ""
    return Layout(
        name=f"vit/{name}",
        component=VIT,
        prefixes=("deit." if distilled else "vit.", ""),
        also=("transformers",) if blocks is _HUB_BLOCKS else (),
        table=f"""
embeddings.cls_token! = embed.class!
? embeddings.mask_token! = embed.mask!
embeddings.position_embeddings! = embed.token_position! | embed.position! (tokens)
{distillation}
embeddings.patch_embeddings.projection = embed.proj
{blocks}
layernorm = norm
? pooler.dense = pooler
""",
    )


TRANSFORMERS = (
    _transformers("transformers-deit", _HUB_BLOCKS, distilled=True),
    _transformers("transformers", _HUB_BLOCKS, distilled=False),
    _transformers("transformers-deit-runtime", _MEMORY_BLOCKS, distilled=True),
    _transformers("transformers-runtime", _MEMORY_BLOCKS, distilled=False),
)

VIT_CONMIX = Layout(  # TransUNet's encoder; `decoder.fc` projects its output for CoNMix's classifier
    name="vit/conmix",
    component=VIT,
    prefixes=("feature_extractor.", "netF::feature_extractor."),
    table="""
? transformer.embeddings.position_embeddings! = embed.token_position! | embed.position! (tokens)
transformer.embeddings.hybrid_model.root.conv = hybrid.stem.conv
transformer.embeddings.hybrid_model.root.gn = hybrid.stem.norm
for s:
    for b:
        transformer.embeddings.hybrid_model.body.block{s+1}.unit{b+1}.gn1 = hybrid.stage{s}.block{b}.norm1
        transformer.embeddings.hybrid_model.body.block{s+1}.unit{b+1}.conv1 = hybrid.stage{s}.block{b}.conv1
        transformer.embeddings.hybrid_model.body.block{s+1}.unit{b+1}.gn2 = hybrid.stage{s}.block{b}.norm2
        transformer.embeddings.hybrid_model.body.block{s+1}.unit{b+1}.conv2 = hybrid.stage{s}.block{b}.conv2
        transformer.embeddings.hybrid_model.body.block{s+1}.unit{b+1}.gn3 = hybrid.stage{s}.block{b}.norm3
        transformer.embeddings.hybrid_model.body.block{s+1}.unit{b+1}.conv3 = hybrid.stage{s}.block{b}.conv3
        transformer.embeddings.hybrid_model.body.block{s+1}.unit{b+1}.downsample = \
            hybrid.stage{s}.block{b}.downsample.conv
        transformer.embeddings.hybrid_model.body.block{s+1}.unit{b+1}.gn_proj = \
            hybrid.stage{s}.block{b}.downsample.norm
transformer.embeddings.patch_embeddings = embed.proj
for b:
    transformer.encoder.layer.{b}.attention_norm = stage0.block{b}.norm1
    transformer.encoder.layer.{b}.ffn_norm = stage0.block{b}.norm2
    transformer.encoder.layer.{b}.ffn.fc1 = stage0.block{b}.mlp.fc1
    transformer.encoder.layer.{b}.ffn.fc2 = stage0.block{b}.mlp.fc2
    transformer.encoder.layer.{b}.attn.query = stage0.block{b}.attn.q
    transformer.encoder.layer.{b}.attn.key = stage0.block{b}.attn.k
    transformer.encoder.layer.{b}.attn.value = stage0.block{b}.attn.v
    transformer.encoder.layer.{b}.attn.out = stage0.block{b}.attn.proj
transformer.encoder.encoder_norm = norm
? decoder.fc = projection
""",
)

MMSEG_BLOCKS = """
for b:
    layers.{b}.ln1 = stage0.block{b}.norm1
    layers.{b}.attn.attn.in_proj_weight! = stage0.block{b}.attn.q.weight! | \
        stage0.block{b}.attn.k.weight! | stage0.block{b}.attn.v.weight!
    layers.{b}.attn.attn.in_proj_bias! = stage0.block{b}.attn.q.bias! | \
        stage0.block{b}.attn.k.bias! | stage0.block{b}.attn.v.bias!
    layers.{b}.attn.attn.out_proj = stage0.block{b}.attn.proj
    layers.{b}.ln2 = stage0.block{b}.norm2
    layers.{b}.ffn.layers.0.0 = stage0.block{b}.mlp.fc1
    layers.{b}.ffn.layers.1 = stage0.block{b}.mlp.fc2
"""

VIT_MMSEG = Layout(  # of SETR and Segmenter
    name="vit/mmseg",
    component=VIT,
    prefixes=("backbone.", ""),
    table="""
cls_token! = embed.class!
pos_embed! = embed.token_position! | embed.position! (tokens)
patch_embed.projection = embed.proj
? ln_pre = embed.norm
"""
    + MMSEG_BLOCKS
    + """
? ln1 = norm
""",
)

IMAGENET_TIMM = Layout(
    name="imagenet/vit-timm", component=IMAGENET, beside=VIT, table="head = classifier", also=("timm",)
)

IMAGENET_TRANSFORMERS = Layout(
    name="imagenet/vit-transformers",
    component=IMAGENET,
    beside=VIT,
    table="classifier = classifier",
    also=("transformers",),
)

LAYOUTS = (
    *(VIT_TIMM, VIT_TIMM_REGISTERS, _gated(VIT_TIMM), _gated(VIT_TIMM_REGISTERS)),
    *TRANSFORMERS,
    VIT_CONMIX,
    VIT_MMSEG,
)
HEADS = (IMAGENET_TIMM, IMAGENET_TRANSFORMERS)
