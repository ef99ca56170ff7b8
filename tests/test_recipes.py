"""Recipes: what they hold, what is refused, and those of hf-lwmm 0.1.0."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import hf_lwmm
from hf_lwmm.errors import PlanError
from hf_lwmm.planning.images import ImageProvenance
from hf_lwmm.planning.recipe import SCHEMA, read_recipe

_GOLDEN = Path(__file__).parent / "golden" / "recipes"
A, B = "org/a@" + "1" * 40, "org/b@" + "2" * 40 + ":latest.pth"


@pytest.mark.parametrize("path", sorted(_GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_is_read_written_and_read_again(path: Path) -> None:
    recipe = hf_lwmm.load_recipe(path)
    text = recipe.to_yaml()
    assert yaml.safe_load(text)["schema"] == SCHEMA
    assert read_recipe(text).to_yaml() == text


def test_knobs_of_the_first_version_keep_their_meaning() -> None:
    knobs = hf_lwmm.load_recipe(_GOLDEN / "layerwise-0.1.0.yaml").knobs
    assert knobs == hf_lwmm.Knobs(
        method=hf_lwmm.Layerwise(start=0.25, alpha=0.6, ramp="power:2"),
        granularity="block",
        order="file",
        share="any",
        head="by-label",
        dtype="float16",
        branch="teacher",
        keep=("mit.stage0",),
        labels=("cityscapes19", ("road", "sky")),
        bn_stats="pooled",
        permute=True,
    )


def test_base_options_and_hashes_of_the_first_version_are_read() -> None:
    recipe = hf_lwmm.load_recipe(_GOLDEN / "ties-0.1.0.yaml")
    assert recipe.models == (A, B) and recipe.anchor == B and recipe.base == "org/base@" + "3" * 40
    assert recipe.knobs.method == hf_lwmm.Ties(density=0.3)
    assert len(recipe.sha256) == 3 and recipe.output == {"model.safetensors": "c" * 64}


def test_measurements_of_the_first_version_are_read() -> None:
    recipe = hf_lwmm.load_recipe(_GOLDEN / "fisher-0.1.0.yaml")
    assert recipe.measurements == recipe.local == ("a.safetensors", "b.safetensors")


def test_images_of_the_first_version_are_read() -> None:
    recipe = hf_lwmm.load_recipe(_GOLDEN / "adaptive-0.1.0.yaml")
    commit = "4" * 40
    assert recipe.knobs.method == hf_lwmm.Adaptive(images=4) and recipe.knobs.bn_stats == "recalibrate"
    assert recipe.bn_images == ImageProvenance("org/city", "train", "small", 100, commit=commit)
    assert recipe.inputs.bn_images == hf_lwmm.ImageSource(f"org/city@{commit}", "train", "small", 100)
    assert recipe.tuning is not None and recipe.tuning.notes == ("it fell",)
    assert recipe.tuning.images == ImageProvenance("org/city", "train", limit=4, image_column="image", commit=commit)
    assert recipe.tuning.weights.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.75, 0.25], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anchr: org/b", r"has no 'anchr'\. Did you mean anchor\?"),
        ("knobs: {granularty: block}", r"knobs: has no 'granularty'\. Did you mean granularity\?"),
        ("knobs: {granularity: blocks}", r"--granularity blocks is not one of .*Did you mean block\?"),
        ("knobs: {permute: 'yes'}", r"--permute must be true or false, not 'yes'"),
        ("knobs: [a]", r"knobs: must hold names and values"),
        ("knobs: {method: ties}", r"`method` stands beside `knobs`"),
        ("method: {name: tie}", r"--method tie is not one of .*Did you mean ties\?"),
        ("method: {name: ties, desity: 0.1}", r"has no 'desity'\. Did you mean density\?"),
        ("method: {name: ties, density: 2}", r"--option density 2.* must be above 0 and at most 1"),
        ("schema: 3", r"has the schema 3; this version of hf-lwmm reads up to 2"),
        ("bn_images: {split: train}", r"bn_images: needs at least `data`"),
        ("bn_images: {data: org/d, spilt: train}", r"bn_images: has no 'spilt'\. Did you mean split\?"),
        ("tuning: {rows: [{to: 1, weights: [0.5, 0.6]}]}", r"tuning: needs `rows`"),
        ("tuning: {row: []}", r"tuning: has no 'row'\. Did you mean rows\?"),
        ("base: {modl: org/c}", r"a model must be a reference such as org/name@revision"),
        ("base: {model: org/c, sha: x}", r"has no 'sha'\. Did you mean sha256\?"),
        ("max_shard_size: much", r"--max-shard-size much: write a size such as 5GB"),
        ("output: 3", r"output: must hold file names and hashes"),
    ],
)
def test_what_nobody_reads_and_what_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_recipe(f"models: [org/a, org/b]\n{text}\n")


@pytest.mark.parametrize("text", ["models: 3", "a: [", "models: []", "models: [3]", "- a", ""])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        read_recipe(text)
