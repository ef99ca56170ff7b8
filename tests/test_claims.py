"""What a recipe beside weights says of them counts only for the weights that it makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Run
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from tiny import TWO_STAGES, segformer, tree

import hf_lwmm
from hf_lwmm import Knobs, NetworkOptions, WriteOptions


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `merged`, beside its anchor, `1`, and `converted`, what `convert` makes of it."""
    folder = tmp_path_factory.mktemp("claims")
    parents = [segformer(folder / str(seed), seed, stages=TWO_STAGES) for seed in (1, 2)]
    hf_lwmm.merge(parents, output=folder / "merged")
    scores = {"verdict": {"sentence": "Take merged."}}
    (folder / "merged/evaluation.json").write_text(json.dumps(scores))
    hf_lwmm.export(folder / "merged", folder / "converted")
    return folder / "merged"


@pytest.fixture
def converted(merged: Path, tmp_path: Path) -> Path:
    """A copy of the converted merge, beside one of the merge's anchor."""
    shutil.copytree(merged.parent / "1", tmp_path / "1")
    return Path(shutil.copytree(merged.parent / "converted", tmp_path / "converted"))


def trained_on(folder: Path) -> str:
    shutil.copy(folder.parent / "1/model.safetensors", folder)
    return ""


def another_file(folder: Path) -> str:
    shutil.copy(folder.parent / "1/model.safetensors", folder / "best.safetensors")
    return ":best.safetensors"


def other_settings(folder: Path) -> str:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"sky"', '"moon"'))
    return ""


def no_recipe(folder: Path) -> str:
    name = "hf_lwmm.yaml" if folder.name == "merged" else "merge.yaml"
    (folder / name).write_text("hf_lwmm: '1.0'\nmodels: 3")
    return ""


def unharmed(folder: Path) -> None:
    pass


def not_recorded(folder: Path) -> None:
    """As conversions were before they recorded their files."""
    recipe = hf_lwmm.load_recipe(folder / "merge.yaml")
    (folder / "merge.yaml").write_text(replace(recipe, converted=None).to_yaml())


@pytest.mark.parametrize("kind", ["merged", "converted"])
@pytest.mark.parametrize("change", [trained_on, another_file, other_settings, no_recipe])
def test_a_converted_folder_is_told_of_as_a_merge_only_if_it_is_as_merged(
    change: Callable[[Path], str], kind: str, merged: Path, tmp_path: Path
) -> None:
    shutil.copytree(merged.parent / kind, tmp_path / kind)
    shutil.copytree(merged.parent / "1", tmp_path / "1")
    which = change(tmp_path / kind)
    found = hf_lwmm.export(f"{tmp_path / kind}{which}", tmp_path / "out")
    assert "nothing that is told of that merge was carried over" in found.notes[-1]
    card = (tmp_path / "out/README.md").read_text()
    assert (
        "is a merge of" not in card and "base_model_relation" not in card and not (tmp_path / "out/merge.yaml").exists()
    )
    assert found.loaded.is_merge is (change is other_settings)


def test_the_file_of_a_merge_may_be_named(merged: Path, tmp_path: Path) -> None:
    found = hf_lwmm.export(f"{merged}:model.safetensors", tmp_path / "out")
    assert "is a merge of" in (tmp_path / "out/README.md").read_text() and not found.notes


@pytest.mark.parametrize("branch", ["student", "teacher"])
def test_the_branch_that_was_not_merged_is_no_merge(branch: str, merged: Path, tmp_path: Path) -> None:
    state = load_file(merged.parent / "1/model.safetensors")
    for name in ("a.pth", "b.pth"):
        torch.save({"state_dict": state, "state_dict_ema": {k: v.clone() for k, v in state.items()}}, tmp_path / name)
    hf_lwmm.merge(
        [tmp_path / "a.pth", tmp_path / "b.pth"],
        output=tmp_path / "out",
        knobs=Knobs(branch=branch),
        writing=WriteOptions(format="torch"),
    )
    assert hf_lwmm.load(tmp_path / "out", NetworkOptions(branch=branch)).is_merge
    teacher = hf_lwmm.load(tmp_path / "out", NetworkOptions(branch="teacher"))
    assert teacher.is_merge is (branch == "teacher")
    named = hf_lwmm.load(tmp_path / "out")  # in the place of the student the one that was merged is read
    assert named.is_merge and named.branch == branch


def test_evaluate_counts_no_other_file_beside_a_merge_as_the_merge(merged: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(merged, tmp_path / "merged")
    shutil.copy(merged.parent / "1/model.safetensors", tmp_path / "merged/best.safetensors")
    tree(tmp_path / "data", 1)
    code, _, err = run("evaluate", "merged:best.safetensors", "--data", "data")
    assert code == 0 and "hf_lwmm.yaml does not record best.safetensors, so it was not compared as that merge" in err
    assert not hf_lwmm.load("merged:best.safetensors").is_merge and hf_lwmm.load("merged").is_merge


def test_evaluate_says_that_parents_of_a_merge_were_not_scored(merged: Path, run: Run, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 1)
    parents = [merged.parent / "1", merged.parent / "2"]
    note = "merges 2 models, of which at most 1 was scored"
    assert note in run("evaluate", merged, parents[0], "--data", data)[2]
    assert note not in run("evaluate", merged, *parents, "--data", data)[2]


def test_a_card_tells_of_the_files_that_a_repository_is_loaded_from(merged: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(merged.parent / "1", tmp_path / "other"))
    (folder / "README.md").write_text("---\nbase_model_relation: merge\n---\n")
    shutil.copy(folder / "model.safetensors", folder / "best.safetensors")
    assert hf_lwmm.load(folder).is_merge and hf_lwmm.load(f"{folder}:model.safetensors").is_merge
    assert not hf_lwmm.load(f"{folder}:best.safetensors").is_merge


def test_a_converted_merge_is_converted_again_with_all_that_it_tells(converted: Path, tmp_path: Path) -> None:
    found = hf_lwmm.export(converted, tmp_path / "again")
    card = ModelCard.load(tmp_path / "again/README.md")
    assert not found.notes and "It is a merge of `1`, `2`." in card.text and "Take merged." in card.text
    assert "converted:" not in card.text and hf_lwmm.load(tmp_path / "again").is_merge
    assert (tmp_path / "again/evaluation.json").is_file()
    recorded = hf_lwmm.load_recipe(tmp_path / "again/merge.yaml").converted or {}
    assert {"model.safetensors", "config.json"} <= recorded.keys() and "README.md" not in recorded


def test_evaluate_takes_no_other_weights_for_the_merge_that_was_converted(converted: Path, run: Run) -> None:
    tree(converted.parent / "data", 1)
    assert hf_lwmm.load(converted).is_merge
    trained_on(converted)
    code, _, err = run("evaluate", "converted", "1", "--data", "data")
    changed = "converted: model.safetensors is not the one that its merge.yaml records, so it was not compared as"
    assert code == 0 and changed in err
    not_recorded(converted)
    code, _, err = run("evaluate", "converted", "1", "--data", "data")
    assert code == 0 and "its merge.yaml records no weights to check these against, so it was not compared as" in err


def test_a_converted_merge_is_pushed_as_it_was_converted_only(
    converted: Path, merged: Path, run: Run, api: HfApi
) -> None:
    repo = "local/claims-converted"
    assert run("push", converted, repo)[0] == 0
    assert {"merge.yaml", "evaluation.json"} <= set(api.list_repo_files(repo))
    for harm, says in (
        (other_settings, "config.json is not the one that its merge.yaml records"),
        (trained_on, "is not the one that its merge.yaml records"),
        (not_recorded, "its merge.yaml records no weights to check these against"),
    ):
        harm(converted)
        code, _, err = run("push", converted, repo)
        assert code == 1 and says in err and "Convert the merge again, with the command on its card" in err, err
    assert run("push", converted.parent / "1", repo)[0] == 1
    (merged / "evaluation.json").rename(converted.parent / "evaluation.json")
    try:
        code, _, err = run("push", merged, repo)
    finally:
        (converted.parent / "evaluation.json").rename(merged / "evaluation.json")
    assert code == 0 and "the scores of the earlier merge are removed" in err and "no merge wrote" not in err
    assert not {"merge.yaml", "evaluation.json"} & set(api.list_repo_files(repo))


def test_reproduce_says_that_a_merge_was_converted_and_whether_it_is_still_that(converted: Path, run: Run) -> None:
    for harm, says in (
        (unharmed, "its files are those that its merge.yaml records. To make the merge itself again, by merge.yaml:"),
        (trained_on, "model.safetensors is not the one that its merge.yaml records."),
        (not_recorded, "its merge.yaml records no weights to check these against."),
    ):
        harm(converted)
        code, _, err = run("reproduce", converted)
        assert code == 1 and says in err and f"hf-lwmm merge --recipe {converted}/merge.yaml --output NEW" in err, err


def test_files_of_other_tools_named_like_the_recipe_say_nothing(merged: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(merged.parent / "1", tmp_path / "other"))
    (folder / "merge.yaml").write_text("merge_method: linear\nmodels:\n- model: org/a\n")
    (folder / "README.md").write_text("---\nbase_model_relation: merge\n---\n")
    assert hf_lwmm.load(folder).claim is None and hf_lwmm.load(folder).is_merge
