"""Classifiers of whole images with one row: a sigmoid that tells one class from the background."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import ViTConfig, ViTForImageClassification

import hf_lwmm
from hf_lwmm.evaluation.inference import classify
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.planning.images import ImageSource


def classifier(folder: Path, bias: float, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16,
                       patch_size=8, id2label={0: "dog"})  # fmt: skip
    network = ViTForImageClassification(config)
    torch.nn.init.constant_(network.classifier.bias, bias)
    network.save_pretrained(folder)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images of the background and one of a dog."""
    for name, count in (("background", 3), ("dog", 1)):
        folder = tmp_path / "data" / "validation" / name
        folder.mkdir(parents=True)
        for seed in range(count):
            pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{seed}.png")
    return tmp_path / "data"


def test_one_row_says_yes_or_no(data: Path, tmp_path: Path) -> None:
    paths = [classifier(tmp_path / "never", -50.0), classifier(tmp_path / "always", 60.0)]
    never, always = map(hf_lwmm.load, paths)
    picture = Image.new("RGB", (16, 16))
    assert never.classes == ("background", "dog")
    assert classify([never], [picture]) == [0] and classify([always], [picture]) == [1]
    found = hf_lwmm.evaluate(paths, data, evaluation=EvaluationSpec(ensemble=True))
    assert found is not None and found.classes == ("background", "dog")
    assert [each.extras["overall accuracy"] for each in found.models[:2]] == [0.75, 0.25]


def test_fisher_information_of_one_row_is_that_of_the_sigmoid(data: Path, tmp_path: Path) -> None:
    path = classifier(tmp_path / "model", 0.3)
    measured = hf_lwmm.measure(path, ImageSource(data, "validation"), tmp_path / "f.safetensors")
    loaded, squares = hf_lwmm.load(path), []
    for file in sorted((data / "validation").rglob("*.png")):
        pixels = loaded.image_processor(Image.open(file), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            says = float(loaded.model(pixels).logits.sigmoid())
        squares.append((says - (file.parent.name == "dog")) ** 2)
    (bias,) = [found for slot, found in load_file(measured.path).items() if slot.endswith("classifier.bias")]
    assert bias == pytest.approx(np.mean(squares), rel=1e-4)
