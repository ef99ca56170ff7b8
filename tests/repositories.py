"""A repository for a test of the local Hub."""

from __future__ import annotations

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from safetensors.numpy import save

WEIGHTS = save({"w": np.arange(750_000, dtype=np.float32)}, metadata={"format": "pt"})
CARD = "---\nlicense: mit\ntags: [merge]\npipeline_tag: image-segmentation\n---\n# Hello\n"


def new_repository(api: HfApi, request: pytest.FixtureRequest) -> str:
    """The name of a fresh repository with a card, a config and 3 MB of weights, named after the test."""
    repo_id = f"org/{request.node.name.replace('[', '-').replace(']', '')[:60]}"
    api.create_repo(repo_id)
    api.create_commit(
        repo_id,
        [
            CommitOperationAdd("README.md", CARD.encode()),
            CommitOperationAdd("config.json", b"{}"),
            CommitOperationAdd("sub/model.safetensors", WEIGHTS),
        ],
        commit_message="first",
    )
    return repo_id
