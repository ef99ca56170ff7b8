"""Damaged partial results are set aside with a note, and the work goes on; those of dead processes are used."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import disk
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from hf_lwmm.errors import SweepError
from hf_lwmm.evaluation.per_image import ImageScores
from hf_lwmm.evaluation.tally import Tally
from hf_lwmm.hub import RemoteFile, fetch, open_remote, parse_ref, resolve
from hf_lwmm.hub.partial_file import BLOCK, PartialFile
from hf_lwmm.localhub import LocalHub
from hf_lwmm.sweeping.grid import Candidate
from hf_lwmm.sweeping.scorer import Scored
from hf_lwmm.sweeping.store import Store

CONTENT = np.random.default_rng(0).bytes(300_000)
MOST = [(0, 200_000)]
REPO = "org/damaged-partials"
STUDY = {"models": ["a", "b"]}


@pytest.fixture(scope="module")
def _repo(_served: LocalHub) -> None:
    api = HfApi(endpoint=_served.endpoint)
    api.create_repo(REPO)
    operations = [CommitOperationAdd("model.bin", CONTENT), CommitOperationAdd("config.json", b"{}")]
    api.create_commit(REPO, operations, commit_message="first")


@pytest.fixture
def opened(
    _repo: None, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], RemoteFile]]:
    """Open the weights anew, with a cache of the test's own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    files: list[RemoteFile] = []

    def open_again() -> RemoteFile:
        file = open_remote(resolve(parse_ref(REPO)), "model.bin")
        assert file is not None
        files.append(file)
        return file

    yield open_again
    for file in files:
        file.close()


def blobs(folder: Path) -> list[str]:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return sorted(each.name.replace(digest, "sha256") for each in folder.glob("cache/*/blobs/*"))


def ignored(count: int) -> None:
    """Take no notice of progress."""


def check_read(file: RemoteFile) -> None:
    buffer = bytearray(MOST[0][1])
    file.read(0, memoryview(buffer))
    assert buffer == CONTENT[: len(buffer)]


def test_a_partial_download_of_another_length_is_set_aside(
    opened: Callable[[], RemoteFile], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened().fetch(MOST, ignored)
    [partial] = tmp_path.glob("cache/*/blobs/*.partial.incomplete")
    partial.write_bytes(partial.read_bytes()[:1000])
    file = opened()
    file.fetch(MOST, ignored)
    check_read(file)
    assert blobs(tmp_path) == ["sha256.partial.damaged.incomplete", "sha256.partial.incomplete"]
    assert "was damaged and is not used; it is" in caplog.text


def test_a_partial_download_of_other_content_is_set_aside_and_the_file_downloaded(
    opened: Callable[[], RemoteFile], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened().fetch(MOST, ignored)
    partial = PartialFile.create(next(tmp_path.glob("cache/*/blobs/*.partial.incomplete")), len(CONTENT))
    partial.write(0, b"wrong")
    partial.keep(0, BLOCK)
    path = opened().fetch([], ignored, whole=True)
    assert path is not None and path.read_bytes() == CONTENT
    assert blobs(tmp_path) == ["sha256", "sha256.partial.damaged.incomplete"]
    assert "was damaged" in caplog.text


def test_damaged_blocks_of_a_partial_download_are_fetched_again(
    opened: Callable[[], RemoteFile], hub: LocalHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened().fetch(MOST, ignored)
    [partial] = tmp_path.glob("cache/*/blobs/*.partial.incomplete")
    for whole in (False, True):
        caplog.clear()
        raw = bytearray(partial.read_bytes())
        raw[5] ^= 1
        raw[10 * BLOCK : 12 * BLOCK] = bytes(2 * BLOCK)
        partial.write_bytes(raw)
        check_read(opened())  # of which the damaged blocks come from the Hub
        assert caplog.text.count("was damaged in places") == 1
        check_read(opened())
        assert caplog.text.count("was damaged in places") == 1
        begun, file = hub.throttle.bytes_sent, opened()
        path = file.fetch(MOST, ignored, whole=whole)
        rest = len(CONTENT) - 49 * BLOCK if whole else 0
        assert 3 * BLOCK + rest <= hub.throttle.bytes_sent - begun < 5 * BLOCK + rest
        check_read(file)
        assert (path is None) is not whole
    assert blobs(tmp_path) == ["sha256"]


def test_a_partial_download_beside_the_whole_file_is_removed(opened: Callable[[], RemoteFile], tmp_path: Path) -> None:
    source, file = resolve(parse_ref(REPO)), opened()
    opened().fetch(MOST, ignored)
    fetch(source, "model.bin")
    assert blobs(tmp_path) == ["sha256", "sha256.partial.incomplete"]
    assert open_remote(source, "model.bin") is None and blobs(tmp_path) == ["sha256"]

    def meanwhile(count: int) -> None:  # another process downloads the whole
        fetch(source, "model.bin")

    shutil.rmtree(tmp_path / "cache")
    assert file.fetch(MOST, meanwhile) is not None and blobs(tmp_path) == ["sha256"]
    check_read(file)


@pytest.mark.parametrize("whole", [False, True])
def test_a_download_that_fails_or_dies_at_any_step_goes_on(
    whole: bool, opened: Callable[[], RemoteFile], tmp_path: Path
) -> None:
    source, files = resolve(parse_ref(REPO)), list[RemoteFile]()

    def begin() -> None:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        files[:] = [opened()]
        if whole:  # most of it is there: the rest is fetched, and the whole checked and renamed
            files[0].fetch(MOST, ignored)

    def check(death: bool) -> None:
        path = fetch(source, "model.bin") if whole else None
        if path is not None:
            assert path.read_bytes() == CONTENT
            return
        file = opened()
        file.fetch(MOST, ignored)
        check_read(file)
        assert blobs(tmp_path) == ["sha256.partial.incomplete"]

    assert disk.each_step(lambda: files[0].fetch([] if whole else MOST, ignored, whole=whole), begin, check) > 3


def row(model: int) -> Scored:
    counts = np.arange(12, dtype=np.float64).reshape(2, 2, 3) + model
    return Scored(Candidate("model", (model,), model), counts, 0.5, "semantic", ("road", "sky"))


def finish(store: Store) -> None:
    store.finish({"rank": pa.array(range(len(store.rows)))}, list(store.rows), [])


def test_a_damaged_row_of_a_sweep_is_set_aside_and_the_others_are_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sweep.parquet"
    with Store(path, STUDY) as store:
        for model in range(5):
            store.keep(row(model))
    parts = sorted(tmp_path.glob(".sweep.parquet.parts/*.parquet"))
    parts[0].write_bytes(parts[0].read_bytes()[:-30])
    parts[1].write_bytes(b"")
    table = pq.read_table(parts[2]).drop(["definition"])
    pq.write_table(table, parts[2])
    with Store(path, STUDY) as store:
        assert len(store.rows) == 2
        finish(store)
    assert len(list(tmp_path.glob("sweep.*.damaged.parquet"))) == 3 and caplog.text.count("was damaged") == 3
    with Store(path, STUDY) as store:
        assert len(store.rows) == 2


@pytest.mark.parametrize("content", [b"", b"mine", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_file_that_is_no_sweeps_is_neither_used_nor_touched(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "sweep.parquet").write_bytes(content)
    with pytest.raises(SweepError, match="not a Parquet file"):
        Store(tmp_path / "sweep.parquet", STUDY)
    assert (tmp_path / "sweep.parquet").read_bytes() == content and len(list(tmp_path.iterdir())) == 1


def test_a_sweep_that_fails_or_dies_at_any_step_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "sweep.parquet"

    def begin() -> None:
        path.unlink(missing_ok=True)
        with Store(path, STUDY) as store:
            store.keep(row(0))

    def work() -> None:
        with Store(path, STUDY) as store:
            store.keep(row(1))
            finish(store)

    def check(death: bool) -> None:
        with Store(path, STUDY) as store:
            kept = set(store.rows)
            assert row(0).candidate.key in kept
            store.keep(row(1))
            finish(store)
        with Store(path, STUDY) as store:
            np.testing.assert_array_equal(store.rows[row(1).candidate.key].counts, row(1).counts)
            assert len(store.rows) == 2
        assert list(tmp_path.iterdir()) == [path]

    assert disk.each_step(work, begin, check) > 8


def test_a_sweeps_file_that_another_program_changes_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "sweep.parquet"
    with Store(path, STUDY) as store:
        store.keep(row(0))
        path.write_text("mine")
        with pytest.raises(SweepError, match=r"appeared while this ran.*sweep-2\.parquet"):
            finish(store)
    assert path.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["sweep-2.parquet", "sweep.parquet"]


def test_a_damaged_partial_evaluation_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "partial.npz"
    tally = Tally()
    tally.add(0, ImageScores(np.ones((1, 2, 3), np.int64), np.zeros(1), None))
    tally.write(path)
    assert list(Tally.read(path).counts) == [0]
    whole = path.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], whole[:100] + bytes(100) + whole[200:]):
        path.write_bytes(damaged)
        caplog.set_level(logging.WARNING)
        assert Tally.read(path).counts == {}
        assert not path.exists() and (tmp_path / "partial.damaged.npz").read_bytes() == damaged
    assert caplog.text.count("was damaged") == 4
