"""Faults and slow lines of the local Hub, planned by tests, and how the stock client takes them."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi
from repositories import WEIGHTS, new_repository

from hf_lwmm.localhub import Fault, LocalHub


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> str:
    return new_repository(api, request)


def test_a_download_cut_again_and_again_is_resumed_by_the_client(
    hub: LocalHub, api: HfApi, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client keeps whole blocks of 10 MB only; with those it would begin again and never arrive.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    hub.faults.append(Fault(path=r"model\.safetensors$", drop_after_bytes=1_200_000, times=99))
    path = Path(api.hf_hub_download(repo, "sub/model.safetensors", cache_dir=tmp_path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == hashlib.sha256(WEIGHTS).hexdigest()


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
