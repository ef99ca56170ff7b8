"""The rendered streets, and the shipped models that were trained on them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.uda.streets import CLASSES, IGNORE, STYLES, THINGS, render  # noqa: E402


@pytest.mark.parametrize("style", STYLES)
def test_a_seed_gives_one_scene_with_valid_labels(style: str) -> None:
    scene, again, other = render(style, 3, (160, 120)), render(style, 3, (160, 120)), render(style, 4, (160, 120))
    assert np.array_equal(scene.image, again.image) and np.array_equal(scene.labels, again.labels)
    assert np.array_equal(scene.instances, again.instances)
    assert not np.array_equal(scene.image, other.image)
    assert scene.image.shape == (120, 160, 3) and scene.labels.shape == scene.instances.shape == (120, 160)
    assert scene.image.dtype == scene.labels.dtype == np.uint8 and scene.instances.dtype == np.int32
    assert set(np.unique(scene.labels)) <= {*range(11), IGNORE}


@pytest.mark.parametrize("style", STYLES)
def test_every_thing_is_an_instance_of_one_class(style: str) -> None:
    for seed in range(6):
        scene = render(style, seed, (160, 120))
        assert np.array_equal(scene.instances > 0, np.isin(scene.labels, THINGS))
        for number in np.unique(scene.instances[scene.instances > 0]):
            assert len(np.unique(scene.labels[scene.instances == number])) == 1


@pytest.mark.parametrize("style", STYLES)
def test_streets_show_every_class_and_look_like_streets(style: str) -> None:
    labels = np.stack([render(style, seed, (160, 120), every_class=True).labels for seed in range(40)])
    share = dict(zip(CLASSES, np.bincount(labels.ravel(), minlength=11) / labels.size, strict=True))
    assert min(share.values()) > 0.001
    assert 0.2 < share["road"] < 0.5 and share["building"] > 0.1 and share["sky"] > 0.05
    assert (labels[:, :10] == CLASSES.index("road")).mean() < 0.001  # no road in the sky
    assert (labels[:, -10:] == CLASSES.index("sky")).mean() < 0.001


def test_synthia_leaves_two_classes_unlabelled() -> None:
    scene, whole = render("synthia", 1), render("synthia", 1, every_class=True)
    hidden = np.isin(whole.labels, (CLASSES.index("sign"), CLASSES.index("fence")))
    assert np.array_equal(scene.image, whole.image)
    assert hidden.any() and np.array_equal(scene.labels == IGNORE, hidden)


def test_a_scene_keeps_its_layout_at_any_size() -> None:
    small, large = render("gta", 2, (160, 120)).labels, render("gta", 2, (320, 240)).labels[::2, ::2]
    assert (small == large).mean() > 0.85


def test_styles_look_different() -> None:
    means = [np.mean([render(style, seed, (160, 120)).image.mean() for seed in range(8)]) for style in STYLES]
    assert max(means) - min(means) > 30


@pytest.mark.parametrize(("name", "style"), [("streets-day", "gta"), ("streets-synthia", "synthia")])
def test_the_shipped_models_see_streets(name: str, style: str) -> None:
    from transformers import SegformerForSemanticSegmentation

    from scripts.quickstart.train import MODELS, mean_iou

    assert (MODELS / name / "model.safetensors").stat().st_size < 1_500_000
    model = SegformerForSemanticSegmentation.from_pretrained(MODELS / name).float().eval()
    assert mean_iou(model, style, count=10) > 0.3
