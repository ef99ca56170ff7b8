"""`hf-lwmm demo`: a merge that wins and one that does not, from an installed package, without a network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from conftest import Run

from hf_lwmm.localhub import LocalHub


def test_a_taken_port_is_said_before_anything_else(run: Run, hub: LocalHub, tmp_path: Path) -> None:
    code, out, err = run("demo", "--port", hub.port)
    assert (code, out) == (1, "") and err.count("\n") == 1 and "Choose another with --port." in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_demo_shows_a_merge_that_wins_and_one_that_does_not(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    environment = {**os.environ, "BROWSER": f"{browser} %s", "DISPLAY": ":9", "HTTP_PROXY": "http://127.0.0.1:9"}
    environment = {name: value for name, value in environment.items() if not name.startswith(("XDG_", "MPL", "HF_"))}
    home = tmp_path / "home"
    home.mkdir()
    environment["HOME"] = str(home)
    command = [sys.executable, "-m", "hf_lwmm", "demo", "--output", "tried", "--port", "0"]
    with (tmp_path / "said").open("w") as said:
        demo = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=said, stderr=subprocess.STDOUT)
    opened = tmp_path / "opened"
    while demo.poll() is None and not (opened.exists() and opened.read_text().endswith("\n")):
        time.sleep(0.1)
    text = (tmp_path / "said").read_text()
    assert demo.returncode is None, text
    page = opened.read_text().strip()
    assert page.endswith("/local/streets-gta-lwmm") and 'plots/layer_weights.png"' in httpx2.get(page).text
    demo.send_signal(signal.SIGINT)
    demo.wait()
    won, lost = re.findall(r"^\| local/streets-gta-lwmm@\w+ \|.*\| ([+-][\d.]+) \|", text, re.MULTILINE)
    assert float(won) > 2 and float(lost) < -2
    assert not list(home.rglob("*")), "something was written outside of the demo's folder"
    assert "the bytes agree" in text and "hub serve --root tried/hub" in (tmp_path / "said").read_text()


def test_a_disk_that_is_too_small_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("Error while uploading 'model.safetensors' to the Hub.") from error

    monkeypatch.setattr("hf_lwmm.demo.seed.upload_model", full)
    monkeypatch.setattr("hf_lwmm.cli.demo._point_stock_clients", lambda *given: None)
    code, _, err = run("demo", "--output", "out", "--port", 0, "--no-open")
    assert code == 1 and "out: the demo's Hub cannot be filled ([Errno 28] No space left on device)" in err
    assert err.count("\n") == 1
