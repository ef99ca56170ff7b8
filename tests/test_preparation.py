"""Pictures reach networks as transformers prepares them; models that see them in other numbers are warned of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import merge
from tiny import scene, segformer
from transformers import AutoImageProcessor, SegformerImageProcessor

import hf_lwmm

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LEVELS = {"image_mean": [255 * each for each in MEAN], "image_std": [255 * each for each in STD]}
IMAGENET = {"image_processor_type": "SegformerImageProcessor", "image_mean": MEAN, "image_std": STD}


def warned(models: list[Path], folder: Path, *settings: dict[str, Any] | None) -> bool:
    paths = []
    for number, (model, own) in enumerate(zip(models, settings, strict=False)):
        paths.append(Path(shutil.copytree(model, folder / str(number))))
        if own is not None:
            (paths[-1] / "preprocessor_config.json").write_text(json.dumps(own))
    found = merge(paths, output=folder / "out").warnings
    return any("1 normalises pictures otherwise than 0" in each for each in found)


@pytest.mark.parametrize(
    "other",
    [
        {**IMAGENET, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        {**IMAGENET, "image_mean": 0.5, "image_std": 0.5},
        {**IMAGENET, "do_rescale": False},
        {**IMAGENET, "do_normalize": False},
        {**LEVELS, "image_processor_type": "SegmentationImageProcessor", "channel_order": "BGR"},
    ],
)
def test_other_normalisation_is_warned_of(other: dict[str, Any], models: list[Path], tmp_path: Path) -> None:
    assert warned(models, tmp_path, IMAGENET, other)


@pytest.mark.parametrize(
    "other",
    [
        None,
        {"image_processor_type": "SegformerImageProcessor"},
        {**IMAGENET, "size": {"height": 64, "width": 64}, "rescale_factor": 0.00392156862745098},
        {**IMAGENET, **LEVELS, "do_rescale": False},
        {**LEVELS, "image_processor_type": "SegmentationImageProcessor"},
        {"image_mean": LEVELS["image_mean"][::-1], "image_std": LEVELS["image_std"][::-1],
         "image_processor_type": "SegmentationImageProcessor", "channel_order": "BGR"},
    ],
)  # fmt: skip
def test_the_same_normalisation_in_other_words_is_not(
    other: dict[str, Any] | None, models: list[Path], tmp_path: Path
) -> None:
    assert not warned(models, tmp_path, IMAGENET, other)


def test_a_repository_prepares_pictures_as_the_auto_class_does(tmp_path: Path) -> None:
    segformer(tmp_path / "a", 1)
    SegformerImageProcessor(size={"height": 40, "width": 56}).save_pretrained(tmp_path / "a")
    picture, _ = scene(0)
    ours = hf_lwmm.load(tmp_path / "a").image_processor(picture, return_tensors="pt")["pixel_values"]
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "a")(picture, return_tensors="pt")["pixel_values"]
    assert ours.shape[-2:] == (40, 56) and torch.equal(ours, theirs)
