"""Pushes that are refused: before any work where that can be known, and else without losing the work."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from huggingface_hub import CommitOperationAdd, HfApi
from safetensors.numpy import save

import hf_lwmm
from hf_lwmm.hub import ModelRef, Source, check_apart, check_push
from hf_lwmm.localhub import Fault, LocalHub

_NUMBERS = itertools.count()
SLERP = ("--method", "slerp")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a repository that does not exist yet; kept folders go to the folder of the test."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    yield f"local/failed-{next(_NUMBERS)}"


@pytest.fixture(scope="module")
def weights() -> tuple[bytes, bytes]:
    """Two small models."""
    numbers = np.random.default_rng(0)
    one, two = (save({name: numbers.random((3, 3), np.float32) for name in ("a.weight", "b.weight")}) for _ in range(2))
    return one, two


@pytest.fixture
def parents(api: HfApi, weights: tuple[bytes, bytes], repo: str) -> tuple[str, str]:
    """Two models on the Hub."""
    for name, content in zip((f"{repo}-a", f"{repo}-b"), weights, strict=True):
        api.create_repo(name)
        put(api, name, {"model.safetensors": content, "README.md": b"---\nlicense: mit\n---\n"})
    return f"{repo}-a", f"{repo}-b"


def put(api: HfApi, repo: str, files: dict[str, bytes], revision: str | None = None) -> None:
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    api.create_commit(repo, operations, commit_message="by hand", revision=revision)


def offered(err: str) -> list[str]:
    """The words of the command that the last message offers, after the program's name."""
    found = re.search(r"To push it: (hf-lwmm|hf) (.*)$", err.strip().splitlines()[-1])
    assert found, err
    return [found[1], *shlex.split(found[2])]


# What a Hub may answer to the commit, or to the upload, and what the message says.
REFUSALS = {
    "lost race": (
        Fault("/commit/", method="POST", times=99, status=412),
        "somebody else changed it meanwhile, so nothing was committed. Push again. What",
    ),
    "revoked token": (Fault("/commit/", method="POST", times=99, status=401), "Log in with `hf auth login`"),
    "too large": (Fault("/lfs/", method="PUT", times=99, status=413), "the upload failed"),
    "full": (Fault("/commit/", method="POST", times=99, status=507), "the Hub answered 507"),
    "down": (Fault("/preupload/", method="POST", times=99, drop_after_bytes=0), "the Hub cannot be reached"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_push_that_fails_keeps_the_merge_and_says_how_to_push_it(
    refusal: str, run: Run, api: HfApi, hub: LocalHub, parents: tuple[str, str], repo: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fault, says = REFUSALS[refusal]
    other = ("--option", f"t=0.{[*REFUSALS].index(refusal) + 1}")  # what was uploaded once is not sent again
    hub.faults.append(Fault(**{**vars(fault)}))
    code, _, err = run("merge", *parents, "--push", repo, "--private", "--commit-message", "a b", *SLERP, *other)
    assert code == 1 and says in err and "is whole, in" in err
    program, verb, folder, *rest = offered(err)
    assert (program, verb) == ("hf-lwmm", "push") and rest == [repo, "--private", "--commit-message", "a b"]
    assert {path.name for path in Path(folder).iterdir()} >= {"model.safetensors", "hf_lwmm.yaml", "README.md"}
    hub.faults.clear()
    code, _, err = run(verb, folder, *rest)
    assert code == 0, err
    assert "model.safetensors" in api.list_repo_files(repo) and api.model_info(repo).private


def test_a_merge_that_was_pushed_leaves_nothing_behind(
    run: Run, parents: tuple[str, str], repo: str, tmp_path: Path
) -> None:
    assert run("merge", *parents, "--push", repo, *SLERP)[0] == 0
    assert not list((tmp_path / "temporary").iterdir())


def test_an_output_that_was_named_is_where_the_message_says(
    run: Run, hub: LocalHub, parents: tuple[str, str], repo: str, tmp_path: Path
) -> None:
    hub.faults.append(Fault("/commit/", method="POST", times=99, status=403))
    code, _, err = run("merge", *parents, "--output", "my merge", "--push", repo, *SLERP)
    assert code == 1 and offered(err) == ["hf-lwmm", "push", "my merge", repo]
    assert not list((tmp_path / "temporary").iterdir())


def test_an_interrupted_push_keeps_the_merge_too(
    run: Run, parents: tuple[str, str], repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "create_commit", interrupted)
    code, _, err = run("merge", *parents, "--push", repo, *SLERP)
    (kept,) = (tmp_path / "temporary").glob("*/*")
    assert code == 130 and f"what was to be pushed is in {kept}; to push it: hf-lwmm push {kept} {repo}" in err
    assert (kept / "model.safetensors").is_file()


@pytest.mark.parametrize("options", [(), ("--create-pr",), ("--revision", "dev"), ("--revision", "refs/pr/1")])
def test_what_is_to_be_private_is_not_pushed_to_a_public_repository(
    options: tuple[str, ...], run: Run, api: HfApi, hub: LocalHub, parents: tuple[str, str], repo: str
) -> None:
    api.create_repo(repo)
    api.create_pull_request(repo, title="x")
    reading = Fault(path=r"resolve/.*safetensors", status=500, times=99)
    hub.faults.append(reading)
    code, _, err = run("merge", *parents, "--push", repo, "--private", *options)
    assert code == 1 and f"{repo}: is public, and --private makes only new" in err and reading.times == 99
    assert api.list_repo_files(repo) == [".gitattributes"]


def test_a_repository_that_somebody_made_public_meanwhile_gets_nothing(
    run: Run, api: HfApi, parents: tuple[str, str], repo: str
) -> None:
    assert run("merge", *parents, "--output", "out", *SLERP)[0] == 0
    api.create_repo(repo)
    with pytest.raises(hf_lwmm.HfLwmmError, match="is public"):
        hf_lwmm.push("out", repo, hf_lwmm.PushOptions(private=True))
    assert api.list_repo_files(repo) == [".gitattributes"]
    api.update_repo_settings(repo, private=True)
    assert hf_lwmm.push("out", repo, hf_lwmm.PushOptions(private=True)).changed
    assert hf_lwmm.push("out", repo).repo_id == repo and api.model_info(repo).private


def as_address(name: str, api: HfApi) -> str:
    return f"{api.endpoint}/{name}"


@pytest.mark.parametrize("written", [lambda name, api: name, as_address, lambda name, api: name.split("/")[1]])
def test_no_push_takes_the_place_of_a_model_that_is_merged(
    written: Callable[[str, HfApi], str], run: Run, api: HfApi, hub: LocalHub, parents: tuple[str, str]
) -> None:
    before = api.model_info(parents[1]).sha
    code, _, err = run("merge", *parents, "--push", written(parents[1], api))
    assert code == 1 and f"{parents[1]}: is {parents[1]}@{str(before)[:7]}, which this is made of" in err
    assert api.model_info(parents[1]).sha == before


@pytest.fixture
def folder(run: Run, parents: tuple[str, str]) -> Path:
    """A merge of the parents."""
    code, _, err = run("merge", *parents, *SLERP, "--output", "out")
    assert code == 0, err
    return Path("out")


@pytest.mark.parametrize("place", [0, 1])
def test_a_folder_never_takes_the_place_of_a_model_that_has_moved_since(
    place: int, folder: Path, run: Run, api: HfApi, parents: tuple[str, str], weights: tuple[bytes, bytes], repo: str
) -> None:
    put(api, parents[place], {"notes.txt": b"more"})
    before = api.model_info(parents[place]).sha
    again = ("merge", "--recipe", folder / "hf_lwmm.yaml", "--push", parents[place])
    for command in (("push", folder, parents[place]), again):
        code, _, err = run(*command)
        assert code == 1 and f"{parents[place]}: is {parents[place]}@" in err and "--revision NAME" in err, err
    assert api.model_info(parents[place]).sha == before
    for _ in range(2):
        assert run("push", folder, parents[place], "--revision", "merged")[0] == 0
    api.create_branch(repo_id=parents[place], branch="night")
    put(api, parents[place], {"model.safetensors": weights[0][:-1] + b"x"}, revision="night")
    code, _, err = run("merge", f"{parents[place]}@night", parents[1 - place], *SLERP, "--output", "night")
    assert code == 0, err
    put(api, parents[place], {"notes.txt": b"and more"}, revision="night")
    code, _, err = run("push", "night", parents[place], "--revision", "night")
    assert code == 1 and "which this is made of" in err


def test_a_base_is_not_replaced_either(run: Run, api: HfApi, parents: tuple[str, str]) -> None:
    code, _, err = run(
        "merge", parents[1], parents[1], "--method", "task-arithmetic", "--base", parents[0], "--output", "one"
    )
    assert code == 0, err
    put(api, parents[0], {"notes.txt": b"more"})
    code, _, err = run("push", "one", parents[0])
    assert (
        code == 1
        and f"{parents[0]}: is {parents[0]}@" in err
        and "model.safetensors" in api.list_repo_files(parents[0])
    )


def _gone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _changed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"x")


def _configured(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "segformer"}')


def _adapted(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def _unprepared(folder: Path) -> None:
    (folder / "processor_config.json").write_text("{}")


def _covered(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    text = (folder / "hf_lwmm.yaml").read_text()
    output = text.index("output:")
    renamed = text[output:].replace("model.safetensors", "model-00001-of-00001.safetensors")
    (folder / "hf_lwmm.yaml").write_text(text[:output] + renamed)
    (folder / "pytorch_model.bin").write_bytes(b"x")


def _by_hand(folder: Path) -> None:
    (folder / "hf_lwmm.yaml").write_text("models: [org/a, org/b]")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_gone, "is missing"),
        (_changed, "is not the one that"),
        (_configured, "config.json would be loaded together with the weights"),
        (_adapted, "adapter_config.json would be loaded together with the weights"),
        (_unprepared, "processor_config.json would be loaded together with the weights"),
        (_covered, "pytorch_model.bin would be loaded"),
        (_by_hand, "records no weights"),
    ],
)
def test_a_folder_that_contradicts_its_recipe_is_not_published(
    harm: Callable[[Path], None], says: str, folder: Path, run: Run, api: HfApi, repo: str
) -> None:
    assert run("push", folder, repo)[0] == 0
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMy own words.\n")
    assert run("push", folder, repo)[0] == 0
    before = api.model_info(repo).sha
    harm(folder)
    for target in (repo, f"{repo}-new"):
        code, _, err = run("push", folder, target)
        assert code == 1 and says in err and "hf-lwmm merge --recipe out/hf_lwmm.yaml --output NEW" in err, err
    assert api.model_info(repo).sha == before and not api.repo_exists(f"{repo}-new")


def test_what_is_no_file_is_left_out_with_a_word(folder: Path, run: Run, api: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.txt").write_text("x")
    os.mkfifo(folder / "pipe")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    code, _, err = run("push", folder, repo)
    assert code == 0 and "were not pushed: linked, pipe." in err
    assert not {"linked/x.txt", "pipe"} & set(api.list_repo_files(repo))


def renamed(hub: LocalHub, old: str, new: str) -> None:
    """Let requests to a former name lead to the present one, as on the Hub."""
    for ending in ("", "/revision/main", "/auth-check/write", "/auth-check", "/refs"):
        target = {"Location": f"/api/models/{new}{ending}"}
        hub.faults.append(Fault(f"^/api/models/{old}{ending}$", times=99, status=307, headers=target))


def test_a_former_name_leads_to_the_repository_of_today(
    run: Run, api: HfApi, hub: LocalHub, parents: tuple[str, str], repo: str
) -> None:
    renamed(hub, f"{repo}-old", parents[0])
    code, _, err = run("merge", *parents, "--push", f"{repo}-old")
    assert code == 1 and f"{parents[0]}: is {parents[0]}@" in err
    source = Source(ModelRef(f"{repo}-old"), api.model_info(parents[0]).sha, ())
    with pytest.raises(hf_lwmm.HfLwmmError, match=f"{parents[0]}: is {repo}-old@"):
        check_apart(parents[0], hf_lwmm.PushOptions(), [source])
    hub.faults.clear()
    api.create_repo(repo)
    renamed(hub, f"{repo}-old", repo)
    code, out, err = run("merge", *parents, "--push", f"{repo}-old", *SLERP)
    assert code == 0 and f"Pushed to {api.endpoint}/{repo}\n" in out, err
    hub.faults.clear()
    assert (
        not api.repo_exists(f"{repo}-old") and f"# {repo}" in Path(api.hf_hub_download(repo, "README.md")).read_text()
    )


@pytest.mark.parametrize("path", ["/whoami", "/auth-check"])
@pytest.mark.parametrize("status", [500, 429])
def test_a_hub_that_fails_is_not_taken_for_one_that_refuses(
    path: str, status: int, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.faults.append(Fault(path, times=99, status=status))
    with pytest.raises(hf_lwmm.HfLwmmError, match=f"the Hub answered {status}"):
        check_push("local/nothing")


def test_gated_repositories_and_tokens_that_only_read_are_found_out_before_a_proposal(
    api: HfApi, repo: str, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create_repo(repo)
    proposal = hf_lwmm.PushOptions(create_pr=True)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(hf_lwmm.HfLwmmError, match="can only read"):
        check_push(repo, proposal)
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    assert check_push(repo, proposal) == repo
    api.update_repo_settings(repo, gated="auto")
    with pytest.raises(hf_lwmm.HfLwmmError, match=r"gated\. Accept its conditions"):
        check_push(repo, proposal)


def test_a_card_that_the_hub_refuses_is_named_with_the_reason(
    run: Run, parents: tuple[str, str], repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ValueError("Invalid metadata in README.md.\n- license must be one of mit, ...")

    monkeypatch.setattr(HfApi, "create_commit", refused)
    code, _, err = run("merge", *parents, "--push", repo, *SLERP)
    assert code == 1 and "Invalid metadata in README.md. - license must be one of mit" in err


def test_a_model_can_be_pushed_beside_on_a_branch_or_as_a_proposal(
    run: Run, api: HfApi, parents: tuple[str, str]
) -> None:
    before = api.model_info(parents[0]).sha
    for options in (("--revision", "merged"), ("--create-pr",), ("--revision", "refs/pr/1")):
        code, _, err = run("merge", *parents, "--push", parents[0], *options, *SLERP)
        assert code == 0, err
    assert api.model_info(parents[0]).sha == before
    code, _, err = run(
        "merge", f"{parents[0]}@merged", parents[1], "--push", parents[0], "--revision", "merged", *SLERP
    )
    assert code == 1 and "is " + parents[0] in err
    assert run("merge", *parents, "--output", "out", *SLERP)[0] == 0
    code, _, err = run("push", "out", parents[0])
    assert code == 1 and "which this is made of" in err


def test_the_rule_of_an_organisation_decides_where_nothing_is_asked_for(
    run: Run, parents: tuple[str, str], repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    real = HfApi.create_repo

    def noted(self: HfApi, repo_id: str, **options: Any) -> Any:
        asked.append(options["private"])
        return real(self, repo_id, **options)

    monkeypatch.setattr(HfApi, "create_repo", noted)
    assert run("merge", *parents, "--push", repo, *SLERP)[0] == 0
    assert asked == [None]


def test_hidden_files_of_a_folder_are_not_published(run: Run, api: HfApi, parents: tuple[str, str], repo: str) -> None:
    assert run("merge", *parents, "--output", "out", *SLERP)[0] == 0
    for name in (".env", ".git/config", ".eval_results/org--data.yaml", "notes.txt"):
        Path("out", name).parent.mkdir(exist_ok=True)
        Path("out", name).write_text("x")
    code, _, err = run("push", "out", repo)
    assert code == 0 and "out: hidden files were not pushed: .env, .git/config." in err
    files = set(api.list_repo_files(repo))
    assert not {".env", ".git/config"} & files and {".eval_results/org--data.yaml", "notes.txt"} < files


def test_a_folder_without_a_recipe_is_not_pushed(run: Run, tmp_path: Path, hub: LocalHub) -> None:
    code, _, err = run("push", tmp_path, "local/nothing")
    assert code == 1 and "is not a merged model" in err
    check_push("local/nothing")
