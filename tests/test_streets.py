"""The rendered streets, and the shipped models that were trained on them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.uda.streets import IGNORE, STYLES, THINGS, render  # noqa: E402


@pytest.mark.parametrize("style", STYLES)
def test_a_seed_gives_one_scene_with_valid_labels(style: str) -> None:
    scene, again, other = render(style, 3, (160, 120)), render(style, 3, (160, 120)), render(style, 4, (160, 120))
    assert np.array_equal(scene.image, again.image) and np.array_equal(scene.labels, again.labels)
    assert not np.array_equal(scene.image, other.image)
    assert scene.image.shape == (120, 160, 3) and scene.labels.shape == scene.instances.shape == (120, 160)
    assert set(np.unique(scene.labels)) <= {*range(11), IGNORE}
    assert set(np.unique(scene.labels[scene.instances > 0])) <= set(THINGS)


def test_styles_look_different() -> None:
    means = [render(style, 5, (160, 120)).image.mean() for style in STYLES]
    assert max(means) - min(means) > 30


@pytest.mark.parametrize(("name", "style"), [("streets-day", "gta"), ("streets-synthia", "synthia")])
def test_the_shipped_models_see_streets(name: str, style: str) -> None:
    from transformers import SegformerForSemanticSegmentation

    from scripts.quickstart.train import MODELS, mean_iou

    assert (MODELS / name / "model.safetensors").stat().st_size < 1_500_000
    model = SegformerForSemanticSegmentation.from_pretrained(MODELS / name).float().eval()
    assert mean_iou(model, style, count=10) > 0.3
