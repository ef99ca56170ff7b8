"""What is said where a part of the package is asked for whose requirements are not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import hf_lwmm
from hf_lwmm.checkpoints.torch_file import read_torch_file
from hf_lwmm.errors import ExtraError, HfLwmmError
from hf_lwmm.extras import require


def test_nothing_is_said_where_all_is_installed() -> None:
    require("networks", "json", "numpy")


def test_the_message_names_what_is_missing_and_how_to_install_it() -> None:
    with pytest.raises(ExtraError, match=r"This needs no_such_one and no_such_two, which are not installed") as raised:
        require("plots", "json", "no_such_one", "no_such_two")
    assert str(raised.value).endswith("Run: pip install 'hf-lwmm[plots]'")
    assert isinstance(raised.value, HfLwmmError) and isinstance(raised.value, ImportError)


def test_a_torch_file_needs_the_extra_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ExtraError, match=r"Reading latest\.pth needs torch, .*'hf-lwmm\[networks\]'"):
        read_torch_file(Path("latest.pth"))


def test_a_network_needs_the_extra_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ExtraError, match=r"Loading a network needs torchvision, .*'hf-lwmm\[networks\]'"):
        hf_lwmm.load("org/name")
