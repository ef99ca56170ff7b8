"""What a recipe beside weights says of them counts only for the weights that it makes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Run
from safetensors.torch import load_file
from tiny import TWO_STAGES, segformer, tree

import hf_lwmm
from hf_lwmm import Knobs, NetworkOptions, WriteOptions


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `merged`, beside its anchor, `1`."""
    folder = tmp_path_factory.mktemp("claims")
    parents = [segformer(folder / str(seed), seed, stages=TWO_STAGES) for seed in (1, 2)]
    hf_lwmm.merge(parents, output=folder / "merged")
    return folder / "merged"


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
    (folder / "hf_lwmm.yaml").write_text("models: 3")
    return ""


@pytest.mark.parametrize("change", [trained_on, another_file, other_settings, no_recipe])
def test_a_converted_folder_is_told_of_as_a_merge_only_if_it_is_as_merged(
    change: Callable[[Path], str], merged: Path, tmp_path: Path
) -> None:
    shutil.copytree(merged, tmp_path / "merged")
    shutil.copytree(merged.parent / "1", tmp_path / "1")
    which = change(tmp_path / "merged")
    found = hf_lwmm.export(f"{tmp_path / 'merged'}{which}", tmp_path / "out")
    assert "nothing that is told of that merge was carried over" in found.notes[-1]
    card = (tmp_path / "out/README.md").read_text()
    assert (
        "is a merge of" not in card and "base_model_relation" not in card and not (tmp_path / "out/merge.yaml").exists()
    )
    assert found.loaded.is_merge is (change is other_settings)


def test_the_file_of_a_merge_may_be_named(merged: Path, tmp_path: Path) -> None:
    found = hf_lwmm.export(f"{merged}:model.safetensors", tmp_path / "out")
    assert "is a merge of" in (tmp_path / "out/README.md").read_text() and not found.notes


@pytest.mark.parametrize(("branch", "other"), [("student", "teacher"), ("teacher", "student")])
def test_the_branch_that_was_not_merged_is_no_merge(branch: str, other: str, merged: Path, tmp_path: Path) -> None:
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
    assert not hf_lwmm.load(tmp_path / "out", NetworkOptions(branch=other)).is_merge


def test_evaluate_counts_no_other_file_beside_a_merge_as_the_merge(merged: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(merged, tmp_path / "merged")
    shutil.copy(merged.parent / "1/model.safetensors", tmp_path / "merged/best.safetensors")
    tree(tmp_path / "data", 1)
    code, _, err = run("evaluate", "merged:best.safetensors", "--data", "data")
    assert code == 0 and "hf_lwmm.yaml does not make best.safetensors, so it was not compared as that merge" in err
    assert not hf_lwmm.load("merged:best.safetensors").is_merge and hf_lwmm.load("merged").is_merge


def test_a_card_tells_of_the_files_that_a_repository_is_loaded_from(merged: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(merged.parent / "1", tmp_path / "other"))
    (folder / "README.md").write_text("---\nbase_model_relation: merge\n---\n")
    shutil.copy(folder / "model.safetensors", folder / "best.safetensors")
    assert hf_lwmm.load(folder).is_merge and hf_lwmm.load(f"{folder}:model.safetensors").is_merge
    assert not hf_lwmm.load(f"{folder}:best.safetensors").is_merge
