"""ViT and DeiT, as in timm, in transformers (files on the Hub; in memory since version 5) and in CoNMix's hybrid."""

from __future__ import annotations

from hf_lwmm.layouts.layout import Component, Layout, Variant
from hf_lwmm.layouts.tables.classifiers import IMAGENET

# Hybrids embed the output of a ResNet's first three stages. All transformer blocks count as one stage.
VIT = Component(
    name="vit",
    kind="backbone",
    title="ViT",
    variants=(
        Variant("ViT-Ti", (12,), 192),
        Variant("ViT-S", (12,), 384),
        Variant("ViT-B", (12,), 768),
        Variant("ViT-L", (24,), 1024),
        Variant("ViT-H", (32,), 1280),
    ),
    width_slot="vit.stage0.block0.norm1.weight",
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
embed.class!
embed.distillation!
embed.mask!
embed.position!
for b:
    stage0.block{b}.norm1
    stage0.block{b}.attn.q
    stage0.block{b}.attn.k & stage0.block{b}.attn.v
    stage0.block{b}.attn.proj
    stage0.block{b}.norm2
    stage0.block{b}.mlp.fc1
    stage0.block{b}.mlp.fc2
norm
pooler
projection
""",
)

VIT_TIMM = Layout(
    name="vit/timm",
    component=VIT,
    table="""
cls_token! = embed.class!
pos_embed! = embed.position!
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
for b:
    blocks.{b}.norm1 = stage0.block{b}.norm1
    blocks.{b}.attn.qkv = stage0.block{b}.attn.q | stage0.block{b}.attn.k | stage0.block{b}.attn.v
    blocks.{b}.attn.proj = stage0.block{b}.attn.proj
    blocks.{b}.norm2 = stage0.block{b}.norm2
    blocks.{b}.mlp.fc1 = stage0.block{b}.mlp.fc1
    blocks.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
norm = norm
""",
)

VIT_TRANSFORMERS = Layout(
    name="vit/transformers",
    component=VIT,
    prefixes=("vit.", "deit.", ""),
    table="""
embeddings.cls_token! = embed.class!
? embeddings.mask_token! = embed.mask!
embeddings.position_embeddings! = embed.position!
? embeddings.distillation_token! = embed.distillation!
embeddings.patch_embeddings.projection = embed.proj
for b:
    encoder.layer.{b}.attention.attention.query = stage0.block{b}.attn.q
    encoder.layer.{b}.attention.attention.key = stage0.block{b}.attn.k
    encoder.layer.{b}.attention.attention.value = stage0.block{b}.attn.v
    encoder.layer.{b}.attention.output.dense = stage0.block{b}.attn.proj
    encoder.layer.{b}.intermediate.dense = stage0.block{b}.mlp.fc1
    encoder.layer.{b}.output.dense = stage0.block{b}.mlp.fc2
    encoder.layer.{b}.layernorm_before = stage0.block{b}.norm1
    encoder.layer.{b}.layernorm_after = stage0.block{b}.norm2
layernorm = norm
? pooler.dense = pooler
""",
)

VIT_TRANSFORMERS_RUNTIME = Layout(
    name="vit/transformers-runtime",
    component=VIT,
    prefixes=("vit.", "deit.", ""),
    table="""
embeddings.cls_token! = embed.class!
? embeddings.mask_token! = embed.mask!
embeddings.position_embeddings! = embed.position!
? embeddings.distillation_token! = embed.distillation!
embeddings.patch_embeddings.projection = embed.proj
for b:
    layers.{b}.attention.q_proj = stage0.block{b}.attn.q
    layers.{b}.attention.k_proj = stage0.block{b}.attn.k
    layers.{b}.attention.v_proj = stage0.block{b}.attn.v
    layers.{b}.attention.o_proj = stage0.block{b}.attn.proj
    layers.{b}.layernorm_before = stage0.block{b}.norm1
    layers.{b}.layernorm_after = stage0.block{b}.norm2
    layers.{b}.mlp.fc1 = stage0.block{b}.mlp.fc1
    layers.{b}.mlp.fc2 = stage0.block{b}.mlp.fc2
layernorm = norm
? pooler.dense = pooler
""",
)

VIT_CONMIX = Layout(  # TransUNet's encoder; `decoder.fc` projects its output for CoNMix's classifier
    name="vit/conmix",
    component=VIT,
    prefixes=("feature_extractor.", "netF::feature_extractor."),
    table="""
? transformer.embeddings.position_embeddings! = embed.position!
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

LAYOUTS = (VIT_TIMM, VIT_TRANSFORMERS, VIT_TRANSFORMERS_RUNTIME, VIT_CONMIX)
HEADS = (IMAGENET_TIMM, IMAGENET_TRANSFORMERS)
