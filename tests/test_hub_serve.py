"""`hub serve`: until interrupted, and one line where a port or a folder cannot be had."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from conftest import Run
from huggingface_hub import HfApi

from hf_lwmm.localhub import LocalHub


def test_a_taken_port_is_one_line(run: Run, hub: LocalHub, tmp_path: Path) -> None:
    code, _, err = run("hub", "serve", "--root", tmp_path / "root", "--port", hub.port)
    assert code == 1 and "--port" in err.splitlines()[-1]


def test_a_folder_or_port_that_cannot_be_served_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/users.json").write_text("[]")
    for root, port, message in (
        ("file", 8000, "cannot hold repositories (Not a directory). Name another with --root."),
        ("/proc/x", 8000, "/proc/x: cannot hold repositories"),
        ("other", 8000, "its users.json was not written by a local Hub"),
        ("new", 99999, "--port 99999 must be at least 0 and at most 65535."),
        ("new", -1, "--port -1 must be"),
    ):
        code, _, err = run("hub", "serve", "--root", tmp_path / root, "--port", port)
        assert code == 1 and message in err.splitlines()[-1]


def test_hub_serve_serves_until_interrupted(tmp_path: Path) -> None:
    import signal
    import time

    command = [sys.executable, "-m", "hf_lwmm", "hub", "serve", "--root", str(tmp_path / "root"), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(4)]
    [export] = [line for line in lines if "export" in line]
    settings = dict(part.split("=") for part in export.split()[1:])
    client = HfApi(endpoint=settings["HF_ENDPOINT"], token=settings["HF_TOKEN"])
    for _ in range(300):  # the port is reserved before the server answers
        with contextlib.suppress(httpx2.ConnectError):
            assert client.whoami()["name"] == "local"
            break
        time.sleep(0.1)
    else:
        pytest.fail("the local Hub did not start")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "Ctrl-C" in lines[-1] and "Traceback" not in err
