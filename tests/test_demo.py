"""`hf-lwmm demo`: a merge that wins and one that does not, from an installed package, without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run

from hf_lwmm.demo import write_page
from hf_lwmm.localhub import LocalHub


def test_a_taken_port_is_said_before_anything_else(run: Run, hub: LocalHub, tmp_path: Path) -> None:
    code, out, err = run("demo", "--port", hub.port)
    assert (code, out) == (1, "") and err.count("\n") == 1 and "Choose another with --port." in err
    assert list(tmp_path.iterdir()) == []


def test_a_card_becomes_a_page_with_its_tables_and_pictures(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(
        "---\nlicense: mit\n---\n# A <b> card\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n![p](plots/p.png)\n"
    )
    page = write_page(card, "org/a & b").read_text()
    assert "<td>1</td>" in page and 'src="plots/p.png"' in page and "license: mit" not in page
    assert "<title>org/a &amp; b</title>" in page


@pytest.mark.slow
def test_the_demo_shows_a_merge_that_wins_and_one_that_does_not(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    environment = {**os.environ, "BROWSER": f"{browser} %s", "DISPLAY": ":9", "HTTP_PROXY": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "hf_lwmm", "demo", "--output", "tried", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    won, lost = re.findall(r"^\| local/streets-gta-lwmm@\w+ \|.*\| ([+-][\d.]+) \|", done.stdout, re.MULTILINE)
    assert float(won) > 2 and float(lost) < -2
    assert "the bytes agree" in done.stdout
    page = tmp_path / "tried" / "card" / "index.html"
    assert (tmp_path / "opened").read_text().strip() == page.as_uri()
    assert "plots/layer_weights.png" in page.read_text() and (page.parent / "plots" / "layer_weights.png").is_file()
