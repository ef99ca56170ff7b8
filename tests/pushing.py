"""Merges to push in tests, and repositories to push them to."""

from __future__ import annotations

import itertools
from pathlib import Path

from conftest import Run
from huggingface_hub import CommitOperationAdd, HfApi

NUMBERS = itertools.count()  # of what only one test may have
FIRST = ("--method", "slerp")  # has no weights of layers, so that no time goes into a plot
SECOND = (*FIRST, "--option", "t=0.3")
SHARDS = (*FIRST, "--max-shard-size", "20KB")
PARENTS = ("local/push-a", "local/push-b")


def upload_parents(api: HfApi, models: list[Path]) -> None:
    """Put two small SegFormers on the Hub of the tests, unless they are there."""
    for repo, folder in zip(PARENTS, models, strict=False):
        if not api.repo_exists(repo):
            api.create_repo(repo)
            api.upload_folder(repo_id=repo, folder_path=folder)


def fresh_name() -> str:
    """The name of a repository that does not exist yet."""
    return f"local/pushed-{next(NUMBERS)}"


def put(api: HfApi, repo: str, **files: bytes) -> None:
    """Add files to a repository, as somebody else would."""
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    api.create_commit(repo, operations, commit_message="by hand")


def names(api: HfApi, repo: str, revision: str | None = None) -> set[str]:
    return set(api.list_repo_files(repo, revision=revision))


def merged(run: Run, *arguments: object) -> str:
    code, out, err = run("merge", *arguments)
    assert code == 0, err
    return out
