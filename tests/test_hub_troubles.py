"""What a server, the network or the cache's disk can do wrong: one line each, which says what to do."""

from __future__ import annotations

import contextlib
import http.server
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from huggingface_hub import CommitOperationAdd, HfApi, close_session, constants
from safetensors.numpy import save

import hf_lwmm
from hf_lwmm.errors import HubError
from hf_lwmm.hub import RemoteFile, check_push, open_remote, parse_ref, resolve
from hf_lwmm.hub.partial_file import PartialFile
from hf_lwmm.localhub import Fault, LocalHub

REPOS = ("org/troubles-a", "org/troubles-b")
FILE = r"/model\.safetensors$"
NO_ROOM = r"(?s)the cache cannot be used \(File too large\)\. Free some space, or set HF_HUB_CACHE"


def weights(seed: int) -> bytes:
    values = np.random.default_rng(seed).normal(size=(2, 400, 400)).astype(np.float32)
    return save({"backbone.a.weight": values[0], "backbone.b.weight": values[1]})


CONTENT = weights(0)


@pytest.fixture(scope="module")
def _repos(_served: LocalHub) -> None:
    api = HfApi(endpoint=_served.endpoint)
    for seed, repo in enumerate(REPOS):
        api.create_repo(repo)
        card = b"---\nlicense: mit\nmodel-index: 3\n---\n"
        files = {"model.safetensors": weights(seed), "config.json": b"{}", "README.md": card}
        api.create_commit(repo, [CommitOperationAdd(*file) for file in files.items()], commit_message="first")


@pytest.fixture
def cache(_repos: None, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """Let no file grow beyond `count` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def opened() -> RemoteFile:
    file = open_remote(resolve(parse_ref(REPOS[0])), "model.safetensors")
    assert file is not None
    return file


def ignored(count: int) -> None:
    """Take no notice of progress."""


@pytest.mark.parametrize("how", ["--full-download", "all is needed"])
def test_a_full_disk_is_one_line(how: str, cache: Path, run: Run) -> None:
    with room_for(500_000):
        code, _, err = run("merge", *REPOS, "--output", "out", *[how] * how.startswith("--"))
    assert code == 1 and "cannot be used (File too large). Free some space, or set HF_HUB_CACHE" in err
    assert not Path("out").exists()


def test_a_full_disk_is_one_line_where_ranges_are_refused(cache: Path, hub: LocalHub) -> None:
    file = opened()
    hub.faults.append(Fault(FILE, ignore_range=True, times=99))
    with room_for(500_000), pytest.raises(HubError, match=NO_ROOM):
        file.fetch([(0, 100_000)], ignored)
    file.close()


def test_a_full_disk_is_one_line_where_a_partial_file_becomes_whole(cache: Path) -> None:
    file = opened()
    path = cache / f"models--{REPOS[0].replace('/', '--')}" / "blobs" / f"{file.sha256}.partial.incomplete"
    path.parent.mkdir(parents=True)
    partial = PartialFile.create(path, len(CONTENT))
    partial.write(0, CONTENT)
    partial.keep(0, len(CONTENT))
    with room_for(500_000), pytest.raises(HubError, match=r"File too large.* Free some space, or set HF_HUB_CACHE"):
        file.fetch([], ignored, whole=True)
    whole = file.fetch([], ignored, whole=True)
    assert whole is not None and whole.read_bytes() == CONTENT
    file.close()


@pytest.mark.parametrize("place", ["/dev/null", "/proc/nothing", "below a file"])
def test_a_cache_that_cannot_be_written_is_one_line(
    place: str, cache: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "below") if " " in place else place)
    for more in ((), ("--full-download",)):
        code, _, err = run("merge", *REPOS, "--output", "out", *more)
        assert code == 1 and "the cache cannot be used (No" in err and "set HF_HUB_CACHE" in err.splitlines()[-1]


def test_a_cache_that_is_deleted_during_a_download_is_one_line(
    cache: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_lwmm.hub import remote_file

    fetch = remote_file.fetch

    def deleting(*given: object) -> Path:
        path = fetch(*given)  # type: ignore[arg-type]
        shutil.rmtree(cache)
        return path

    file = opened()
    monkeypatch.setattr(remote_file, "fetch", deleting)
    with pytest.raises(HubError, match=r"the cache cannot be used \(No such file or directory\)"):
        file.fetch([], ignored, whole=True)


@pytest.mark.parametrize("whole", [False, True])
def test_redirections_without_end_are_one_line(whole: bool, cache: Path, hub: LocalHub, run: Run) -> None:
    loop = {"Location": f"/{REPOS[0]}/resolve/main/model.safetensors"}
    hub.faults.append(Fault(FILE, status=302, headers=loop, times=10_000))
    code, _, err = run("merge", *REPOS, "--output", "out", *["--full-download"] * whole)
    assert code == 1 and "the Hub cannot be reached (Exceeded maximum allowed redirects)" in err


def test_numbers_of_many_digits_in_an_answer_are_no_range(cache: Path, hub: LocalHub) -> None:
    digits = "9" * 5000
    hub.faults.append(Fault(FILE, headers={"Content-Range": f"bytes {digits}-1/{digits}"}, times=99))
    with pytest.raises(HubError, match="its server sends whole files only"):
        hf_lwmm.inspect(REPOS[0])


def test_an_address_that_is_none_is_one_line(cache: Path, hub: LocalHub) -> None:
    answer = {"Location": "http://[::bad", "X-Linked-Size": "9", "X-Linked-Etag": f'"{64 * "0"}"'}
    answer["X-Repo-Commit"] = 40 * "0"
    hub.faults.append(Fault(FILE, method="HEAD", status=302, headers=answer, times=99))
    with pytest.raises(HubError, match=r"cannot be read \(Invalid IPv6 URL\)\. Check HF_ENDPOINT"):
        hf_lwmm.inspect(REPOS[0])


def test_a_pause_that_is_no_number_is_not_waited_for(cache: Path, hub: LocalHub) -> None:
    hub.faults.append(Fault(r"/revision/", status=503, headers={"Retry-After": "²"}))
    assert hf_lwmm.inspect(REPOS[0]).tensors == 2


@pytest.mark.parametrize(
    "answer", [b"<html>log in</html>", b"[3]", b'{"a": 1}', b"null", b"\xff", b"[" * 5000, b'{"siblings": 4}']
)
def test_a_server_that_is_no_hub_is_named(answer: bytes, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        for command in (("inspect", "org/x"), ("search", "--backbone", "mit-b0")):
            code, _, err = run(*command)
            assert code == 1 and f"the answer of {endpoint} cannot be read (" in err and len(err.splitlines()) == 1
        with pytest.raises(HubError, match=r"Pushing: the answer of .* cannot be read"):
            check_push("org/x")
        server.shutdown()


def cli(folder: Path, *arguments: object, **environment: str) -> tuple[int, str]:
    """Run a command in a process of its own; gives exit code and stderr."""
    command = [sys.executable, "-m", "hf_lwmm", *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_the_client_says_nothing_in_words_of_its_own(cache: Path, hub: LocalHub, tmp_path: Path) -> None:
    code, said = cli(tmp_path, "inspect", REPOS[0], HF_HUB_CACHE="/dev/null")
    assert code == 1 and len(said.splitlines()) == 1 and said.startswith(f"Error: {REPOS[0]}: the cache cannot be used")
    code, said = cli(tmp_path, "inspect", REPOS[0], HF_HUB_CACHE=str(cache))  # its card has a model-index that is none
    assert code == 0 and said == ""


def test_a_push_without_the_hub_is_one_line(cache: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("merge", *REPOS, "--output", "out")[0] == 0
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    code, said = cli(Path.cwd(), "merge", *REPOS, "--output", "two", "--push", "org/x", HF_HUB_OFFLINE="1")
    assert code == 1 and "Pushing needs the Hub, and offline mode is on. Unset HF_HUB_OFFLINE." in said
    monkeypatch.setattr("hf_lwmm.hub.calls._ATTEMPTS", 1)
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    with pytest.raises(HubError, match=r"Pushing: the Hub cannot be reached \(.*\)\. Check the connection"):
        check_push("org/x")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ALL_PROXY", "socks5://user:secret@127.0.0.1:1", "ALL_PROXY: a SOCKS proxy needs socksio"),
        ("HTTP_PROXY", "http://user:secret@[::1", "HTTP_PROXY: not an address of a proxy"),
        ("HF_HUB_ETAG_TIMEOUT", "abc", "HF_HUB_ETAG_TIMEOUT: must be a whole number of seconds, not 'abc'"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "-5", "HF_HUB_DOWNLOAD_TIMEOUT: must be a whole number of seconds, not '-5'"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "", "HF_HUB_DOWNLOAD_TIMEOUT: must be a whole number of seconds, not ''"),
    ],
)
def test_a_setting_of_the_environment_that_cannot_be_used_is_named(
    name: str, value: str, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    close_session()  # the client of earlier calls has no such proxy
    try:
        code, out, err = run("inspect", "org/anything")
    finally:
        close_session()
    assert code == 1 and not out and said in err and "secret" not in err and err.count("\n") == 1


def test_a_hub_that_takes_requests_and_never_answers_is_not_waited_for(
    cache: Path, hub: LocalHub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.faults.append(Fault(r"^/api/models/", times=99, delay=5))
    code, _, err = run("inspect", REPOS[0])
    assert code == 1 and f"{REPOS[0]}: the Hub does not answer. Try again later, or set HF_HUB_DOWNLOAD_TIMEOUT" in err
    assert hub.faults[0].times >= 95  # few attempts, as each takes so long


def test_an_answer_that_comes_late_is_asked_for_again(
    cache: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    hub.faults.append(Fault(r"^/api/models/", times=2, delay=2))
    assert resolve(parse_ref(REPOS[0])).files
