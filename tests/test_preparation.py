"""Models that see pictures in other numbers than the anchor are warned of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from calls import merge

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
