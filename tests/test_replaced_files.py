"""What a push replaces in a repository: all that an earlier merge wrote, nothing of others, which it names."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from huggingface_hub import CommitOperationAdd, HfApi
from safetensors.numpy import save

import hf_lwmm
from hf_lwmm.hub import Pushed
from hf_lwmm.recipes.recipe import Recipe

_NUMBERS = itertools.count()
CONFIG, PROCESSOR, NESTED = "config.json", "preprocessor_config.json", "processor_config.json"
COPIES = (CONFIG, PROCESSOR, NESTED)


@pytest.fixture
def repo(api: HfApi) -> Iterator[str]:
    """An empty repository."""
    name = f"local/replaced-{next(_NUMBERS)}"
    api.create_repo(name)
    yield name


def put(api: HfApi, repo: str, files: Mapping[str, bytes], revision: str | None = None) -> None:
    """Add files to a repository, as somebody else would."""
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    api.create_commit(repo, operations, commit_message="by hand", revision=revision)


def names(api: HfApi, repo: str, revision: str | None = None) -> set[str]:
    return set(api.list_repo_files(repo, revision=revision)) - {".gitattributes"}


def folder(path: Path, files: Mapping[str, str], *, beside: bool = True) -> Path:
    """A folder as a merge writes it: these files, and a recipe with their hashes."""
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    copies = {name: digest for name, digest in hashes.items() if name.endswith((*COPIES, ".py"))}
    weights = {name: digest for name, digest in hashes.items() if name not in copies}
    recipe = Recipe(("a", "b"), "a", local=("a", "b"), output=weights, beside=copies if beside else None)
    (path / "hf_lwmm.yaml").write_text(recipe.to_yaml())
    return path


def pushed(path: Path, repo: str, **options: Any) -> Pushed:
    return hf_lwmm.push(path, repo, hf_lwmm.PushOptions(**options))


def model(path: Path, seed: int, **companions: object) -> Path:
    """A small model with files beside its weights."""
    path.mkdir()
    numbers = np.random.default_rng(seed)
    values = {name: numbers.random((3, 3), np.float32) for name in ("a.weight", "b.weight")}
    (path / "model.safetensors").write_bytes(save(values))
    for name, content in companions.items():
        (path / name).write_text(json.dumps(content))
    return path


FIRST = {"model.safetensors": "1", CONFIG: "{}", PROCESSOR: "{}", NESTED: "{}", "own.py": ""}
SECOND = {"model.safetensors": "2", CONFIG: '{"x": 2}'}


def test_what_stood_beside_an_earlier_local_anchor_goes_with_it(
    run: Run, api: HfApi, repo: str, tmp_path: Path
) -> None:
    anchor = model(tmp_path / "one", 1, **{CONFIG: {"hidden_size": 1}, PROCESSOR: {"size": 3}, NESTED: {}})
    bare = model(tmp_path / "two", 2, **{CONFIG: {"hidden_size": 2}})
    assert run("merge", anchor, bare, "--push", repo, "--method", "slerp")[0] == 0
    before = names(api, repo)
    assert {*COPIES} < before
    put(api, repo, {"notes.json": b"{}", "helper.py": b""})
    count = len(api.list_repo_commits(repo))
    code, _, err = run("merge", bare, anchor, "--push", repo, "--method", "slerp")
    assert code == 0 and "no merge wrote" not in err
    assert names(api, repo) == before - {PROCESSOR, NESTED} | {"notes.json", "helper.py"}
    assert len(api.list_repo_commits(repo)) == count + 1


@pytest.mark.parametrize("place", ["", "weights/"])
def test_copies_go_from_subfolders_branches_and_pull_requests(
    place: str, api: HfApi, repo: str, tmp_path: Path
) -> None:
    first, second = (
        folder(tmp_path / number, {f"{place}{name.replace('model.safetensors', 'a.pth')}": text for name, text in each})
        for number, each in (("1", FIRST.items()), ("2", SECOND.items()))
    )
    api.create_branch(repo, branch="dev")
    for revision in ("main", "dev"):
        pushed(first, repo, revision=revision)
    put(api, repo, {f"{place}theirs.py": b""}, "dev")
    assert str(pushed(second, repo, create_pr=True).pull_request).endswith("/discussions/1")
    pushed(folder(tmp_path / "3", {f"{place}a.pth": "3", f"{place}{CONFIG}": "{}"}), repo, revision="refs/pr/1")
    for revision in ("main", "dev"):
        pushed(second, repo, revision=revision)
    wanted = {f"{place}a.pth", f"{place}{CONFIG}", "hf_lwmm.yaml"}
    assert names(api, repo) == names(api, repo, "refs/pr/1") == wanted
    assert names(api, repo, "dev") == wanted | {f"{place}theirs.py"}


def test_a_copy_that_was_changed_by_hand_stays_and_is_named(api: HfApi, repo: str, tmp_path: Path) -> None:
    pushed(folder(tmp_path / "1", FIRST), repo)
    put(api, repo, {PROCESSOR: b'{"mine": 1}', "own.py": b"mine"})
    (warning,) = pushed(folder(tmp_path / "2", SECOND), repo).warnings
    assert f"left what no merge wrote beside model.safetensors: {PROCESSOR}. Libraries may load it" in warning
    assert names(api, repo) == {"hf_lwmm.yaml", "own.py", PROCESSOR, *SECOND}


@pytest.mark.parametrize(
    ("theirs", "files", "says"),
    [
        (
            "adapter_config.json",
            SECOND,
            "has adapter_config.json that no merge wrote, and that would be loaded together",
        ),
        (CONFIG, {"model.safetensors": "2"}, "has config.json that no merge wrote, and that would be loaded together"),
        (NESTED, {**SECOND, PROCESSOR: "{}"}, "has processor_config.json that no merge wrote"),
        ("model.safetensors", {"pytorch_model.bin": "2"}, "has model.safetensors that no merge wrote"),
        ("model.safetensors", {"model.safetensors.index.json": "{}"}, "has model.safetensors that no merge wrote"),
        ("weights/config.json", {"weights/a.pth": "2"}, "has weights/config.json that no merge wrote"),
    ],
)
def test_a_file_of_others_that_would_be_loaded_with_the_merge_stops_the_push(
    theirs: str, files: dict[str, str], says: str, api: HfApi, repo: str, tmp_path: Path
) -> None:
    put(api, repo, {theirs: b"{}"})
    sha = api.model_info(repo).sha
    with pytest.raises(hf_lwmm.HfLwmmError, match=says) as error:
        pushed(folder(tmp_path / "2", files), repo)
    assert "Delete what is not wanted there" in str(error.value) and api.model_info(repo).sha == sha


def test_other_branches_and_pull_requests_are_looked_at_too(api: HfApi, repo: str, tmp_path: Path) -> None:
    api.create_branch(repo, branch="dev")
    api.create_pull_request(repo, title="x")
    for revision in ("dev", "refs/pr/1"):
        put(api, repo, {"adapter_config.json": b"{}"}, revision)
        with pytest.raises(hf_lwmm.HfLwmmError, match=r"has adapter_config\.json that no merge wrote"):
            pushed(folder(tmp_path / "2", SECOND), repo, revision=revision)
    assert pushed(tmp_path / "2", repo).changed


def test_weights_of_others_beside_the_merge_or_in_its_place_are_named(api: HfApi, repo: str, tmp_path: Path) -> None:
    put(api, repo, {"pytorch_model.bin": b"theirs", "model.safetensors": b"theirs", "adapter_model.safetensors": b"x"})
    sha = str(api.model_info(repo).sha)
    beside, replaced = pushed(folder(tmp_path / "1", SECOND), repo).warnings
    assert "beside model.safetensors: adapter_model.safetensors, pytorch_model.bin." in beside
    assert "replaced model.safetensors, which no merge wrote" in replaced and f"at commit {sha[:12]}" in replaced
    assert names(api, repo) == {"hf_lwmm.yaml", "pytorch_model.bin", "adapter_model.safetensors", *SECOND}
    assert len(pushed(folder(tmp_path / "2", SECOND), repo).warnings) == 1  # what stays beside it


def test_recipes_delete_nothing_but_copies_and_weights(api: HfApi, repo: str, tmp_path: Path) -> None:
    first = folder(tmp_path / "1", FIRST)
    recipe = (first / "hf_lwmm.yaml").read_text()
    listed = recipe.replace("beside:\n", f"beside:\n  LICENSE: {hashlib.sha256(b'mine').hexdigest()}\n")
    (first / "hf_lwmm.yaml").write_text(listed)
    (first / "LICENSE").write_bytes(b"mine")
    put(api, repo, {"LICENSE": b"mine"})
    pushed(first, repo)
    pushed(folder(tmp_path / "2", SECOND), repo)
    assert names(api, repo) == {"hf_lwmm.yaml", "LICENSE", *SECOND}


def test_an_older_recipe_without_hashes_of_copies_leaves_them_and_says_so(
    api: HfApi, repo: str, tmp_path: Path
) -> None:
    pushed(folder(tmp_path / "1", FIRST, beside=False), repo)
    (warning,) = pushed(folder(tmp_path / "2", SECOND), repo).warnings
    assert f"beside model.safetensors: {NESTED}, {PROCESSOR}." in warning


def test_reproduce_names_what_else_would_be_loaded(run: Run, api: HfApi, repo: str, tmp_path: Path) -> None:
    parents = [f"{repo}-one", f"{repo}-two"]
    for seed, parent in enumerate(parents):
        api.create_repo(parent)
        api.upload_folder(repo_id=parent, folder_path=model(tmp_path / str(seed), seed, **{CONFIG: {"hidden_size": 1}}))
    assert run("merge", *parents, "--push", repo, "--method", "slerp")[0] == 0
    assert run("reproduce", repo)[0] == 0
    for name, content, says in (
        (PROCESSOR, b"{}", "preprocessor_config.json would be loaded together with the weights"),
        ("adapter_config.json", b"{}", "preprocessor_config.json, adapter_config.json would be loaded together"),
        (CONFIG, b'{"hidden_size": 9}', "the bytes DIFFER"),
    ):
        put(api, repo, {name: content})
        code, out, _ = run("reproduce", repo)
        assert code == 1 and says in out and "the bytes agree" not in out
