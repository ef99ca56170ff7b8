"""A push takes the place of an earlier merge, and of nothing that others put beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from conftest import Run
from huggingface_hub import HfApi
from pushing import FIRST, PARENTS, SECOND, SHARDS, fresh_name, merged, names, put, upload_parents
from tiny import segformer

import hf_lwmm

BESIDE = {".gitattributes", "README.md", "config.json", "hf_lwmm.yaml"}
PLOT = "plots/layer_weights.png"


@pytest.fixture(autouse=True)
def _uploaded(api: HfApi, models: list[Path]) -> None:
    upload_parents(api, models)


@pytest.fixture
def parents() -> tuple[str, str]:
    return PARENTS


@pytest.fixture
def repo() -> str:
    return fresh_name()


def test_a_merge_replaces_the_files_of_an_earlier_one_in_one_commit(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    merged(run, *parents, "--push", repo)
    assert names(api, repo) == BESIDE | {"model.safetensors", PLOT}
    put(api, repo, **{"notes.txt": b"mine", "plots/mine.png": b"mine", "helper.py": b"mine"})
    merged(run, *parents, "--push", repo, *SHARDS)
    found = names(api, repo) - {"notes.txt", "plots/mine.png", "helper.py"}
    shards = {name for name in found if "-of-" in name}
    assert len(shards) > 1 and found == BESIDE | shards | {"model.safetensors.index.json"}
    assert len(api.list_repo_commits(repo)) == 4
    code, out, err = run("reproduce", repo)
    assert code == 0 and "the bytes agree" in out, err
    merged(run, *parents, "--push", repo, *FIRST)
    assert names(api, repo) == BESIDE | {"model.safetensors", "notes.txt", "plots/mine.png", "helper.py"}


def test_scores_pictures_and_copies_of_an_earlier_merge_go_too(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str, models: list[Path], tmp_path: Path
) -> None:
    """Of copies those that the earlier anchor has; others were added by hand."""
    anchor = segformer(tmp_path / "anchor", 7)
    (anchor / "preprocessor_config.json").write_text("{}")
    config = json.loads((anchor / "config.json").read_text())
    (anchor / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "own.Network"}}))
    (anchor / "own.py").write_text("")
    api.create_repo(f"{repo}-anchor")
    api.upload_folder(repo_id=f"{repo}-anchor", folder_path=anchor)
    merged(run, f"{repo}-anchor", parents[1], "--push", repo, *FIRST)
    scores = json.dumps({"dataset": "org/scenes@0123456, split validation"}).encode()
    written = {"evaluation.json": scores, ".eval_results/org--scenes.yaml": b"[]", "plots/01_street.png": b"x"}
    others = {".eval_results/org--others.yaml": b"[]", "processing.py": b"", "plots/map.png": b"x"}
    put(api, repo, **written, **others)
    assert {"own.py", "preprocessor_config.json"} < names(api, repo)
    code, _, err = run("merge", *parents, "--push", repo, *FIRST)
    assert code == 0 and names(api, repo) == BESIDE | {"model.safetensors"} | set(others)
    removed = ".eval_results/org--scenes.yaml, evaluation.json, plots/01_street.png"
    assert f"scores of the earlier merge are removed, since this one has none: {removed}. Merge with --eval-data" in err


def test_a_preprocessor_that_somebody_added_stays(run: Run, api: HfApi, parents: tuple[str, str], repo: str) -> None:
    merged(run, *parents, "--push", repo, *FIRST)
    put(api, repo, **{"preprocessor_config.json": b"{}"})
    merged(run, *parents, "--push", repo, *SECOND)
    assert "preprocessor_config.json" in names(api, repo)


def test_a_folder_and_a_conversion_replace_an_earlier_merge(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    merged(run, *parents, "--push", repo, *SHARDS)
    merged(run, *parents, "--output", "out", *FIRST)
    assert hf_lwmm.push("out", repo).changed and names(api, repo) == BESIDE | {"model.safetensors"}
    merged(run, *parents, "--push", repo, *SHARDS)
    code, _, err = run("convert", parents[0], "--push", repo, "--license", "mit")
    assert code == 0, err
    left = names(api, repo)
    assert {"model.safetensors", "config.json", "README.md"} < left
    assert not [name for name in left if "-of-" in name or "index" in name or name.startswith(("hf_lwmm", "plots"))]


def test_torch_files_and_safetensors_replace_each_other(run: Run, api: HfApi, repo: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        torch.manual_seed(seed)
        torch.save({"a.weight": torch.rand(3, 3)}, tmp_path / str(seed) / "latest.pth")
    merged(run, "1", "2", "--push", repo, "--format", "torch", *FIRST)
    assert "latest.pth" in names(api, repo)
    merged(run, "1", "2", "--push", repo, *FIRST)
    assert "model.safetensors" in names(api, repo) and "latest.pth" not in names(api, repo)


@pytest.mark.parametrize("name", ["model.safetensors", "other.pth"])
def test_weights_of_others_that_would_be_loaded_are_not_covered_up(
    name: str, run: Run, api: HfApi, repo: str, tmp_path: Path
) -> None:
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        torch.manual_seed(seed)
        torch.save({"a.weight": torch.rand(3, 3)}, tmp_path / str(seed) / "latest.pth")
    api.create_repo(repo)
    put(api, repo, **{name: b"theirs"})
    code, _, err = run("merge", "1", "2", "--push", repo, "--format", "torch", "--output", "out", *FIRST)
    assert code == 1 and name.split(".")[0] in err.replace("files of weights", "other") and "no merge wrote" in err
    assert names(api, repo) == {".gitattributes", name} and Path("out/latest.pth").is_file()


def test_weights_that_were_changed_by_hand_are_not_deleted(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    merged(run, *parents, "--push", repo, *FIRST)
    put(api, repo, **{"model.safetensors": b"theirs"})
    before = api.model_info(repo).sha
    code, _, err = run("merge", *parents, "--push", repo, *SHARDS)
    assert code == 1 and "has model.safetensors that no merge wrote" in err
    assert api.model_info(repo).sha == before


def test_an_earlier_recipe_that_cannot_be_read_is_no_obstacle(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    merged(run, *parents, "--push", repo, *FIRST)
    put(api, repo, **{"hf_lwmm.yaml": b"models: [a: b: c"})
    merged(run, *parents, "--push", repo, *SECOND)
    assert run("reproduce", repo)[0] == 0


def test_a_pull_request_proposes_the_replacement_and_can_be_pushed_to(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    merged(run, *parents, "--push", repo, *FIRST)
    out = merged(run, *parents, "--push", repo, *SHARDS, "--create-pr")
    assert "/discussions/1" in out and "model.safetensors" in names(api, repo)
    assert "model.safetensors" not in names(api, repo, "refs/pr/1")
    out = merged(run, *parents, "--push", repo, "--revision", "refs/pr/1", *SECOND)
    assert f"{repo}/discussions/1" in out and names(api, repo, "refs/pr/1") == BESIDE | {"model.safetensors"}
    info = json.loads(run("inspect", f"{repo}@refs/pr/1", "--json")[1])[0]
    assert info["sha"] == api.model_info(repo, revision="refs/pr/1").sha != api.model_info(repo).sha
    merged(run, parents[0], f"{repo}@refs/pr/1", "--output", "again", *FIRST)
    assert f"{repo}@{info['sha']}" in Path("again/hf_lwmm.yaml").read_text()
    code, out, err = run("reproduce", f"{repo}@refs/pr/1")
    assert code == 0, err


def test_a_recipe_that_lists_other_peoples_files_deletes_none_of_them(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    merged(run, *parents, "--push", repo)
    recipe = Path(api.hf_hub_download(repo, "hf_lwmm.yaml")).read_text()
    content = b"mine"
    listed = f"{recipe.rstrip()}\n  LICENSE: {hashlib.sha256(content).hexdigest()}\n"
    put(api, repo, **{"LICENSE": content, "hf_lwmm.yaml": listed.encode()})
    merged(run, *parents, "--push", repo, *SHARDS)
    assert "LICENSE" in names(api, repo) and "model.safetensors" not in names(api, repo)


def test_an_index_of_others_beside_the_weights_is_named(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    api.create_repo(repo)
    index = "model.safetensors.index.json"
    put(api, repo, **{index: b'{"weight_map": {"x": "model-00001-of-00002.safetensors"}}'})
    code, _, err = run("merge", *parents, "--push", repo)
    assert code == 0 and f"left what no merge wrote beside model.safetensors: {index}." in err
    assert index in names(api, repo)
