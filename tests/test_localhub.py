"""The local Hub, through the stock clients."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.numpy import save

from hf_lwmm.localhub import Fault, LocalHub
from hf_lwmm.localhub.store import Store

WEIGHTS = save({"w": np.arange(750_000, dtype=np.float32)}, metadata={"format": "pt"})
CARD = "---\nlicense: mit\ntags: [merge]\npipeline_tag: image-segmentation\n---\n# Hello\n"


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> str:
    """A fresh repository with a card, a config and 3 MB of weights."""
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


def test_a_download_cut_again_and_again_is_resumed_by_the_client(
    hub: LocalHub, api: HfApi, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client keeps whole blocks of 10 MB only; with those it would begin again and never arrive.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    hub.faults.append(Fault(path=r"model\.safetensors$", drop_after_bytes=1_200_000, times=99))
    path = Path(api.hf_hub_download(repo, "sub/model.safetensors", cache_dir=tmp_path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == hashlib.sha256(WEIGHTS).hexdigest()


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


def test_faults_can_be_planned_over_http(hub: LocalHub, api: HfApi) -> None:
    admin = f"{hub.endpoint}/_faults"
    assert httpx2.post(admin, json={"path": "whoami", "status": 500}).json()[0]["times"] == 1
    assert httpx2.get(f"{hub.endpoint}/api/whoami-v2").status_code == 500
    assert httpx2.post(admin, json={"path": "(", "status": 500}).status_code == 400
    assert httpx2.delete(admin).json() == [] and api.whoami()["name"] == "local"


def test_a_hub_for_people_plans_no_faults(tmp_path: Path) -> None:
    with LocalHub(tmp_path, faults=False) as plain:
        assert httpx2.get(f"{plain.endpoint}/_faults").status_code == 404


@pytest.mark.parametrize("status", [429, 500])
def test_the_client_tries_again(status: int, hub: LocalHub, api: HfApi, repo: str) -> None:
    hub.faults.append(Fault("/tree/", status=status, retry_after=0))
    assert "config.json" in api.list_repo_files(repo) and hub.faults[0].times == 0


def test_a_throttled_line_is_shared_and_counts_what_it_carries(hub: LocalHub, repo: str) -> None:
    def seconds(url: str) -> float:
        begun = time.monotonic()
        assert httpx2.get(url, headers={"Accept-Encoding": "identity"}).content == WEIGHTS
        return time.monotonic() - begun

    url = f"{hub.endpoint}/{repo}/resolve/main/sub/model.safetensors"
    line = hub.throttle
    line.rate, line.latency = 6e6, 0.2
    line.requests = line.bytes_sent = 0
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(seconds, [url, url])
    assert min(first, second) > 0.9 and max(first, second) > 1.1  # 6 MB at 6 MB/s, of which both have a half
    assert (line.requests, line.bytes_sent) == (2, 2 * len(WEIGHTS))


def test_faults_ignore_ranges_and_change_headers(hub: LocalHub, repo: str) -> None:
    url = f"{hub.endpoint}/{repo}/resolve/main/sub/model.safetensors"
    hub.faults += [Fault("model", ignore_range=True), Fault("model", headers={"ETag": '"other"'})]
    whole, other, plain = (httpx2.get(url, headers={"Range": "bytes=8-11"}) for _ in range(3))
    assert whole.status_code == 200 and whole.content == WEIGHTS
    assert (other.status_code, other.headers["ETag"], other.content) == (206, '"other"', plain.content)
