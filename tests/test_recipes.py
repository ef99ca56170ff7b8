"""Recipes: what they hold, what is refused, and those of hf-lwmm 0.1.0."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

import hf_lwmm
from hf_lwmm.cli.options import chosen_method
from hf_lwmm.errors import PlanError
from hf_lwmm.labels import read_label_set
from hf_lwmm.methods import METHODS
from hf_lwmm.options import option
from hf_lwmm.planning.images import ImageProvenance
from hf_lwmm.publishing.command import merge_command
from hf_lwmm.recipes.recipe import read_recipe

_GOLDEN = Path(__file__).parent / "golden" / "recipes"
A, B = "org/a@" + "1" * 40, "org/b@" + "2" * 40 + ":latest.pth"


@pytest.mark.parametrize("path", sorted(_GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_is_read_written_and_read_again(path: Path) -> None:
    recipe = hf_lwmm.load_recipe(path)
    text = recipe.to_yaml()
    assert yaml.safe_load(text)["schema"] == (3 if path.stem == "by-hand" else 2)  # which had no order
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
        ("schema: 4", r"has the schema 4; this version of hf-lwmm reads up to 3"),
        ("schema: 1", r"has the schema 1; write `schema: 3`, or leave it out"),
        ("schema: '2'", r"has the schema '2'; write `schema: 3`"),
        ("schema:", r"has the schema None; write `schema: 3`"),
        ("{method: slerp, knobs: {start: 0.5}}", r"--method slerp: has no 'start'"),
        ("system: 3", r"--system must be text or nothing, not 3"),
        ("system: advnt", r"--system advnt is not one of .*Did you mean advent\?"),
        ("bn_images: {split: train}", r"bn_images: needs at least `data`"),
        ("bn_images: {data: org/d, spilt: train}", r"bn_images: has no 'spilt'\. Did you mean split\?"),
        ("tuning: {rows: [{to: 1, weights: [0.5, 0.6]}]}", r"tuning: needs `rows`"),
        ("tuning: {rows: [{to: 100000000000, weights: [0.5, 0.5]}]}", r"tuning: needs `rows`"),
        ("tuning: {rows: [{to: 2, weights: [1, 0]}, {to: 2, weights: [1, 0]}]}", r"tuning: needs `rows`"),
        ("tuning: {scoring: {flip: 3}, rows: [{to: 1, weights: [1, 0]}]}", r"tuning, scoring: --flip must be true"),
        ("tuning: {row: []}", r"tuning: has no 'row'\. Did you mean rows\?"),
        ("base: {modl: org/c}", r"a model must be a reference such as org/name@revision"),
        ("base: {model: org/c, sha: x}", r"has no 'sha'\. Did you mean sha256\?"),
        ("max_shard_size: much", r"--max-shard-size much: write a size such as 5GB"),
        ("output: 3", r"output: must hold file names and hashes"),
    ],
)
def test_what_nobody_reads_and_what_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_recipe(yaml.safe_dump({"models": ["org/a", "org/b"], **yaml.safe_load(text)}))


def test_a_recipe_records_how_merges_were_scored() -> None:
    scored = {"protocol": "camvid11", "flip": True, "scales": [0.5, 1.0]}
    rows = [{"to": 3, "weights": [0.5, 0.5]}]
    first = {"dataset": "org/d", "split": "val", "images": 4, "options": scored, "rows": rows}
    old = {"hf_lwmm": "0.1.0", "models": ["org/a", "org/b"], "method": "greedy-soup", "tuning": first}
    recipe = read_recipe(yaml.safe_dump(old))
    assert recipe.tuning is not None
    assert recipe.tuning.scoring == hf_lwmm.EvaluationSpec(protocol="camvid11", flip=True, scales=(0.5, 1)).scoring
    assert yaml.safe_load(recipe.to_yaml())["tuning"]["scoring"] == scored
    assert read_recipe(recipe.to_yaml()).tuning.scoring == recipe.tuning.scoring  # type: ignore[union-attr]
    said = "--tune-data org/d --tune-split val --tune-limit 4 --protocol camvid11 --flip --scales 0.5,1.0"
    assert said in merge_command(recipe)


def test_scored_classes_are_recorded_by_their_names_not_by_their_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("sky, clear\nroad\n")
    scoring = hf_lwmm.EvaluationSpec(protocol=str(tmp_path / "names.txt")).scoring
    assert scoring.protocol == '["sky, clear", "road"]'
    assert read_label_set(scoring.protocol).classes == ("sky, clear", "road")


@dataclass(frozen=True)
class Sorted(hf_lwmm.Method):
    """A method with options of every type."""

    mode: str = option("soft", "Mode.", choices=("soft", "hard"))
    fast: bool = option(False, "Speed.")
    slow: bool = option(True, "Care.")
    stages: tuple[int, ...] = option((), "Stages.")
    names: tuple[str, ...] = option((), "Names.")
    part: float | None = option(0.5, "Part.")
    name: ClassVar[str] = "sorted"


@pytest.mark.parametrize(
    "method",
    [
        Sorted("hard", fast=True, slow=False, stages=(1, 2), names=("a, b", "c"), part=None),
        Sorted(stages=(3,), names=("a",), part=2e-7),
        hf_lwmm.Ties(density=0.25),
    ],
)
def test_options_of_any_type_are_read_as_the_command_on_the_card_says_them(
    method: hf_lwmm.Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, Sorted.name, Sorted)
    words = shlex.split(merge_command(hf_lwmm.Recipe(("org/a", "org/b"), "org/a", hf_lwmm.Knobs(method=method))))
    given = [word for before, word in pairwise(words) if before == "--option"]
    assert chosen_method(method.name, given, {}) == method


def test_layerwise_takes_its_options_by_their_flags_and_by_option() -> None:
    assert chosen_method(None, ["ramp=cosine", "alpha=none"], {"start": 0.5}) == hf_lwmm.Layerwise(0.5, ramp="cosine")


@pytest.mark.parametrize("classes", [("sky, clear", "road"), ("road",), ("road", "sky")])
def test_class_names_on_the_card_are_read_back(classes: tuple[str, ...]) -> None:
    knobs = hf_lwmm.Knobs(labels=(classes,))
    words = shlex.split(merge_command(hf_lwmm.Recipe(("org/a", "org/b"), "org/a", knobs)))
    assert hf_lwmm.Knobs(labels=(words[words.index("--labels") + 1],)) == knobs


@pytest.mark.parametrize("text", ["models: 3", "a: [", "models: []", "models: [3]", "- a", ""])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        read_recipe(text)


def test_a_recorded_system_matters_only_where_networks_run_or_are_described() -> None:
    content = {"models": ["org/a", "org/b"], "system": "diga", "output": {"model.safetensors": "0" * 64}}
    recipe = read_recipe(yaml.safe_dump(content))
    assert recipe.system == "diga" and recipe.inputs == hf_lwmm.MergeInputs()
    described = read_recipe(yaml.safe_dump({**content, "format": "transformers"}))
    assert described.inputs.network.system == "diga"
    tuned = read_recipe(
        yaml.safe_dump({"models": ["org/a"], "system": "diga", "tuning": {"rows": [{"to": 1, "weights": [1]}]}})
    )
    assert tuned.inputs.network.system == "diga"
