"""Re-estimated BatchNorm statistics: kept where they are better, or mixed with the merged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from calls import lwmm, merge
from tiny import segformer, tensors, tree

import hf_lwmm
from hf_lwmm import ImageSource, Knobs
from hf_lwmm.calibration.bn_choice import better_bn_stats, mean_entropy
from hf_lwmm.data.unlabelled import open_unlabelled_images
from hf_lwmm.errors import PlanError
from hf_lwmm.recipes.recipe import read_recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with labelled images and bare ones, and their merges with merged and with re-estimated statistics."""
    folder = tmp_path_factory.mktemp("world")
    for seed, name in enumerate(("one", "two"), 1):
        segformer(folder / name, seed)
    tree(folder / "labelled", 4)
    tree(folder / "bare", 4, images="pictures")
    merged(folder, "linear")
    merged(folder, "estimated", bn_stats="recalibrate", bn_mix=1, bn_images=folder / "labelled")
    return folder


def merged(world: Path, name: str, **options: Any) -> hf_lwmm.MergeResult:
    return merge([world / "one", world / "two"], output=world / name, overwrite=True, **options)


def written(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def recorded(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "hf_lwmm.yaml").read_text())
    return found


def test_a_mix_lies_between_merged_and_estimated_statistics(world: Path) -> None:
    result = merged(world, "mixed", bn_stats="recalibrate", bn_mix=0.25, bn_images=world / "labelled")
    found, linear, estimated = (tensors(world / name) for name in ("mixed", "linear", "estimated"))
    for name, values in found.items():
        expected = linear[name] + (0.25 if "running" in name else 0) * (estimated[name] - linear[name])
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7, err_msg=name)
    assert any(not np.array_equal(found[name], linear[name]) for name in found)
    assert recorded(world / "mixed")["knobs"]["bn_mix"] == 0.25 and "--bn-mix 0.25" in result.card
    assert "and mixed with the merged ones (0.25 of the estimates)" in result.card


def test_the_better_statistics_by_score_are_kept_where_there_are_labels(world: Path) -> None:
    scored = hf_lwmm.evaluate([world / "linear", world / "estimated"], world / "labelled")
    assert scored is not None
    before, after = (model.mean for model in scored.models)
    result = merged(world, "decided", bn_stats="recalibrate", bn_images=world / "labelled")
    better = "estimated" if after > before else "linear"
    assert written(world / "decided") == written(world / better)
    (note,) = (note for note in result.notes if note.startswith("BatchNorm's statistics: kept the"))
    assert f"{100 * after:.2f} mIoU re-estimated against {100 * before:.2f} merged" in note
    knobs = recorded(world / "decided")["knobs"]
    assert (knobs["bn_stats"], knobs["bn_mix"]) == (("recalibrate", 1.0) if better == "estimated" else ("linear", None))
    assert ("bn_images" in recorded(world / "decided")) == (better == "estimated")


def test_of_equal_statistics_the_merged_ones_are_kept(world: Path) -> None:
    for folder in ("labelled", "bare/pictures"):
        source = ImageSource(world / folder)
        network = hf_lwmm.load(world / "linear")
        found = better_bn_stats(network, network, open_unlabelled_images(source), source)
        assert not found.estimated and "merged" in found.note


def test_without_labels_the_surer_network_is_kept(world: Path) -> None:
    pictures = open_unlabelled_images(world / "bare/pictures")
    networks = [hf_lwmm.load(world / name) for name in ("linear", "estimated")]
    before, after = (mean_entropy(each, pictures) for each in networks)
    assert 0 < before < 1 and 0 < after < 1
    result = merged(world, "surer", bn_stats="recalibrate", bn_images=world / "bare/pictures")
    assert written(world / "surer") == written(world / ("estimated" if after < before else "linear"))
    assert any(f"{after:.4f} re-estimated against {before:.4f} merged" in note for note in result.notes)


def test_the_entropy_is_that_of_the_outputs(world: Path) -> None:
    loaded, pictures = hf_lwmm.load(world / "one"), open_unlabelled_images(world / "bare/pictures")
    expected = []
    for index in range(pictures.count):
        pixels = loaded.image_processor(pictures.read(index).image, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            p = loaded.model(pixels).logits.softmax(1).numpy().astype(np.float64)
        expected.append(-(p * np.log(p)).sum(1).mean() / np.log(3))
    assert mean_entropy(loaded, pictures) == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_mix_of_nothing_is_refused_and_old_recipes_estimate_all(world: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--bn-mix mixes estimated with merged statistics"):
        merged(world, "never", bn_mix=0.5)
    with pytest.raises(PlanError, match=r"--bn-mix 2\.0 must be at least 0 and at most 1"):
        Knobs(bn_stats="recalibrate", bn_mix=2)
    text = "models: [org/a, org/b]\nknobs: {bn_stats: recalibrate}\n"
    assert (
        read_recipe(text).knobs.bn_mix == 1 and read_recipe(text.replace("recalibrate", "linear")).knobs.bn_mix is None
    )
    recipe = tmp_path / "hf_lwmm.yaml"
    recipe.write_text(f"models: [{world / 'one'}, {world / 'two'}]\nknobs: {{bn_stats: recalibrate, bn_mix: 0.5}}\n")
    done = lwmm("merge", "--recipe", recipe, "--bn-stats", "linear", "--output", tmp_path / "out")
    assert done.exit_code == 0 and written(tmp_path / "out") == written(world / "linear")
    images = ["--bn-data", world / "labelled", "--bn-ids", "from-0"]
    done = lwmm("merge", "--recipe", recipe, *images, "--bn-mix", 1, "--output", tmp_path / "all")
    assert done.exit_code == 0 and written(tmp_path / "all") == written(world / "estimated"), done.stderr
    assert ImageSource("d", ids="from-0").ids == recorded(tmp_path / "all")["bn_images"]["ids"]
