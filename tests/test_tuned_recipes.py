"""Recipes of merges that looked at images: made again without them, or on the same ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import lwmm, merge
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from safetensors.numpy import load_file
from tiny import scene, tensors

import hf_lwmm
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.planning.images import ImageSource, read_image_provenance
from hf_lwmm.recipes.recipe import load_recipe


def test_decided_weights_travel_and_are_merged_again_without_the_data(
    hub: Any, api: Any, models: list[Path], bare: Path, tmp_path: Path
) -> None:
    for path in models[:2]:
        api.create_repo(f"local/{path.name}", exist_ok=True)
        api.upload_folder(folder_path=path, repo_id=f"local/{path.name}")
    pictures = Path(shutil.copytree(bare, tmp_path / "pictures"))
    command = ["merge", "local/one", "local/two", "--method", "adaptive", "--tune-data", pictures, "--push"]
    done = lwmm(*command, "local/adapted", "--option", "images=2", "--option", "passes=10")
    assert done.exit_code == 0, done.output
    assert "Layer weights decided on pictures, split train (5 images):" in done.stderr
    shutil.rmtree(pictures)
    again = hf_lwmm.reproduce("local/adapted")
    assert again.same, again
    card = api.hf_hub_download("local/adapted", "README.md")
    text = Path(card).read_text()
    assert "Its weights were decided on `pictures` (a local folder), split train (5 images)." in text
    assert "--tune-data pictures --tune-split train --tune-limit 5" in text and str(tmp_path) not in text
    # The recipe merges in another type, too, and from the same weights.
    recipe = api.hf_hub_download("local/adapted", "hf_lwmm.yaml")
    done = lwmm("merge", "--recipe", recipe, "--dtype", "float16", "--output", tmp_path / "half")
    assert done.exit_code == 0, done.output
    exact = load_file(api.hf_hub_download("local/adapted", "model.safetensors"))
    for name, values in tensors(tmp_path / "half").items():
        np.testing.assert_allclose(values.astype(np.float32), exact[name], rtol=2e-3, atol=1e-4)
    # Of another anchor they mean nothing.
    done = lwmm("merge", "--recipe", recipe, "--anchor", "local/two", "--output", tmp_path / "other")
    assert isinstance(done.exception, PlanError) and "name them with --tune-data" in str(done.exception)


def test_statistics_are_estimated_again_on_the_same_commit(
    hub: Any, api: Any, models: list[Path], tmp_path: Path
) -> None:
    for path in models[:2]:
        api.create_repo(f"local/{path.name}", exist_ok=True)
        api.upload_folder(folder_path=path, repo_id=f"local/{path.name}")
    rows = Dataset.from_dict({"image": [scene(seed)[0] for seed in range(3)]}, Features({"image": ImageFeature()}))
    rows.push_to_hub("local/unlabelled", split="train")
    images = ImageSource("local/unlabelled", limit=2)
    result = merge(
        ["local/one", "local/two"], push="local/estimated", bn_stats="recalibrate", bn_mix=1, bn_images=images
    )
    seen = result.recipe.bn_images
    assert seen is not None and seen.commit == api.dataset_info("local/unlabelled").sha and seen.limit == 2
    Dataset.from_dict({"image": [scene(9)[0]] * 2}, Features({"image": ImageFeature()})).push_to_hub(
        "local/unlabelled", split="train"
    )
    assert hf_lwmm.reproduce("local/estimated").same
    recipe = api.hf_hub_download("local/estimated", "hf_lwmm.yaml")
    done = lwmm("merge", "--recipe", recipe, "--output", tmp_path / "again")
    assert done.exit_code == 0, done.output
    written = Path(api.hf_hub_download("local/estimated", "model.safetensors"))
    assert (tmp_path / "again/model.safetensors").read_bytes() == written.read_bytes()
    done = lwmm("merge", "--recipe", recipe, "--output", tmp_path / "fewer", "--bn-limit", 1)
    assert done.exit_code == 0, done.output
    fewer = load_recipe(tmp_path / "fewer/hf_lwmm.yaml").bn_images
    assert fewer is not None and fewer.limit == 1 and fewer.commit == seen.commit


def test_statistics_of_a_local_folder_cannot_be_estimated_again(
    hub: Any, api: Any, models: list[Path], bare: Path
) -> None:
    for path in models[:2]:
        api.create_repo(f"local/{path.name}", exist_ok=True)
        api.upload_folder(folder_path=path, repo_id=f"local/{path.name}")
    merge(["local/one", "local/two"], push="local/here", bn_stats="recalibrate", bn_mix=1, bn_images=bare)
    with pytest.raises(PlanError, match="estimated on the images of pictures, which was a local folder"):
        hf_lwmm.reproduce("local/here")
    done = lwmm("merge", "--recipe", api.hf_hub_download("local/here", "hf_lwmm.yaml"))
    assert isinstance(done.exception, PlanError) and "name them with --bn-data" in str(done.exception)


def test_a_configuration_of_a_data_set_is_chosen(hub: Any, models: list[Path], tmp_path: Path) -> None:
    features = Features({"image": ImageFeature()})
    for config, seeds in (("day", (1, 2)), ("dusk", (3, 4, 5))):
        rows = Dataset.from_dict({"image": [scene(seed)[0] for seed in seeds]}, features)
        rows.push_to_hub("local/hours", config, split="train")
    few = ("--option", "images=2", "--option", "passes=4", "--output")
    command = ("merge", *models[:2], "--method", "adaptive", "--tune-data", "local/hours", *few)
    done = lwmm(*command, tmp_path / "out", "--tune-config", "dusk")
    assert done.exit_code == 0, done.output
    images = load_recipe(tmp_path / "out/hf_lwmm.yaml").tuning.images
    assert images.to_dict() == {"data": images.ref, "split": "train", "config": "dusk", "limit": 3}
    done = lwmm(*command, tmp_path / "none")
    assert isinstance(done.exception, DatasetError)
    assert (
        str(done.exception)
        == "local/hours: has several configurations; choose one with --tune-config: ['day', 'dusk']."
    )
    done = lwmm("measure", models[0], "--data", "local/hours", "--kind", "grams", "--limit", 1, "--config", "day",
                "--output", tmp_path / "grams.safetensors")  # fmt: skip
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "tuning",
    ["[]", "{rows: [{to: 2, weights: [0.5, 0.6]}]}", "{rows: [{to: x, weights: [1, 0]}]}", "{rows: [{weights: [1]}]}"],
)
def test_damaged_weights_in_a_recipe_are_refused(tuning: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"models: [a/b, c/d]\nmethod: greedy-soup\ntuning: {tuning}\n")
    with pytest.raises(PlanError, match=r"r\.yaml, tuning: needs `rows`, each with `to`"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{data: a/b, limit: many}", "--limit must be a whole number or nothing, not 'many'"),
        ("{data: a/b, images: 3}", "has no 'images'"),
        ("{split: train}", "needs at least `data`"),
        ("text", "needs at least `data`"),
    ],
)
def test_damaged_images_in_a_recipe_are_refused(entry: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"models: [a/b, c/d]\nbn_images: {entry}\n")
    with pytest.raises(PlanError, match=rf"r\.yaml, bn_images: {message}"):
        load_recipe(tmp_path / "r.yaml")


def test_images_of_a_recipe_by_hand_leave_open_what_they_do_not_say() -> None:
    assert read_image_provenance({"data": "a/b"}, "r.yaml").source == ImageSource("a/b")
