"""The Mix Transformer (MiT) backbone: transformers' `SegformerModel` with the epsilons of the original code bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel, SegformerConfig, SegformerModel
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.segformer.modeling_segformer import SegformerPreTrainedModel

from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts import COMPONENTS, Shape, SlotMap, map_slots
from hf_lwmm.models.layers import semantic_loss


@strict
class MitConfig(SegformerConfig):
    """SegFormer's configuration, of which the networks here use everything that concerns the backbone.

    Args:
        layer_norm_eps: epsilon of the normalisation in the blocks and after the stages.
        embedding_norm_eps: epsilon of the normalisation after patch embeddings and sequence reductions.
    """

    embedding_norm_eps: float = 1e-5

    @property
    def classes(self) -> int:
        """How many classes the network tells apart."""
        return len(self.id2label or ())


class MitPreTrainedModel(SegformerPreTrainedModel):
    """A network on a MiT backbone, which is its attribute `segformer`."""

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
        """The stages' outputs (N, C_s, H / 4, W / 4), (..., / 8), (..., / 16), (..., / 32)."""
        hidden_states: tuple[Tensor, ...] = self.segformer(pixel_values, output_hidden_states=True).hidden_states
        return hidden_states

    def wants_hidden_states(self, asked: bool | None) -> bool:
        return bool(self.config.output_hidden_states if asked is None else asked)


class MitForSemanticSegmentation(MitPreTrainedModel):
    """A MiT backbone and a `decode_head` that makes logits of its stages."""

    decode_head: nn.Module

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> SemanticSegmenterOutput:
        """Logits (N, num_labels, H / 4, W / 4) of normalised RGB images (N, 3, H, W).

        Args:
            labels: (N, H, W) class ids; with them the answer has the cross-entropy as `loss`.
            output_hidden_states: also return the backbone's stages.
        """
        features = self.features(pixel_values)
        logits = self.decode_head(features)
        return SemanticSegmenterOutput(
            loss=None if labels is None else semantic_loss(logits, labels, self.config.semantic_loss_ignore_index),
            logits=logits,
            hidden_states=features if self.wants_hidden_states(output_hidden_states) else None,
        )


Model = TypeVar("Model", bound=PreTrainedModel)


def require(slot_map: SlotMap, components: Sequence[str], network: str) -> None:
    """Check that a checkpoint has the parts of a network.

    Raises:
        LayoutError: naming the parts that it lacks.
    """
    found = {match.layout.component.name for match in slot_map.matches}
    if lacking := [COMPONENTS[name].title for name in components if name not in found]:
        raise LayoutError(
            f"This is no {network} checkpoint: it has no {' and no '.join(lacking)} (found: {slot_map.architecture}). "
            "`hf-lwmm inspect` shows what it holds."
        )


def backbone_fields(slot_map: SlotMap) -> dict[str, Any]:
    """The fields of a `MitConfig` that the shapes of a backbone's slots tell.

    Strides and attention heads leave no trace in shapes: a patch embedding with a k x k kernel has the stride
    (k + 1) / 2, and a head is as wide as the first stage, as in every published MiT.

    Raises:
        LayoutError: if the widths do not allow for that.
    """
    shapes = shapes_of(slot_map)
    stages = count(shapes, "mit.stage{}.embed.proj.weight")
    embeddings = [shapes[f"mit.stage{s}.embed.proj.weight"] for s in range(stages)]
    widths = [shape[0] for shape in embeddings]
    if odd := [width for width in widths if width % widths[0]]:
        raise LayoutError(f"Stages that are {odd} wide are no multiple of the first, {widths[0]}: is this a MiT?")
    reductions = [shapes.get(f"mit.stage{s}.block0.attn.sr.weight", (0, 0, 1, 1)) for s in range(stages)]
    return {
        "num_channels": embeddings[0][1],
        "num_encoder_blocks": stages,
        "depths": [count(shapes, f"mit.stage{s}.block{{}}.norm1.weight") for s in range(stages)],
        "hidden_sizes": widths,
        "num_attention_heads": [width // widths[0] for width in widths],
        "patch_sizes": [shape[2] for shape in embeddings],
        "strides": [(shape[2] + 1) // 2 for shape in embeddings],
        "sr_ratios": [shape[2] for shape in reductions],
        "mlp_ratios": [shapes[f"mit.stage{s}.block0.mlp.fc1.weight"][0] // widths[s] for s in range(stages)],
    }


def label_fields(slot_map: SlotMap, classifier: str, classes: Sequence[str]) -> dict[str, Any]:
    """The fields of a config that name the classes.

    Raises:
        LayoutError: if the classifier has another number of rows than there are names.
    """
    rows = shapes_of(slot_map)[classifier][0]
    if rows != len(classes):
        raise LayoutError(
            f"The checkpoint tells {rows} classes apart, but {len(classes)} labels were given "
            f"({', '.join(classes[:3])}, ...). Name its own label set."
        )
    names = dict(enumerate(classes))
    return {"id2label": names, "label2id": {name: row for row, name in names.items()}}


def check_slots(model: type[Model], config: MitConfig, slot_map: SlotMap) -> None:
    """Check that a checkpoint has every slot of a network, in the network's shapes. Allocates no weights.

    BatchNorm's counters may be absent: no forward pass reads them.

    Raises:
        LayoutError: listing what is absent and what has another shape.
    """
    with torch.device("meta"):
        tensors = model(config).state_dict()
    needed = shapes_of(map_slots({name: tuple(tensor.shape) for name, tensor in tensors.items()}))
    given = shapes_of(slot_map)
    absent = [slot for slot in needed if slot not in given and not slot.endswith("num_batches_tracked")]
    other = [f"{s} is {given[s]}, not {shape}" for s, shape in needed.items() if given.get(s, shape) != shape]
    if absent or other:
        faults = [f"{len(absent)} slots are absent ({_some(absent)})"] if absent else []
        faults += [f"{len(other)} have another shape ({_some(other)})"] if other else []
        raise LayoutError(f"The checkpoint does not fit a {model.__name__}: {'; '.join(faults)}.")


def shapes_of(slot_map: SlotMap) -> Mapping[str, Shape]:
    return {slot: atom.shape for slot, atom in slot_map.slots.items()}


def count(shapes: Mapping[str, Shape], slot: str) -> int:
    """How many of the slots `slot.format(0)`, `slot.format(1)`, ... there are."""
    number = 0
    while slot.format(number) in shapes:
        number += 1
    return number


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")
