"""The image classifiers of GLC and CoNMix: ResNet-50, a bottleneck, and a weight-normalised layer."""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from .resnet import ResNet


@strict
class BottleneckConfig(PreTrainedConfig):
    """A ResNet classifier with a bottleneck.

    Args:
        depths, width, block: those of `ResNet`, whose `kind` is `block`.
        bottleneck_size: channels between backbone and classifier.
        normalised: True if batch normalisation follows the bottleneck; some models of GLC have none.
    """

    model_type = "hf-lwmm-bottleneck"

    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    block: str = "bottleneck"
    bottleneck_size: int = 256
    normalised: bool = True


class Embedding(nn.Module):
    """A linear map to a few features, with batch normalisation if `normalised`."""

    def __init__(self, inputs: int, outputs: int, normalised: bool) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(outputs) if normalised else None
        self.bottleneck = nn.Linear(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.bottleneck(features)
        return embedded if self.bn is None else self.bn(embedded)


class WeightNormLinear(nn.Module):
    """A linear layer whose rows are stored as lengths (weight_g) and directions (weight_v)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_g = nn.Parameter(torch.ones(outputs, 1))
        self.weight_v = nn.Parameter(nn.init.xavier_normal_(torch.empty(outputs, inputs)))

    def forward(self, features: Tensor) -> Tensor:
        weight = self.weight_g * self.weight_v / self.weight_v.norm(dim=1, keepdim=True)
        return nn.functional.linear(features, weight, self.bias)


class Classifier(nn.Module):
    """The weight-normalised layer, under its name in the files."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.fc = WeightNormLinear(inputs, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits


class BottleneckForImageClassification(PreTrainedModel):
    """The network of GLC and CoNMix."""

    config: BottleneckConfig
    config_class = BottleneckConfig  # transformers does not resolve the annotation, a string here
    main_input_name = "pixel_values"

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__(config)
        self.backbone_layer = ResNet(config.depths, config.width, config.block)
        self.feat_embed_layer = Embedding(self.backbone_layer.channels[-1], config.bottleneck_size, config.normalised)
        self.class_layer = Classifier(config.bottleneck_size, len(config.id2label or ()))
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> ImageClassifierOutput:
        """Return logits (N, num_labels) of normalised RGB images (N, 3, H, W).

        Args:
            labels: (N,) class ids; given these, the output has the cross-entropy as `loss`.
            output_hidden_states: also return the stages, the pooled features and the bottleneck's.
        """
        stages = self.backbone_layer(pixel_values)
        pooled = stages[-1].mean(dim=(2, 3))
        embedded = self.feat_embed_layer(pooled)
        logits = self.class_layer(embedded)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return ImageClassifierOutput(
            loss=None if labels is None else nn.functional.cross_entropy(logits, labels),
            logits=logits,
            hidden_states=(*stages, pooled, embedded) if wanted else None,
        )
