"""Networks of every family in narrow layers, and pictures for them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from hf_lwmm.networks import (
    DAFormerConfig,
    DAFormerForSemanticSegmentation,
    DeepLabV2Config,
    DeepLabV2ForSemanticSegmentation,
    EDAPSConfig,
    EDAPSForPanopticSegmentation,
    FasterRCNNConfig,
    FasterRCNNForObjectDetection,
    HRDAConfig,
    HRDAForSemanticSegmentation,
)

LABELS = {"id2label": {0: "road", 1: "sky", 2: "car"}}
MIT: dict[str, Any] = {
    "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4], **LABELS
}  # fmt: skip
SMALL: dict[str, tuple[Any, Any]] = {
    "daformer": (DAFormerForSemanticSegmentation, DAFormerConfig(embedding_size=8, decoder_hidden_size=8, **MIT)),
    "hrda": (
        HRDAForSemanticSegmentation,
        HRDAConfig(
            embedding_size=8, decoder_hidden_size=8, attention_hidden_size=8,
            detail_crop_size=(32, 32), detail_crop_stride=(16, 16), **MIT,
        ),
    ),
    "edaps": (
        EDAPSForPanopticSegmentation,
        EDAPSConfig(
            embedding_size=8, decoder_hidden_size=8, fpn_hidden_size=8, box_hidden_size=16, mask_hidden_size=8,
            thing_ids=(2,), **MIT,
        ),
    ),
    "deeplab": (
        DeepLabV2ForSemanticSegmentation,
        DeepLabV2Config(
            system="adaptsegnet", summed_branches=2, multi_level=True, depths=(1, 1, 1, 1), width=8, **LABELS
        ),
    ),
    "faster_rcnn": (
        FasterRCNNForObjectDetection,
        FasterRCNNConfig(depths=(1, 1, 1, 1), width=4, fpn_hidden_size=8, box_hidden_size=16, **LABELS),
    ),
    "segformer": (SegformerForSemanticSegmentation, SegformerConfig(decoder_hidden_size=16, **MIT)),
}  # fmt: skip


def network(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    made, config = SMALL[name]
    model = made(copy.deepcopy(config)).eval()  # a test may change its network's configuration
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.05 * torch.rand_like(tensor)
    return model


def picture(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(values).resize(size, 3)


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def state(model: Any) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
