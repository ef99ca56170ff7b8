"""Commits, branches, tags and pull requests of the local Hub, by the stock client."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RevisionNotFoundError,
)
from repositories import WEIGHTS, new_repository


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> str:
    return new_repository(api, request)


def test_an_old_commit_stays_readable(api: HfApi, repo: str) -> None:
    old = api.model_info(repo).sha
    api.upload_file(path_or_fileobj=b'{"a": 1}', path_in_repo="config.json", repo_id=repo)
    assert Path(api.hf_hub_download(repo, "config.json", revision=old)).read_text() == "{}"
    assert Path(api.hf_hub_download(repo, "config.json")).read_text() == '{"a": 1}'
    assert [commit.title for commit in api.list_repo_commits(repo)][1:] == ["first", "initial commit"]


def test_files_and_folders_can_be_deleted(api: HfApi, repo: str) -> None:
    deletions = [CommitOperationDelete("config.json"), CommitOperationDelete("sub/", is_folder=True)]
    api.create_commit(repo, deletions, commit_message="less")
    assert set(api.list_repo_files(repo)) == {".gitattributes", "README.md"}


def test_branches_and_tags_point_at_commits(api: HfApi, repo: str) -> None:
    api.create_branch(repo, branch="dev")
    api.create_tag(repo, tag="v1")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo, revision="dev")
    assert "x.txt" in api.list_repo_files(repo, revision="dev")
    assert "x.txt" not in api.list_repo_files(repo, revision="v1")
    refs = api.list_repo_refs(repo)
    assert {branch.name for branch in refs.branches} == {"main", "dev"} and [tag.name for tag in refs.tags] == ["v1"]
    api.delete_branch(repo, branch="dev")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="dev")


def test_a_pull_request_does_not_touch_main(api: HfApi, repo: str) -> None:
    done = api.create_commit(repo, [CommitOperationAdd("new.txt", b"new")], commit_message="please", create_pr=True)
    assert done.pr_url and done.pr_num == 1
    assert "new.txt" not in api.list_repo_files(repo)
    assert "new.txt" in api.list_repo_files(repo, revision="refs/pr/1")
    assert api.get_discussion_details(repo, 1).title == "please"


def test_a_commit_that_changes_nothing_adds_nothing(api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha
    api.create_commit(repo, [CommitOperationAdd("config.json", b"{}")], commit_message="again")
    assert api.model_info(repo).sha == head


def test_a_commit_on_an_old_parent_is_refused(api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=repo)
    with pytest.raises(HfHubHTTPError, match="412"):
        operations = [CommitOperationAdd("b.txt", b"2")]
        api.create_commit(repo, operations, commit_message="late", parent_commit=parent)


def test_commits_at_once_are_all_kept(api: HfApi, repo: str) -> None:
    def upload(number: int) -> None:
        api.upload_file(path_or_fileobj=b"%d" % number, path_in_repo=f"{number}.txt", repo_id=repo)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"{number}.txt" for number in range(6)} <= set(api.list_repo_files(repo))


def test_small_and_large_files_can_be_copied(api: HfApi, repo: str) -> None:
    copies = [
        CommitOperationCopy("sub/model.safetensors", "b.safetensors"),
        CommitOperationCopy("config.json", "c.json"),
    ]
    api.create_commit(repo, copies, commit_message="copy")
    entries = {entry.path: entry for entry in api.list_repo_tree(repo, recursive=True)}
    assert entries["b.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert Path(api.hf_hub_download(repo, "c.json")).read_text() == "{}"


def test_commits_go_to_branches_only(api: HfApi, repo: str) -> None:
    api.create_tag(repo, tag="v1")
    for revision in ("v1", api.model_info(repo).sha):
        with pytest.raises(BadRequestError):
            api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo, revision=revision)
    assert [branch.name for branch in api.list_repo_refs(repo).branches] == ["main"]
    with pytest.raises(HfHubHTTPError, match="403"):
        api.delete_branch(repo, branch="main")
    for name in ("refs/pr/5", "tags/x"):
        with pytest.raises(BadRequestError):
            api.create_branch(repo, branch=name)


def test_deleting_what_is_not_there_is_an_error(api: HfApi, repo: str) -> None:
    for operation in (CommitOperationDelete("sub"), CommitOperationDelete("none/", is_folder=True)):
        with pytest.raises(EntryNotFoundError):
            api.create_commit(repo, [operation], commit_message="gone")
    assert "sub/model.safetensors" in api.list_repo_files(repo)


def test_a_name_is_not_a_file_and_a_folder(api: HfApi, repo: str) -> None:
    for path in ("sub", "config.json/x.txt"):
        with pytest.raises(BadRequestError):
            api.upload_file(path_or_fileobj=b"x", path_in_repo=path, repo_id=repo)


def test_a_pull_request_starts_where_it_was_asked_to(api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha
    api.upload_file(path_or_fileobj=b"1", path_in_repo="later.txt", repo_id=repo)
    operations = [CommitOperationAdd("new.txt", b"2")]
    done = api.create_commit(repo, operations, commit_message="pr", parent_commit=parent, create_pr=True)
    assert "later.txt" not in api.list_repo_files(repo, revision=done.pr_revision)
    again = [CommitOperationAdd("config.json", b"{}")]
    assert api.create_commit(repo, again, commit_message="same", create_pr=True).pr_url is None
