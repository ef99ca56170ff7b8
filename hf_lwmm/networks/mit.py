"""The Mix Transformer (MiT) backbone: transformers' `SegformerModel` with the epsilons of the original code bases."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerModel
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.segformer.modeling_segformer import SegformerPreTrainedModel

from .layers import semantic_loss


@strict
class MitConfig(SegformerConfig):
    """SegFormer's configuration; the networks here use the part that describes the backbone.

    Args:
        layer_norm_eps: epsilon of the normalisation in the blocks and after the stages.
        embedding_norm_eps: epsilon of the normalisation after patch embeddings and sequence reductions.
    """

    embedding_norm_eps: float = 1e-5

    @property
    def classes(self) -> int:
        """The number of classes of the network."""
        return len(self.id2label or ())


class MitPreTrainedModel(SegformerPreTrainedModel):
    """Base of the networks on a MiT backbone, which is their attribute `segformer`."""

    config: MitConfig
    config_class = MitConfig  # transformers does not resolve the annotation, a string here

    def __init__(self, config: MitConfig) -> None:
        super().__init__(config)
        self.segformer = SegformerModel(config)
        for name, module in self.segformer.named_modules():
            if isinstance(module, nn.LayerNorm):
                at_convolution = "patch_embeddings" in name or "sequence_reduction" in name
                module.eps = config.embedding_norm_eps if at_convolution else config.layer_norm_eps

    def features(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the four stages, (N, C_s, H / r, W / r) with r = 4, 8, 16, 32."""
        hidden_states: tuple[Tensor, ...] = self.segformer(pixel_values, output_hidden_states=True).hidden_states
        return hidden_states

    def wants_hidden_states(self, asked: bool | None) -> bool:
        """Return the caller's wish, or the configuration's default if it is None."""
        return bool(self.config.output_hidden_states if asked is None else asked)


class MitForSemanticSegmentation(MitPreTrainedModel):
    """Base of the networks whose `decode_head` turns the stages of a MiT backbone into logits."""

    decode_head: nn.Module

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SemanticSegmenterOutput:
        """Return logits (N, num_labels, H / 4, W / 4) of normalised RGB images (N, 3, H, W).

        Args:
            labels: (N, H, W) class ids; given these, the output has the cross-entropy as `loss`.
            output_hidden_states: also return the backbone's stages.
        """
        features = self.features(pixel_values)
        logits = self.decode_head(features)
        return SemanticSegmenterOutput(
            loss=None if labels is None else semantic_loss(logits, labels, self.config.semantic_loss_ignore_index),
            logits=logits,
            hidden_states=features if self.wants_hidden_states(output_hidden_states) else None,
        )
