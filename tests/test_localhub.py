"""The local Hub, through the stock clients."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx2
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from repositories import CARD, new_repository

from hf_lwmm.localhub import LocalHub
from hf_lwmm.localhub.store import Store


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> str:
    return new_repository(api, request)


def test_files_come_back_as_they_went(api: HfApi, repo: str, tmp_path: Path) -> None:
    folder = Path(api.snapshot_download(repo, local_dir=tmp_path))
    assert (folder / "README.md").read_text() == CARD
    assert (folder / "sub/model.safetensors").stat().st_size > 3_000_000


def test_large_and_small_files_are_named_as_on_the_hub(api: HfApi, repo: str) -> None:
    info = api.model_info(repo, files_metadata=True)
    files = {sibling.rfilename: sibling for sibling in info.siblings}
    assert files["sub/model.safetensors"].lfs.sha256 and files["config.json"].lfs is None
    assert files["config.json"].blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()  # git's name for the content {}
    assert info.card_data.license == "mit" and info.pipeline_tag == "image-segmentation"


def test_headers_are_read_by_range_requests(api: HfApi, repo: str) -> None:
    header = api.parse_safetensors_file_metadata(repo, "sub/model.safetensors")
    assert header.tensors["w"].shape == [750_000] and header.metadata == {"format": "pt"}
    url = f"{api.endpoint}/{repo}/resolve/main/sub/model.safetensors"
    answer = httpx2.get(url, headers={"Range": "bytes=8-11"})
    assert answer.status_code == 206 and len(answer.content) == 4


def test_trees_are_listed_in_pages(api: HfApi, repo: str) -> None:
    assert {entry.path for entry in api.list_repo_tree(repo)} == {".gitattributes", "README.md", "config.json", "sub"}
    deep = {entry.path for entry in api.list_repo_tree(repo, recursive=True, expand=True)}
    assert "sub/model.safetensors" in deep
    page = httpx2.get(f"{api.endpoint}/api/models/{repo}/tree/main?limit=2")
    assert len(page.json()) == 2 and 'rel="next"' in page.headers["Link"]
    found = api.get_paths_info(repo, ["config.json", "sub", "nothing"])
    assert [entry.path for entry in found] == ["config.json", "sub"]


def test_private_repositories_are_hidden_from_others(hub: LocalHub, api: HfApi) -> None:
    api.create_repo("org/secret", private=True)
    assert api.model_info("org/secret").private
    for token in ("hf_stranger", False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.endpoint, token=token).model_info("org/secret")


def test_gated_repositories_show_themselves_only(hub: LocalHub, api: HfApi, repo: str, tmp_path: Path) -> None:
    api.update_repo_settings(repo, gated="auto")
    stranger = HfApi(endpoint=hub.endpoint, token="hf_stranger")
    assert stranger.model_info(repo).gated
    with pytest.raises(GatedRepoError):
        stranger.hf_hub_download(repo, "config.json", cache_dir=tmp_path)


def test_what_is_missing_is_named_as_on_the_hub(api: HfApi, repo: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="nothing")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "nothing.txt")


def test_tokens_say_who_may_write(hub: LocalHub, api: HfApi, repo: str) -> None:
    assert api.whoami()["name"] == "local"
    api.auth_check(repo, write=True)
    for token in ("hf_reader", "hf_stranger"):
        other = HfApi(endpoint=hub.endpoint, token=token)
        other.auth_check(repo)
        with pytest.raises(HfHubHTTPError, match="403"):
            other.auth_check(repo, write=True)
        with pytest.raises(HfHubHTTPError, match="403"):
            other.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=hub.endpoint, token="hf_wrong").whoami()


def test_data_sets_and_spaces_are_listed(api: HfApi) -> None:
    api.create_repo("org/listed", repo_type="dataset")
    api.create_repo("org/listed", repo_type="space", space_sdk="static")
    assert "org/listed" in [dataset.id for dataset in api.list_datasets()]
    assert [space.id for space in api.list_spaces()] == ["org/listed"]


def test_models_are_listed_by_what_their_cards_say(api: HfApi, repo: str) -> None:
    assert repo in [model.id for model in api.list_models(author="org", filter="merge")]
    assert not list(api.list_models(author="org", filter="no-such-tag"))


def test_cards_are_checked(api: HfApi) -> None:
    ModelCard(CARD).validate()
    answer = httpx2.post(f"{api.endpoint}/api/validate-yaml", json={"content": "---\na: [\n---\n", "repoType": "model"})
    assert answer.status_code == 400 and answer.json()["errors"]


def test_paths_cannot_leave_a_repository(hub: LocalHub, api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha
    for path in ("../x", "/etc/x", "a/../../x", "a\\x", ".git/config", ".GIT/config", "a\0", "a\n", "a" * 256, ""):
        lines = [{"key": "header", "value": {}}, {"key": "file", "value": {"path": path, "content": "x"}}]
        body = "\n".join(map(json.dumps, lines))
        headers = {"Authorization": f"Bearer {hub.token}"}
        answer = httpx2.post(f"{hub.endpoint}/api/models/{repo}/commit/main", content=body, headers=headers)
        assert answer.status_code == 400 and "is no path in a repository" in answer.json()["error"]
    assert api.model_info(repo).sha == head
    assert httpx2.get(f"{hub.endpoint}/{repo}/resolve/main/..%2F..%2Fusers.json").status_code == 404


def test_an_upload_nobody_asked_for_or_with_other_content_than_announced_is_refused(hub: LocalHub, repo: str) -> None:
    def put(content: bytes) -> int:
        body = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 9}]}
        headers = {"Authorization": f"Bearer {hub.token}"}
        url = f"{hub.endpoint}/{repo}.git/info/lfs/objects/batch"
        [answer] = httpx2.post(url, json=body, headers=headers).json()["objects"]
        return httpx2.put(answer["actions"]["upload"]["href"], content=content).status_code

    assert [put(b"something"), put(b"short"), put(b"much too long")] == [422, 422, 413]
    assert httpx2.put(f"{hub.endpoint}/lfs/{'0' * 64}", content=b"something").status_code == 403
    assert not list(hub.store.root.rglob("0" * 64 + "*")) and not list((hub.store.root / "incoming").iterdir())


def test_names_of_content_that_are_no_hashes_are_refused(hub: LocalHub, repo: str) -> None:
    body = {"operation": "upload", "objects": [{"oid": "../../users.json", "size": 9}]}
    headers = {"Authorization": f"Bearer {hub.token}"}
    answer = httpx2.post(f"{hub.endpoint}/{repo}.git/info/lfs/objects/batch", json=body, headers=headers)
    assert answer.status_code == 400 and "is no SHA-256" in answer.json()["error"]


def test_tokens_and_content_are_the_owners_alone(tmp_path: Path) -> None:
    Store(tmp_path / "root")
    modes = {name: (tmp_path / "root" / name).stat().st_mode & 0o777 for name in ("users.json", "blobs", "repos")}
    assert modes == {"users.json": 0o600, "blobs": 0o700, "repos": 0o700}


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as first:
        api = HfApi(endpoint=first.endpoint, token=first.token)
        api.create_repo("local/kept")
        api.upload_file(path_or_fileobj=b"kept", path_in_repo="a.txt", repo_id="local/kept")
        token = first.token
    with LocalHub(tmp_path) as second:
        api = HfApi(endpoint=second.endpoint, token=token)
        assert Path(api.hf_hub_download("local/kept", "a.txt", cache_dir=tmp_path / "cache")).read_bytes() == b"kept"


def test_datasets_load_whole_and_streamed(api: HfApi) -> None:
    datasets = pytest.importorskip("datasets")
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    rows = {"image": [np.zeros((2, 2, 3), np.uint8)] * 2, "label": [mask, mask]}
    datasets.Dataset.from_dict(rows, features=features).push_to_hub("org/tiny-masks")
    whole = datasets.load_dataset("org/tiny-masks", split="train")
    streamed = datasets.load_dataset("org/tiny-masks", split="train", streaming=True)
    assert len(whole) == 2
    assert np.array_equal(np.asarray(next(iter(streamed))["label"]), mask)


def test_transformers_push_and_load(api: HfApi) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2], sr_ratios=[4, 2],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=8,
    )  # fmt: skip
    model = transformers.SegformerForSemanticSegmentation(config)
    model.push_to_hub("org/tiny-segformer")
    loaded = transformers.SegformerForSemanticSegmentation.from_pretrained("org/tiny-segformer")
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].equal(tensor), name


def test_timm_pushes_and_loads(api: HfApi) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_resnet", num_classes=3)
    timm.models.push_to_hf_hub(model, "org/tiny-timm", safe_serialization=True)
    loaded = timm.create_model("hf-hub:org/tiny-timm", pretrained=True)
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].equal(tensor), name


def test_a_read_token_changes_nothing(hub: LocalHub, repo: str) -> None:
    reader = HfApi(endpoint=hub.endpoint, token="hf_reader")
    add = [CommitOperationAdd("z.bin", b"z")]
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_commit(repo, add, commit_message="z", create_pr=True)
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_discussion(repo, "hello")
    for call in (reader.create_repo, reader.delete_repo):
        with pytest.raises(HfHubHTTPError, match="403"):
            call("org/theirs" if call == reader.create_repo else repo)


def test_cards_with_dates_and_nan_are_served(api: HfApi, repo: str) -> None:
    card = b"---\ndate: 2024-01-01\nscore: .nan\nlicense: mit\n---\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
    assert api.model_info(repo).card_data.license == "mit"


def test_only_what_is_asked_for_is_told(api: HfApi, repo: str) -> None:
    info = api.model_info(repo, expand=["sha", "private"])
    assert info.sha and info.private is False and info.siblings is None and info.author is None


def test_names_without_a_namespace_are_repositories_that_are_missing(api: HfApi) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("gpt2")


def test_gates_keep_their_kind(api: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, gated="manual")
    assert api.model_info(repo).gated == "manual"
    api.update_repo_settings(repo, gated=False)
    assert api.model_info(repo).gated is False


def test_long_trees_and_lists_come_in_pages_also_of_a_pull_request(api: HfApi, repo: str) -> None:
    many = [CommitOperationAdd(f"many/{number:04}.txt", b"%d" % number) for number in range(1100)]
    api.create_commit(repo, many, commit_message="many", create_pr=True)
    assert len(list(api.list_repo_tree(repo, "many", revision="refs/pr/1"))) == 1100
    assert len(list(api.list_models(author="org", limit=1))) == 1


def test_text_is_told_from_binary_by_its_start(api: HfApi, repo: str) -> None:
    api.upload_file(path_or_fileobj=b"\xff\xfe no zero byte", path_in_repo="odd", repo_id=repo)
    api.upload_file(path_or_fileobj=b"x" + "ä".encode() * 600, path_in_repo="text", repo_id=repo)
    odd, text = api.get_paths_info(repo, ["odd", "text"])
    assert odd.lfs is not None and text.lfs is None
