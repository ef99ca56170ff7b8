"""The bar that long work shows."""

from __future__ import annotations

import io
import sys

import pytest

import hf_lwmm


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work() -> None:
    with hf_lwmm.progress_bar() as progress:
        for done in range(3):
            progress("Reading", done, 2)
        progress("Writing", 1, 4)


def test_a_terminal_shows_what_is_done_and_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    work()
    assert "Reading:" in terminal.getvalue() and "Writing:" in terminal.getvalue() and "%" in terminal.getvalue()


def test_names_do_not_act_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with hf_lwmm.progress_bar() as progress:
        for done in range(3):
            progress("Fetching \x1b]0;T\x07\n\u202eevil {desc}", done, 2)
    assert "Fetching \\u001b]0;T\\u0007 \\u202eevil {desc}:" in terminal.getvalue()
    assert not {"\x07", "\u202e"} & set(terminal.getvalue()) and "\x1b]" not in terminal.getvalue()


def test_elsewhere_it_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    work()
    assert capfd.readouterr() == ("", "")
