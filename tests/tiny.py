"""Networks, images and data sets small enough for tests that run whole commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import hf_lwmm
from hf_lwmm import EvaluationSpec
from hf_lwmm.networks import DeepLabV2Config, DeepLabV2ForSemanticSegmentation

NAMES = ("road", "sky", "car")


FOUR_STAGES: dict[str, Any] = {
    "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4],
    "decoder_hidden_size": 16,
}  # fmt: skip
TWO_STAGES: dict[str, Any] = {
    "num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [8, 16], "num_attention_heads": [1, 2],
    "sr_ratios": [4, 2], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2], "decoder_hidden_size": 8,
}  # fmt: skip


def segformer(folder: Path, seed: int, names: tuple[str, ...] = NAMES, stages: Mapping[str, Any] = FOUR_STAGES) -> Path:
    """Save a SegFormer with weights of its own."""
    torch.manual_seed(seed)
    config = SegformerConfig(id2label=dict(enumerate(names)), layer_norm_eps=1e-6, **stages)
    network = SegformerForSemanticSegmentation(config)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = 0.3 * torch.randn_like(tensor)
            tensor += noise.abs() if name.endswith("running_var") else noise
    network.save_pretrained(folder)
    return folder


def deeplab(folder: Path, seed: int, eps: float) -> Path:
    """A tiny DeepLabV2 whose BatchNorm is frozen, without an epsilon, if `eps` is 0."""
    torch.manual_seed(seed)
    config = DeepLabV2Config(
        depths=(1, 1, 1, 1), width=4, block="basic", batch_norm_eps=eps, id2label=dict(enumerate(NAMES))
    )
    network = DeepLabV2ForSemanticSegmentation(config)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.startswith("layer6") and tensor.ndim == 4:
            tensor.normal_(0, 0.5)
    network.save_pretrained(folder)
    return folder


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Read the weights of the network in a folder."""
    return load_file(folder / "model.safetensors")


def scene(seed: int) -> tuple[Image.Image, np.ndarray]:
    """An image of 64x48 and its label, with void."""
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 4, (6, 8), np.uint8)
    small[small == 3] = 255
    colours = draw.integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(colours).resize((64, 48), 0), np.kron(small, np.ones((8, 8), np.uint8))


def tree(root: Path, count: int = 5, images: str = "images", labels: str = "labels") -> Path:
    """A folder of scenes, as files that lie beside each other."""
    for seed in range(count):
        image, label = scene(seed)
        for name, picture in ((images, image), (labels, Image.fromarray(label))):
            (root / name).mkdir(parents=True, exist_ok=True)
            picture.save(root / name / f"{seed}.png")
    return root


def masks(root: Path, values: Any, count: int = 2, dtype: Any = np.uint8) -> Path:
    """Images, and labels whose pixels have the values."""
    tree(root, count)
    for seed, path in enumerate(sorted((root / "labels").iterdir())):
        ids = np.random.default_rng(seed).choice(np.array(values, dtype), (6, 8))
        Image.fromarray(np.kron(ids, np.ones((8, 8), dtype))).save(path)
    return root


def mean(model: Path, data: Any, spec: EvaluationSpec = EvaluationSpec()) -> float:
    """The mean over classes that a model reaches."""
    found = hf_lwmm.evaluate([model], data, evaluation=spec)
    assert found is not None
    return found.models[0].mean
