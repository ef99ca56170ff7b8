"""The command line itself: help, options, answers, and what it sets for its libraries."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from conftest import Run

from hf_lwmm.cli import main


def test_torch_gets_huge_pages_unless_the_user_has_decided(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for before, after in ((None, "1"), ("0", "0")):
        with monkeypatch.context() as patched:
            patched.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
            if before is not None:
                patched.setenv("THP_MEM_ALLOC_ENABLE", before)
            assert run("methods")[0] == 0
            assert os.environ["THP_MEM_ALLOC_ENABLE"] == after


@pytest.mark.parametrize(
    "command", [(), ("merge",), ("plan",), ("inspect",), ("reproduce",), ("hub",), ("hub", "serve")]
)
def test_every_command_explains_itself_with_examples(command: tuple[str, ...], run: Run) -> None:
    code, out, _ = run(*command, "--help")
    assert code == 0 and "Usage" in out
    assert "hf-lwmm" in out and ("Example" in out or command == ("hub",))


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['hf-lwmm', '--help']\n"
        "try:\n import hf_lwmm.cli; hf_lwmm.cli.main()\nexcept SystemExit: pass\n"
        "heavy = 'torch numpy transformers huggingface_hub matplotlib starlette'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]"), done.stdout[-200:]


@pytest.mark.parametrize("purpose", ["eval", "bn", "tune"])
def test_an_option_out_of_range_is_named_as_it_was_given(purpose: str, run: Run) -> None:
    code, _, err = run("merge", "a", "b", f"--{purpose}-data", "x/y", f"--{purpose}-limit", "0")
    assert code != 0 and f"--{purpose}-limit 0 must be at least 1" in " ".join(err.split())


@pytest.mark.parametrize("command", ["methods", "", "--help", "merge -h", "merge --help-all", "hub serve --help"])
def test_an_answer_that_nobody_can_read_is_an_error_in_one_line(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, closed = (open("/dev/full", "w"), "No space left on device"), (None, "stdout is closed")  # noqa: SIM115, PTH123
    for stdout, why in (full, closed) if command == "methods" else (full,):
        monkeypatch.setattr(sys, "argv", ["hf-lwmm", *command.split()])
        monkeypatch.setattr(sys, "stdout", stdout)
        stderr = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as stopped:
            main()
        if stdout is not None:
            stdout.close()
        assert stopped.value.code == 1
        assert (
            stderr.getvalue()
            == f"Error: The answer cannot be printed ({why}). Files that the command wrote are whole.\n"
        )
