"""Bytes of files on the Hub: read one by one, and fetched into the cache, over real HTTP."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants, hf_hub_download
from hypothesis import given, settings
from hypothesis import strategies as st
from remote import CONTENT, FILE, MIB, MOST, OTHER, SCATTERED, SHA256, Wire, ignored, left, read

from hf_lwmm.errors import HubError
from hf_lwmm.hub import RangesRefusedError, RemoteFile, fetch_together, open_remote, parse_ref, resolve
from hf_lwmm.localhub import Fault, LocalHub

Opened = Callable[[], RemoteFile]


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> str:
    """A fresh repository with 4 MiB of weights."""
    repo_id = f"org/remote-{request.node.name[5:65].replace('[', '-').replace(']', '')}"
    api.create_repo(repo_id)
    operations = [CommitOperationAdd("model.bin", CONTENT), CommitOperationAdd("config.json", b"{}")]
    api.create_commit(repo_id, operations, commit_message="first")
    return repo_id


@pytest.fixture
def opened(repo: str) -> Iterator[Opened]:
    """Open the weights anew, as another merge would."""
    files = []

    def open_again() -> RemoteFile:
        file = open_remote(resolve(parse_ref(repo)), "model.bin")
        assert file is not None
        files.append(file)
        return file

    yield open_again
    for file in files:
        file.close()


@pytest.fixture
def folder(repo: str) -> Path:
    """The repository's folder in the cache."""
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def test_bytes_are_read_without_leaving_anything_on_disk(opened: Opened, folder: Path) -> None:
    file = opened()
    assert re.fullmatch(r"org/remote-\w+@[0-9a-f]{7}: model\.bin", file.name)
    assert (file.size, file.sha256) == (len(CONTENT), SHA256)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, len(CONTENT)), st.integers(0, MIB))
    def check(start: int, count: int) -> None:
        end = min(start + count, len(CONTENT))
        assert read(file, start, end) == CONTENT[start:end]

    check()
    assert left(folder) == []


def test_a_long_read_is_one_request_and_is_remembered(hub: LocalHub, opened: Opened) -> None:
    file = opened()
    wire = Wire(hub)
    assert read(file, 300_000, 2 * MIB) == CONTENT[300_000 : 2 * MIB]
    assert (wire.requests, wire.bytes) == (1, 7 * (MIB // 4))
    assert read(file, 300_001, MIB) == CONTENT[300_001:MIB] and wire.requests == 1


def test_both_ends_are_asked_for_at_once_and_are_remembered(hub: LocalHub, opened: Opened) -> None:
    file = opened()
    wire = Wire(hub)
    file.prefetch_ends(MIB // 2)
    assert wire.requests == 2
    assert read(file, 0, MIB // 2) == CONTENT[: MIB // 2]
    assert read(file, file.size - MIB // 2, file.size) == CONTENT[-MIB // 2 :] and wire.requests == 2


def test_the_ends_of_a_small_file_are_all_of_it(hub: LocalHub, opened: Opened) -> None:
    file = opened()
    wire = Wire(hub)
    file.prefetch_ends(len(CONTENT))
    assert read(file, 0, 9) == CONTENT[:9] and wire.requests == 1


def test_reads_outside_the_file_and_of_a_closed_file_are_refused(opened: Opened) -> None:
    file = opened()
    with pytest.raises(HubError, match="ends too early"):
        read(file, file.size - 1, file.size + 1)
    with pytest.raises(HubError, match="ends too early"):
        file.fetch([(0, file.size + 1)], ignored)
    file.close()
    with pytest.raises(HubError, match="was closed"):
        read(file, 0, 1)


def test_two_threads_read_at_once(opened: Opened) -> None:
    file, results = opened(), {}
    file.fetch([(MIB, 2 * MIB)], ignored)

    def work(name: int) -> None:
        spans = [(start, start + 100_000) for start in range(name * 50_000, 4 * MIB - 100_000, 150_000)]
        results[name] = all(read(file, *span) == CONTENT[slice(*span)] for span in spans)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: True, 1: True}


def test_only_what_is_needed_is_fetched_and_only_once(hub: LocalHub, opened: Opened, folder: Path) -> None:
    file, told = opened(), []
    wire = Wire(hub)
    assert file.fetch(SCATTERED, told.append) is None
    needed = sum(end - start for start, end in SCATTERED)
    assert sum(told) == wire.bytes <= 1.02 * needed + 8192 * len(SCATTERED)
    assert left(folder) == ["sha256.partial.incomplete"]
    again = opened()
    wire = Wire(hub)
    assert again.fetch(SCATTERED, ignored) is None and again.fetch([], ignored) is None
    for each in (file, again):
        assert all(read(each, *span) == CONTENT[slice(*span)] for span in SCATTERED)
    assert wire.bytes == 0
    assert read(again, 0, 20_000) == CONTENT[:20_000] and wire.bytes == MIB // 4  # half of it from the disk


def test_a_span_comes_over_several_connections_down_to_its_end(hub: LocalHub, opened: Opened) -> None:
    # The last requests are small, so that no connection is left alone with much.
    file, wire = opened(), Wire(hub)
    assert file.fetch([(0, 3 * MIB)], ignored) is None
    assert wire.requests == 3 and wire.bytes == 3 * MIB
    assert read(file, 0, 3 * MIB) == CONTENT[: 3 * MIB] and wire.requests == 3


def test_a_killed_fetch_goes_on_where_it_was(hub: LocalHub, opened: Opened, repo: str) -> None:
    hub.throttle.rate = MIB
    script = f"""
        import os, signal
        from hf_lwmm.hub import open_remote, parse_ref, resolve
        seen = 0
        def progress(count):
            global seen
            seen += count
            if seen > {2 * MIB}:
                os.kill(os.getpid(), signal.SIGKILL)
        open_remote(resolve(parse_ref({repo!r})), "model.bin").fetch({MOST}, progress)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    hub.throttle.rate = 1e9
    file = opened()
    wire = Wire(hub)
    file.fetch(MOST, ignored)
    assert 0 < wire.bytes < MOST[0][1] - MIB // 2
    assert read(file, *MOST[0]) == CONTENT[slice(*MOST[0])]


def test_an_interruption_is_quick_and_loses_nothing(hub: LocalHub, opened: Opened) -> None:
    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    hub.throttle.rate = MIB / 4
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        opened().fetch(MOST, interrupt)
    assert time.monotonic() - begun < 2
    hub.throttle.rate = 1e9
    file = opened()
    wire = Wire(hub)
    file.fetch(MOST, ignored)
    assert wire.bytes < MOST[0][1] and read(file, *MOST[0]) == CONTENT[slice(*MOST[0])]


def test_merges_at_the_same_time_do_each_other_no_harm(opened: Opened, folder: Path) -> None:
    files, needs = [opened() for _ in range(3)], [SCATTERED, MOST, [(0, len(CONTENT))]]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda file, spans: file.fetch(spans, ignored), files, needs))
    for file, spans in zip(files, needs, strict=True):
        assert all(read(file, *span) == CONTENT[slice(*span)] for span in spans)
    assert (folder / "blobs" / SHA256).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(opened: Opened, folder: Path) -> None:
    file = opened()
    (folder / "blobs").write_text("not a folder")
    with pytest.raises(HubError, match=r"the cache cannot be used .*HF_HUB_CACHE"):
        file.fetch(SCATTERED, ignored)


def test_broken_connections_are_taken_up_again(hub: LocalHub, opened: Opened) -> None:
    hub.faults.append(Fault(FILE, drop_after_bytes=300_000, times=99))
    file = opened()
    assert read(file, MIB, 3 * MIB) == CONTENT[MIB : 3 * MIB]
    file.fetch(MOST, ignored)
    assert hub.faults[0].times < 99 - 10
    hub.faults.clear()
    wire = Wire(hub)
    assert read(file, *MOST[0]) == CONTENT[slice(*MOST[0])] and wire.requests == 0


def test_a_busy_server_is_asked_again(hub: LocalHub, opened: Opened) -> None:
    file = opened()
    hub.faults.append(Fault(FILE, status=503, retry_after=0))
    assert read(file, 0, 9) == CONTENT[:9] and hub.faults[0].times == 0


@pytest.mark.parametrize("whole", [True, False])
def test_who_needs_most_of_a_file_downloads_it(whole: bool, hub: LocalHub, opened: Opened, folder: Path) -> None:
    file = opened()
    path = file.fetch([(0, 9 if whole else int(0.81 * len(CONTENT)))], ignored, whole=whole)
    assert path is not None and path.read_bytes() == CONTENT
    wire = Wire(hub)
    assert read(file, 5, 9999) == CONTENT[5:9999] and file.fetch(SCATTERED, ignored) == path and wire.bytes == 0
    assert left(folder) == ["sha256"]


def test_a_partial_file_is_completed(hub: LocalHub, opened: Opened, repo: str, folder: Path) -> None:
    opened().fetch(MOST, ignored)
    file = opened()
    wire = Wire(hub)
    path = file.fetch([(0, int(0.7 * file.size)), (file.size - MIB, file.size)], ignored)
    assert wire.bytes < 0.41 * file.size
    assert path is not None and path.read_bytes() == CONTENT
    assert left(folder) == ["sha256"]
    assert path == Path(hf_hub_download(repo, "model.bin", revision=resolve(parse_ref(repo)).sha))


def test_a_damaged_partial_file_begins_anew(opened: Opened, folder: Path) -> None:
    opened().fetch(SCATTERED, ignored)
    with next(folder.rglob("*.partial.incomplete")).open("r+b") as partial:
        partial.truncate(1000)
    file = opened()
    file.fetch(SCATTERED, ignored)
    assert all(read(file, *span) == CONTENT[slice(*span)] for span in SCATTERED)


@pytest.mark.parametrize(
    "headers",
    [{"ETag": '"other"'}, {"Content-Range": "bytes 0-9/10"}, {"Content-Range": f"bytes 7-9/{len(CONTENT)}"}],
    ids=["etag", "total", "start"],
)
def test_a_file_that_changes_is_refused(headers: dict[str, str], hub: LocalHub, opened: Opened, folder: Path) -> None:
    file = opened()
    assert read(file, 0, 9) == CONTENT[:9]
    file.fetch([(0, 9)], ignored)
    hub.faults.append(Fault(FILE, headers=headers, times=99))
    with pytest.raises(HubError, match=r"remote-a_file_that.*:model.bin changed while it was being read; run again"):
        read(file, MIB, MIB + 9)
    with pytest.raises(HubError, match="changed"):
        file.fetch(SCATTERED, ignored)
    assert left(folder) == []


@pytest.fixture
def other(repo: str, api: HfApi) -> Iterator[RemoteFile]:
    """The weights of another repository."""
    api.create_repo(f"{repo}-b")
    api.upload_file(path_or_fileobj=OTHER, path_in_repo="model.bin", repo_id=f"{repo}-b")
    file = open_remote(resolve(parse_ref(f"{repo}-b")), "model.bin")
    assert file is not None
    yield file
    file.close()


def test_files_are_fetched_together(hub: LocalHub, opened: Opened, other: RemoteFile) -> None:
    file, told = opened(), []
    wire = Wire(hub)
    fetch_together({file: SCATTERED, other: [*SCATTERED, *MOST]}, told.append)
    assert sum(told) == wire.bytes
    wire = Wire(hub)
    assert all(read(file, *span) == CONTENT[slice(*span)] for span in SCATTERED)
    assert all(read(other, *span) == OTHER[slice(*span)] for span in (*SCATTERED, *MOST))
    fetch_together({file: SCATTERED, other: MOST}, told.append)
    assert wire.bytes == 0


def test_of_files_that_are_fetched_together_one_may_come_whole_only(
    hub: LocalHub, opened: Opened, other: RemoteFile
) -> None:
    file = opened()
    hub.faults.append(Fault(r"-b/resolve/.*/model\.bin$", ignore_range=True, times=99))
    fetch_together({file: SCATTERED, other: MOST}, ignored)
    assert other.path is not None and other.path.read_bytes() == OTHER
    assert file.path is None and all(read(file, *span) == CONTENT[slice(*span)] for span in SCATTERED)


def test_of_files_that_are_fetched_together_the_one_that_has_changed_is_named(
    hub: LocalHub, opened: Opened, other: RemoteFile
) -> None:
    file = opened()
    assert read(other, 0, 9) == OTHER[:9]
    hub.faults.append(Fault(r"-b/resolve/.*/model\.bin$", headers={"ETag": '"other"'}, times=99))
    with pytest.raises(HubError, match=r"-b@.*:model.bin changed while it was being read; run again"):
        fetch_together({file: SCATTERED, other: MOST}, ignored)
    assert all(read(file, *span) == CONTENT[slice(*span)] for span in SCATTERED)


def test_a_server_that_sends_whole_files_only_is_told_from_others(hub: LocalHub, opened: Opened, folder: Path) -> None:
    hub.faults.append(Fault(FILE, ignore_range=True, times=99))
    file = opened()
    with pytest.raises(RangesRefusedError, match="--full-download"):
        read(file, 0, 9)
    path = file.fetch(SCATTERED, ignored)
    assert path is not None and path.read_bytes() == CONTENT
    assert left(folder) == ["sha256"]


def test_a_signature_that_ran_out_is_renewed_once(
    hub: LocalHub, repo: str, opened: Opened, api: HfApi, tmp_path: Path
) -> None:
    with LocalHub(tmp_path) as cdn:
        cdn.add_user("local", token="hf_cdn", orgs=("org",))
        there = HfApi(endpoint=cdn.endpoint, token="hf_cdn")
        there.create_repo(repo)
        there.upload_file(path_or_fileobj=CONTENT, path_in_repo="model.bin", repo_id=repo)
        sha = api.model_info(repo).sha
        cdn.throttle.requests = 0
        answer = {
            "Location": f"{cdn.endpoint}/{repo}/resolve/main/model.bin",
            "X-Linked-Size": str(len(CONTENT)),
            "X-Linked-Etag": f'"{SHA256}"',
            "X-Repo-Commit": str(sha),
        }
        hub.faults.append(Fault(FILE, method="HEAD", status=302, headers=answer, times=99))
        file = opened()
        assert read(file, 0, 9) == CONTENT[:9] and cdn.throttle.requests == 1
        cdn.faults.append(Fault(FILE, status=403))
        wire = Wire(hub)
        assert read(file, MIB, MIB + 9) == CONTENT[MIB : MIB + 9] and wire.requests == 1
        cdn.faults.append(Fault(FILE, status=403, times=99))
        with pytest.raises(HubError, match="403"):
            read(file, 2 * MIB, 2 * MIB + 9)
        assert wire.requests == 2
        cdn.faults.clear()
        there.update_repo_settings(repo, private=True)
        with pytest.raises(HubError):  # the token does not go to another host
            read(opened(), 0, 9)


def test_a_file_that_is_local_or_in_the_cache_is_not_opened_over_the_network(
    repo: str, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.bin").write_bytes(CONTENT)
    assert open_remote(resolve(parse_ref(tmp_path)), "model.bin") is None
    source = resolve(parse_ref(repo))
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert open_remote(source, "model.bin") is None
    with pytest.raises(HubError, match="no file"):
        open_remote(source, "nothing.bin")
    hf_hub_download(repo, "model.bin", revision=source.sha)
    assert open_remote(source, "model.bin") is None
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)
    assert open_remote(resolve(parse_ref(repo)), "model.bin") is None  # the same file at another commit
