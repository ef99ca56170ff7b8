"""Ctrl-C while a server has stopped sending: the process ends soon, and says what is kept."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from conftest import TOKEN
from huggingface_hub import HfApi

from hf_lwmm.localhub import LocalHub

SOON = 20  # seconds; it takes 2 at most, on a machine that has nothing else to do


class Stalling:
    """A way to a server over which no more bytes come once `limit` have come; it counts those that came."""

    def __init__(self, port: int) -> None:
        self.limit, self.sent = float("inf"), 0
        self._port, self._lock, self._closed = port, threading.Lock(), threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def stalled(self) -> bool:
        return self.sent >= self.limit

    def close(self) -> None:
        self._closed.set()
        self._listening.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 14):
                with self._lock:
                    self.sent += len(data) if counted else 0
                while self.stalled and not self._closed.wait(0.05):
                    pass
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def way(hub: LocalHub) -> Iterator[Stalling]:
    way = Stalling(urlsplit(hub.endpoint).port or 80)
    yield way
    way.close()


@pytest.fixture
def repos(api: HfApi, tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """Two checkpoints of which a merge reads a part, since most of them is the optimizer's state."""
    names = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        weights = {f"backbone.{letter}.weight": torch.randn(400, 400) for letter in "abc"}
        torch.save({"state_dict": weights, "optimizer": {"state": {0: torch.randn(1500, 400)}}}, tmp_path / "x.pth")
        names.append(f"org/interrupted-{request.node.name[5:40]}-{seed}")
        api.create_repo(names[-1])
        api.upload_file(path_or_fileobj=tmp_path / "x.pth", path_in_repo="latest.pth", repo_id=names[-1])
    (tmp_path / "x.pth").unlink()
    return names


def start(way: Stalling, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_ENDPOINT": way.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(folder / ".hf")}
    command = [sys.executable, "-m", "hf_lwmm", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def interrupted(way: Stalling, process: subprocess.Popen[str]) -> str:
    """Send Ctrl-C once nothing comes any more; return what the process says until it has ended."""
    until = time.monotonic() + 60
    while not way.stalled and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SOON)
    assert process.returncode == 130, said
    return said


def test_a_stalled_download_ends_and_what_came_is_kept(way: Stalling, repos: list[str], tmp_path: Path) -> None:
    merge = ("merge", *repos, "--output", "out")
    way.limit = 2_500_000
    said = interrupted(way, start(way, tmp_path, *merge))
    assert said.splitlines()[-1] == (
        "Interrupted; what was downloaded is in the cache, and the next run goes on from there."
    )
    assert [each.name for each in tmp_path.iterdir()] == [".hf"]
    assert list(tmp_path.glob(".hf/hub/*/blobs/*.partial.incomplete"))
    way.limit = float("inf")
    _, said = start(way, tmp_path, *merge).communicate(timeout=60)
    assert (tmp_path / "out" / "model.safetensors").is_file(), said


def test_a_stalled_look_at_headers_ends(way: Stalling, repos: list[str], tmp_path: Path) -> None:
    way.limit = 6_000
    said = interrupted(way, start(way, tmp_path, "inspect", repos[0]))
    assert said.splitlines() == ["Interrupted; nothing half-written remains."]


def test_a_stalled_look_at_several_models_at_once_ends(way: Stalling, repos: list[str], tmp_path: Path) -> None:
    for limit in (1_000, 9_000):  # among the first answers, and in the headers
        way.sent, way.limit = 0, limit
        process = start(way, tmp_path, "plan", *repos)
        said = interrupted(way, process)
        assert said.splitlines() == ["Interrupted; nothing half-written remains."]


def test_a_stalled_upload_ends(way: Stalling, repos: list[str], api: HfApi, tmp_path: Path) -> None:
    start(way, tmp_path, "merge", *repos, "--output", "out").communicate(timeout=60)
    way.sent, way.limit = 0, 3_000
    script = "import hf_lwmm.cli, hf_lwmm.cli.hub as at; at.hub.command('push')(lambda: __import__('hf_lwmm').push"
    script += "('out', 'org/interrupted-upload')); hf_lwmm.cli.main()"
    environment = {**os.environ, "HF_ENDPOINT": way.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / ".hf")}
    process = subprocess.Popen(
        [sys.executable, "-c", script, "hub", "push"], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert interrupted(way, process).splitlines()[-1].startswith("Interrupted; ")
    assert "model.safetensors" in {each.name for each in (tmp_path / "out").iterdir()}
