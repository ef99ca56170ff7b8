"""Pushes: to a branch, a pull request or a new repository, in one commit, or a clear error and no commit."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from pushing import FIRST, NUMBERS, PARENTS, SECOND, SHARDS, fresh_name, merged, names, put, upload_parents
from tiny import segformer

import hf_lwmm
from hf_lwmm.api.push import push_files
from hf_lwmm.hub import PushOptions, Replacement, check_push, content_names, parse_ref, push_folder, resolve
from hf_lwmm.localhub import Fault, LocalHub


@pytest.fixture(autouse=True)
def _uploaded(api: HfApi, models: list[Path]) -> None:
    upload_parents(api, models)


@pytest.fixture
def parents() -> tuple[str, str]:
    return PARENTS


@pytest.fixture
def repo() -> str:
    return fresh_name()


def test_a_folder_that_is_pushed_has_a_card_that_loads_the_repository(
    run: Run, api: HfApi, models: list[Path], repo: str
) -> None:
    assert run("merge", *models[:2], *FIRST, "--output", "merged")[0] == 0
    before = Path("merged/README.md").read_text()
    assert "\n# merged\n" in before and '"merged"' in before
    Path("merged/README.md").write_text(before + "\nMy own words on merged.\n")
    assert run("push", "merged", repo)[0] == 0
    card = Path(api.hf_hub_download(repo, "README.md")).read_text()
    assert f"\n# {repo}\n" in card and f'"{repo}"' in card and '"merged"' not in card
    assert card == Path("merged/README.md").read_text() and card.endswith("\nMy own words on merged.\n")
    assert run("push", "merged", repo)[0] == 0
    Path("merged").rename("better")
    assert run("push", "better", f"{repo}-too")[0] == 0
    again = Path(api.hf_hub_download(f"{repo}-too", "README.md")).read_text()
    assert again == card.replace(repo, f"{repo}-too")


def test_a_renamed_folder_has_a_card_that_loads_the_repository_unless_its_title_is_the_users(
    run: Run, api: HfApi, models: list[Path], repo: str
) -> None:
    assert run("merge", *models[:2], *FIRST, "--output", "merged")[0] == 0
    Path("merged").rename("better")
    assert run("push", "better", repo)[0] == 0
    card = Path("better/README.md").read_text()
    assert f"\n# {repo}\n" in card and f'"{repo}"' in card and "\n# merged\n" not in card and '"merged"' not in card
    Path("better/README.md").write_text(card.replace(f"# {repo}", "# Streets"))
    assert run("push", "better", repo)[0] == 0 and "\n# Streets\n" in Path("better/README.md").read_text()


def test_what_was_pushed_is_named_with_its_branch_or_pull_request(api: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    for options, expected in (
        ({}, repo), ({"revision": "main"}, repo), ({"revision": "dev"}, f"{repo}@dev"),
        ({"create_pr": True}, f"{repo}@refs/pr/1"), ({"revision": "refs/pr/1"}, f"{repo}@refs/pr/1"),
    ):  # fmt: skip
        (tmp_path / "x").write_text(str(options))
        assert push_files(tmp_path, repo, PushOptions(**options), message="x").ref == expected


REVISIONS = [
    (("--revision", "refs/pr/7"), "there is no such pull request"),
    (("--revision", "v1"), "a tag cannot be pushed to"),
    (("--revision", "0" * 40), "a commit cannot be pushed to"),
    (("--revision", "refs/heads/x"), "cannot be the name of a branch"),
    (("--revision", "a..b"), "cannot be the name of a branch"),
    (("--revision", "a b"), "cannot be the name of a branch"),
    (("--revision", "deadbee"), "what looks like one"),
    (("--revision", "HEAD"), "cannot be the name of a branch"),
    (("--revision", "x.lock/y"), "cannot be the name of a branch"),
    (("--revision", "main/x"), "there is a branch 'main'"),
    (("--revision", "dev", "--create-pr"), "has no branch 'dev'"),
    (("--revision", "refs/pr/1", "--create-pr"), "starts from a branch"),
]


@pytest.mark.parametrize(("options", "says"), REVISIONS)
def test_what_cannot_be_pushed_to_is_found_out_before_any_work(
    options: tuple[str, ...], says: str, run: Run, api: HfApi, hub: LocalHub, parents: tuple[str, str]
) -> None:
    if not api.repo_exists("local/refs"):
        api.create_repo("local/refs")
        api.create_tag("local/refs", tag="v1")
        api.create_commit("local/refs", [CommitOperationAdd("x", b"x")], commit_message="x", create_pr=True)
    reading = Fault(path="resolve", status=500, times=99)
    hub.faults.append(reading)
    code, _, err = run("merge", *parents, "--push", "local/refs", *options)
    assert code == 1 and says in err and reading.times == 99, err


@pytest.mark.parametrize("revision", ["deadbee", "main/x", "a//b"])
def test_no_repository_is_made_for_a_branch_that_cannot_be(revision: str, run: Run, api: HfApi, repo: str) -> None:
    code, _, err = run("merge", "local/push-a", "local/push-b", "--push", repo, "--revision", revision)
    assert code == 1 and revision in err and not api.repo_exists(repo)


def test_who_opened_a_pull_request_may_push_to_it(api: HfApi, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    api.create_repo("local/open", exist_ok=True)
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    operations = [CommitOperationAdd("x.txt", b"x")]
    HfApi(endpoint=hub.endpoint, token="hf_stranger").create_commit(
        "local/open", operations, commit_message="x", create_pr=True
    )
    check_push("local/open", hf_lwmm.PushOptions(revision="refs/pr/1"))
    for revision in ("refs/pr/2", "main", None):
        with pytest.raises(hf_lwmm.HfLwmmError, match="may not write"):
            check_push("local/open", hf_lwmm.PushOptions(revision=revision))


def test_branches_with_slashes_and_pluses_are_made_and_pushed_to(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    for _ in range(2):
        merged(run, *parents, "--push", repo, "--revision", "feature/night-v1.0+x", *FIRST)
    assert "model.safetensors" in names(api, repo, "feature/night-v1.0+x")
    assert names(api, repo) == {".gitattributes"}
    assert run("inspect", f"{repo}@feature/night-v1.0+x")[0] == 0


def test_the_repository_of_a_push_is_never_a_folder_here(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    Path(repo).mkdir(parents=True)
    assert repo in merged(run, *parents, "--push", repo, *FIRST)
    code, _, err = run("merge", *parents, "--push", f"{repo}@main")
    assert code == 1 and "--revision names the branch" in err


@pytest.mark.parametrize(
    "fault",
    [Fault("/lfs/", method="PUT", times=999, status=403), Fault("objects/batch", method="POST", times=999, status=422)],
    ids=["upload", "batch"],
)
def test_an_upload_that_fails_for_good_is_one_message_and_no_commit(
    fault: Fault, run: Run, api: HfApi, hub: LocalHub, parents: tuple[str, str], repo: str, tmp_path: Path
) -> None:
    merged(run, *parents, "--push", repo, *FIRST)
    before = api.model_info(repo).sha
    hub.faults.append(fault)
    other = segformer(tmp_path / f"new-{next(NUMBERS)}", 100 + next(NUMBERS))
    code, _, err = run("merge", parents[0], other, "--output", "out", "--push", repo, *FIRST)
    assert code == 1 and err.splitlines()[-1].startswith(f"Error: {repo}: ") and "Traceback" not in err
    assert api.model_info(repo).sha == before and Path("out/model.safetensors").is_file()
    with pytest.raises(hf_lwmm.HfLwmmError):
        hf_lwmm.push("out", repo)
    hub.faults.clear()
    assert hf_lwmm.push("out", repo).changed and run("reproduce", repo)[0] == 1  # a parent was local


def test_a_commit_whose_answer_was_lost_is_not_made_again(
    run: Run, api: HfApi, hub: LocalHub, parents: tuple[str, str], repo: str
) -> None:
    hub.faults.append(Fault("/commit/", method="POST", drop_after_bytes=0))
    assert "Pushed to" in merged(run, *parents, "--push", repo, *FIRST)
    assert not any(fault.times for fault in hub.faults) and len(api.list_repo_commits(repo)) == 2


def test_what_somebody_commits_meanwhile_is_not_overwritten(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged(run, *parents, "--push", repo, *FIRST)
    real = HfApi.create_commit

    def slow(self: HfApi, repo_id: str, operations: Any, **options: Any) -> Any:
        real(api, repo_id, [CommitOperationAdd("theirs.txt", b"x")], commit_message="between")
        return real(self, repo_id, operations, **options)

    monkeypatch.setattr(HfApi, "create_commit", slow)
    code, _, err = run("merge", *parents, "--push", repo, *SECOND)
    assert code == 1 and "somebody else changed it meanwhile" in err and "To push it: hf-lwmm push" in err
    assert "t: 0.3" not in Path(api.hf_hub_download(repo, "hf_lwmm.yaml")).read_text()


def test_reproduce_compares_the_file_that_would_be_loaded(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    merged(run, *parents, "--push", repo, *SHARDS)
    assert run("reproduce", repo)[0] == 0
    content = Path(api.hf_hub_download(parents[0], "model.safetensors")).read_bytes()
    put(api, repo, **{"model.safetensors": content})
    code, out, _ = run("reproduce", repo)
    assert code == 1 and "model.safetensors would be loaded, which the recipe does not make" in out
    assert "the bytes agree" not in out
    answer = json.loads(run("reproduce", repo, "--json")[1])
    assert answer["same"] is False and answer["loaded"] == ["model.safetensors"]
    assert answer["stored"] == answer["merged"] and hashlib.sha256(content).hexdigest() not in answer["merged"].values()


def test_references_resolve_to_the_same_commit_however_they_are_written(
    run: Run, api: HfApi, hub: LocalHub, parents: tuple[str, str], models: list[Path]
) -> None:
    repo, folder = parents[1], "weights/epoch 3"
    if not api.file_exists(repo, f"{folder}/model.safetensors"):
        api.upload_folder(repo_id=repo, folder_path=models[2], path_in_repo=folder)
        api.create_tag(repo, tag="v1.0+x")
    sha = api.model_info(repo).sha
    for text in (
        f"{repo}@v1.0+x", f"{hub.endpoint}/{repo}", f"{hub.endpoint}/{repo}/tree/main", f"https://huggingface.co/{repo}"
    ):  # fmt: skip
        assert resolve(parse_ref(text)).sha == sha, text
    for text in (
        f"{repo}:{folder}/model.safetensors",
        f"{repo}@main:{folder}/model.safetensors",
        f"{hub.endpoint}/{repo}/blob/main/weights/epoch%203/model.safetensors",
        f"{hub.endpoint}/{repo}/resolve/v1.0%2Bx/weights/epoch%203/model.safetensors?download=true",
    ):
        code, out, err = run("inspect", text, "--json")
        assert code == 0, err
        assert json.loads(out)[0]["files"] == [f"{folder}/model.safetensors"]
    out = merged(
        run, f"{hub.endpoint}/{parents[0]}", f"https://huggingface.co/{repo}/tree/main", "--output", "out", *FIRST
    )
    assert f"- model: {repo}@{sha}" in Path("out/hf_lwmm.yaml").read_text()


def test_a_folder_whose_configuration_was_changed_is_not_pushed(
    run: Run, api: HfApi, models: list[Path], parents: tuple[str, str], repo: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    merged(run, *parents, "--output", folder)
    config = (folder / "config.json").read_text()
    for text in (None, config.replace("road", "street")):
        (folder / "config.json").unlink() if text is None else (folder / "config.json").write_text(text)
        code, _, err = run("push", folder, repo)
        assert code == 1 and "config.json" in err and "Make the model again, and push that" in err, err
    assert not api.repo_exists(repo)
    (folder / "config.json").write_text(config)
    (folder / "README.md").write_text("My own words.")
    assert run("push", folder, repo)[0] == 0


def test_the_stock_client_draws_no_bars_where_nobody_watches_them(
    api: HfApi, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", None)
    enable_progress_bars()  # whatever another test left
    drawn = list[bool]()

    def nothing(*arguments: object) -> Replacement:
        drawn.append(not are_progress_bars_disabled())
        return Replacement(set())

    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
        files = {name: content_names(tmp_path / name)}
        push_folder(tmp_path, files, repo, PushOptions(), message="m", superseded=nothing)
        assert not are_progress_bars_disabled()
    assert drawn == [False, False]
