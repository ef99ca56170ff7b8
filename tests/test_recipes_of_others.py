"""Recipes that others wrote read nothing of this machine that their user did not name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Run
from huggingface_hub import CommitOperationAdd, HfApi
from safetensors.numpy import save_file

import hf_lwmm
from hf_lwmm.recipes.recipe import read_recipe

SECRET = "hf_SECRET_TOKEN_OF_THE_USER"
HASH = "0" * 64


def model(path: Path, seed: int) -> Path:
    """A file with a classifier of one class without a name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    save_file({"a.weight": draw.normal(size=(3, 3)), "classifier.weight": draw.normal(size=(1, 3))}, path)
    return path


def upload(api: HfApi, repo: str, recipe: dict[str, object], weights: bytes = b"") -> str:
    """A repository with a recipe that was not written by a merge."""
    api.create_repo(repo, exist_ok=True)
    files = {"hf_lwmm.yaml": yaml.safe_dump(recipe).encode(), **({"model.safetensors": weights} if weights else {})}
    api.create_commit(repo, [CommitOperationAdd(*file) for file in files.items()], commit_message="by hand")
    return repo


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(SECRET)
    return tmp_path / "token"


RECIPES = {
    "labels": "models: [a, b]\nknobs: {{labels: [{path}]}}",
    "labels as a text": "models: [a, b]\nknobs: {{labels: {path}}}",
    "labels of 0.1": "models: [a, b]\nhf_lwmm: 0.1.0\nknobs: {{weights: student, labels: [{path}]}}",
    "protocol": "models: [a, b]\ntuning: {{rows: [{{to: 1, weights: [1, 0]}}], scoring: {{protocol: {path}}}}}",
    "images": "models: [a, b]\nbn_images: {{data: {path}, split: train}}",
    "images of tuning": "models: [a, b]\ntuning: {{rows: [{{to: 1, weights: [1, 0]}}], images: {{data: {path}}}}}",
}


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("shape", ["/absolute", "./relative", "../up/token"])
def test_a_recipe_names_no_files_besides_its_models(
    kind: str, shape: str, run: Run, secret: Path, tmp_path: Path
) -> None:
    path = str(secret) if shape == "/absolute" else shape.replace("relative", "token")
    if shape == "../up/token":
        (tmp_path.parent / "up").mkdir(exist_ok=True)
        (tmp_path.parent / "up" / "token").write_text(SECRET)
    (tmp_path / "recipe.yaml").write_text(RECIPES[kind].format(path=path))
    code, out, err = run("merge", "--recipe", "recipe.yaml", "--output", "out")
    assert code == 1 and "recipe.yaml" in err and SECRET not in out + err
    assert not (tmp_path / "out").exists()


def test_lines_of_a_local_file_do_not_become_class_names(run: Run, secret: Path, tmp_path: Path) -> None:
    models = [str(model(tmp_path / f"m{seed}.safetensors", seed)) for seed in (1, 2)]
    recipe = {"models": models, "knobs": {"labels": [str(secret)]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code, _, err = run("merge", "--recipe", "recipe.yaml", "--output", "out")
    assert code == 1 and "is not a label set (cityscapes19" in err and not (tmp_path / "out").exists()
    recipe["knobs"] = {}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run("merge", "--recipe", "recipe.yaml", "--output", "out")[0] == 0  # a recipe of one's own names models here


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/passwd", "a\\b", ""])
def test_names_of_files_in_a_recipe_stay_inside_its_folder(name: str) -> None:
    for content in (
        {"models": ["org/a", "org/b"], "output": {name: HASH}},
        {"models": [{"model": "org/a", "sha256": {name: HASH}}, "org/b"]},
    ):
        with pytest.raises(hf_lwmm.HfLwmmError, match="does not stay inside"):
            read_recipe(yaml.safe_dump(content))


def test_reproducing_reads_models_of_the_hub_alone(run: Run, api: HfApi, tmp_path: Path) -> None:
    for name in ("org/mine-a", "org/mine-b"):
        model(tmp_path / "there" / "model.safetensors", len(name) + ord(name[-1]))
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=tmp_path / "there")
    names = ["org/mine-a", "org/mine-b"]
    assert run("merge", *names, "--output", "merged")[0] == 0
    recipe = yaml.safe_load((tmp_path / "merged" / "hf_lwmm.yaml").read_text())
    recipe.update(models=names, anchor=names[0])
    repo = upload(api, "local/reproduced", recipe, (tmp_path / "merged" / "model.safetensors").read_bytes())
    for name in names:  # folders here of the same names are other models
        model(tmp_path / name / "model.safetensors", 99)
    code, out, err = run("reproduce", repo)
    assert code == 0 and "the bytes agree" in out, err


@pytest.mark.parametrize("place", ["models", "base", "measurements"])
@pytest.mark.parametrize("shape", ["{path}", "private.safetensors", "./private.safetensors", "~/private.safetensors"])
def test_reproducing_refuses_recipes_that_name_files_here(
    place: str, shape: str, run: Run, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = model(tmp_path / "private.safetensors", 3)
    named = shape.format(path=path)
    recipe: dict[str, object] = {"models": ["org/a", "org/b"], "output": {"model.safetensors": HASH}}
    recipe[place] = named if place == "base" else [named, named]
    if place != "models":
        recipe["method"] = {"name": {"base": "task-arithmetic", "measurements": "fisher"}[place]}
    repo = upload(api, "local/reads-here", recipe, path.read_bytes())
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda name, *rest, **more: (opened.append(str(name)), real(name, *rest, **more))[1]
    )
    code, _, err = run("reproduce", repo)
    assert code == 1 and err.startswith("Error: ") and not [name for name in opened if "private" in name]


def test_reproducing_takes_no_folder_here_for_a_data_set(run: Run, api: HfApi, tmp_path: Path) -> None:
    (tmp_path / "org" / "scenes").mkdir(parents=True)
    images = {"data": f"org/scenes@{'1' * 40}", "split": "train", "limit": 2}
    recipe = {"models": ["org/a", "org/b"], "knobs": {"bn_stats": "recalibrate"}, "bn_images": images}
    code, _, err = run("reproduce", upload(api, "local/with-images", recipe))
    assert code == 1 and "the folder org/scenes has the name of a data set" in err


def test_a_recipe_that_is_no_text_is_one_message(run: Run, api: HfApi) -> None:
    api.create_repo("local/no-text", exist_ok=True)
    api.upload_file(path_or_fileobj=b"\xff\xfe", path_in_repo="hf_lwmm.yaml", repo_id="local/no-text")
    code, _, err = run("reproduce", "local/no-text")
    assert code == 1 and "hf_lwmm.yaml: is not UTF-8 text" in err
    code, _, err = run("reproduce", "local/no-text:model.safetensors")
    assert code == 1 and "name the repository or folder alone" in err


def test_known_label_sets_and_lists_of_classes_are_read_as_before() -> None:
    recipe = read_recipe("models: [a, b]\nknobs: {labels: [cityscapes19, [road, sky]]}")
    assert recipe.knobs.labels == ("cityscapes19", ("road", "sky"))
    scored = 'models: [a, b]\ntuning: {rows: [{to: 1, weights: [1, 0]}], scoring: {protocol: \'["road", "sky"]\'}}'
    assert read_recipe(scored).tuning.scoring.protocol == '["road", "sky"]'  # type: ignore[union-attr]


def test_the_recipe_itself_is_no_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/hf_lwmm.yaml").write_text("models: [org/a]")
    code, out, err = run("reproduce", "out/hf_lwmm.yaml")
    assert code == 1 and not out and "out/hf_lwmm.yaml: a file. Name the folder that it is in: out" in err
