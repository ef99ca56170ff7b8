"""The Hub client, against the local Hub over real HTTP: listing, headers, hashes, and the cache without a network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelInfo, snapshot_download
from safetensors.numpy import save

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.errors import HubError
from hf_lwmm.localhub import Fault, LocalHub

WEIGHTS = save({f"tensor{index}": np.zeros(3, np.float32) for index in range(2000)}, metadata={"format": "pt"})


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> str:
    """A fresh repository with a card, a config and weights whose header is longer than the first read."""
    repo_id = f"org/{request.node.name[5:60].translate(str.maketrans('[]', '--')).strip('-')}"
    api.create_repo(repo_id)
    files = {"README.md": b"---\nlicense: mit\ntags: [listed]\n---\n", "config.json": b"{}", "w.safetensors": WEIGHTS}
    api.create_commit(repo_id, [CommitOperationAdd(*file) for file in files.items()], commit_message="first")
    return repo_id


def test_listed_models_are_sources_at_a_commit(repo: str, api: HfApi) -> None:
    [listed] = hub.list_models({"filter": "listed", "search": repo.split("/")[1]}, limit=5)
    assert listed.source.ref == hub.parse_ref(repo) and listed.source.sha == api.model_info(repo).sha
    assert listed.source == hub.resolve(hub.parse_ref(repo)) and listed.source.card["license"] == "mit"


def test_files_are_those_of_the_commit_even_if_the_branch_moves_meanwhile(
    repo: str, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, asked = hub.resolve(hub.parse_ref(repo)), HfApi.model_info
    before = [old.sha]  # what the branch leads to when it is first listed
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="more.json", repo_id=repo)

    def info(own: HfApi, repo_id: str, *, revision: str | None = None, **more: Any) -> ModelInfo:
        # The client asks with a token when it looks for the commit, of which it is told the new one.
        return asked(own, repo_id, revision=revision or (None if more or not before else before.pop()), **more)

    monkeypatch.setattr(HfApi, "model_info", info)
    new = hub.resolve(hub.parse_ref(repo))
    assert new.sha != old.sha and set(new.files) - set(old.files) == {"more.json"}


@pytest.mark.parametrize("times", [1, 2, 3, 4])
@pytest.mark.parametrize("fault", [{"status": 503}, {"drop_after_bytes": 0}], ids=["503", "cut"])
def test_answers_that_break_off_bring_no_older_commit(
    fault: dict[str, Any], times: int, repo: str, api: HfApi, _served: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    old = hub.resolve(hub.parse_ref(repo))
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="another.json", repo_id=repo)
    _served.faults.append(Fault(f"/api/models/{repo}$", times=times, **fault))
    new = hub.resolve(hub.parse_ref(repo))
    assert new.sha != old.sha and "another.json" in new.files
    assert api.resolve_revision(repo, local_files_only=True).resolved == new.sha  # offline mode finds it, too


def test_a_branch_that_hides_a_commit_is_refused(repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, asked = hub.resolve(hub.parse_ref(repo)), HfApi.model_info
    hidden = f"{repo}@{'0' * 40}"
    monkeypatch.setattr(HfApi, "model_info", lambda own, repo_id, **more: asked(own, repo_id))
    with pytest.raises(HubError, match=f"hides the commit; it leads to {old.sha}"):
        hub.resolve(hub.parse_ref(hidden))


def test_a_hub_that_is_away_is_not_waited_for(repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers at the address, whether the cache knows the model or not."""
    known, pauses = hub.resolve(hub.parse_ref(repo)), list[float]()
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for ref in (repo, f"{repo}@{known.sha}", f"{repo}-unknown"):
        with pytest.raises(HubError, match="cannot be reached"):
            hub.resolve(hub.parse_ref(ref))
    assert not pauses


def test_a_long_header_is_read_without_its_data(repo: str) -> None:
    checkpoint = open_checkpoint(hub.resolve(hub.ModelRef(repo_id=repo)), headers_only=True)
    assert len(checkpoint.tensors) == 2000 and not checkpoint.paths
    assert checkpoint.recorded == {"w.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
    checkpoint.close()


def test_a_file_has_the_names_that_the_hub_gives_its_content(repo: str, api: HfApi, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "w.safetensors").write_bytes(WEIGHTS)
    [config, weights] = api.get_paths_info(repo, ["config.json", "w.safetensors"])
    assert hub.content_names(tmp_path / "config.json")[1] == config.blob_id
    assert hub.content_names(tmp_path / "w.safetensors")[0] == weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert hub.sha256(tmp_path / "w.safetensors") == weights.lfs.sha256
    (tmp_path / "empty").write_bytes(b"")
    assert hub.content_names(tmp_path / "empty")[1] == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # as git names it


def test_a_stamp_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    before = hub.stamp(tmp_path)
    assert hub.stamp(tmp_path) == before
    os.utime(tmp_path / "a.txt", (1, 1))
    changed = hub.stamp(tmp_path)
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert len({before, changed, hub.stamp(tmp_path)}) == 3


@pytest.mark.parametrize("whole", [False, True], ids=["part", "all"])
def test_what_the_cache_has_of_a_model_is_found_offline(whole: bool, repo: str, tmp_path: Path) -> None:
    patterns = None if whole else ["config.json"]
    snapshot_download(repo, cache_dir=tmp_path, allow_patterns=patterns)
    code = f"from hf_lwmm import hub; print(*hub.resolve(hub.parse_ref({repo!r})).files)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    everything = [".gitattributes", "README.md", "config.json", "w.safetensors"]
    assert done.stdout.split() == (everything if whole else ["config.json"])
