"""What helps at the prompt: short help in panels, completion, quiet answers, the nearest name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run

from hf_lwmm.cli import COMMANDS, load_command
from hf_lwmm.cli.help import ADVANCED, PANELS, panel_of

SCREEN = 41  # lines of 80 characters


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "hub"])
def test_help_fits_a_screen_and_names_the_rest(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, short, _ = run(command, "--help")
    assert code == 0 and len(short.splitlines()) <= SCREEN
    advanced = [each for each in load_command(command).params if panel_of(each) == ADVANCED]
    assert (f"Show {len(advanced)} advanced options" in short) == bool(advanced)
    whole = run(command, "--help-all")[1]
    for option in advanced:
        assert f"{option.opts[0]} " in whole and not re.search(rf"^ +{option.opts[0]}\b(?!-)", short, re.MULTILINE)


def test_help_stands_in_panels(run: Run) -> None:
    short = run("merge", "--help")[1]
    titles = re.findall(r"^([A-Z]\w+):$", short, re.MULTILINE)
    assert titles[:-1] == [title for title in PANELS if title != ADVANCED] and titles[-1] == "Examples"
    assert re.search(rf"^{ADVANCED}:$", run("merge", "--help-all")[1], re.MULTILINE)


def test_a_model_that_push_has_taken_for_its_repository_is_named(run: Run) -> None:
    code, _, err = run("merge", "--push", "org/a", "org/b")
    assert code == 1 and "--push took org/a for the repository to push to, so that org/b alone is left to merge." in err


def test_a_number_is_shown_as_one(run: Run) -> None:
    whole = run("evaluate", "--help-all")[1]
    assert re.search(r"--batch-size N ", whole) and re.search(r"--limit N ", whole)
    assert re.search(r"--start NUMBER ", run("merge", "--help")[1])


def test_a_repository_that_begins_with_a_dash_is_refused(run: Run) -> None:
    """It would be read as another option, and the merge be pushed where nobody asked for."""
    for value in ("-q", "--private"):
        code, _, err = run("merge", "a", "b", f"--push={value}")
        assert code == 2 and "'--push' takes no value that begins with a dash" in err
    assert "--push=-q" in run("merge", "a", "--", "--push=-q")[2]  # there it is a model
    assert "plain,--method" in completions("hf-lwmm merge --push=-q --me")


def test_a_switch_that_is_on_shows_how_to_turn_it_off(run: Run) -> None:
    assert "--key / --no-key" in run("predict", "--help")[1]
    assert "--open / --no-open" in run("demo", "--help")[1]
    assert "--flip " in run("evaluate", "--help")[1] and "--no-flip" not in run("evaluate", "--help")[1]


def test_every_panel_is_known() -> None:
    for command in COMMANDS:
        assert {panel_of(each) for each in load_command(command).params} <= set(PANELS)


def completing(**settings: str) -> str:
    """What the command prints for a shell with these settings."""
    environment = {**os.environ, **settings}
    code = "import sys; sys.argv[0] = 'hf-lwmm'; from hf_lwmm.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def completions(words: str) -> list[str]:
    """What Bash is told of the last of these words: types and values."""
    cword = str(len(words.split(" ")) - 1)
    return completing(_HF_LWMM_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=cword).split()


def test_commands_options_and_choices_are_completed() -> None:
    assert completions("hf-lwmm mer") == ["plain,merge"]
    assert "plain,--eval-data" in completions("hf-lwmm merge --eval-")
    assert completions("hf-lwmm merge --method sl") == ["plain,slerp"]
    assert completions("hf-lwmm plan --head by") == ["plain,by-label"]
    assert completions("hf-lwmm sweep --methods ties,d") == ["plain,ties,dare"]
    assert completions("hf-lwmm evaluate --protocol camv") == ["plain,camvid11", "plain,camvid32"]
    assert completions("hf-lwmm evaluate --ids from-") == ["plain,from-0", "plain,from-1"]
    assert completions("hf-lwmm hub ser") == ["plain,serve"]


def test_files_are_completed_where_no_values_are_known() -> None:
    for words in ("merge ./a", "merge --output ./a", "merge --eval-data ./a", "evaluate --protocol ./a"):
        assert completions(f"hf-lwmm {words}") == ["file,./a"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_set_up_by_what_the_command_prints(shell: str) -> None:
    script = completing(_HF_LWMM_COMPLETE=f"{shell}_source")
    assert f"_HF_LWMM_COMPLETE={shell}_complete" in script and "hf-lwmm" in script


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("merge", "a", "b", "--method", "slurp"), "Did you mean slerp?"),
        (("merge", "a", "b", "--head", "by-lable"), "Did you mean by-label?"),
        (("merge", "a", "b", "--target", "mixt"), "Did you mean mixed?"),
        (("mrege", "a", "b"), "Did you mean 'merge'?"),
    ],
)
def test_a_misspelt_choice_is_answered_with_the_nearest(arguments: tuple[str, ...], says: str, run: Run) -> None:
    code, _, err = run(*arguments)
    assert code in (1, 2) and says in err


def test_the_bare_command_shows_help_on_stdout(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "") and all(line in out for line in COMMANDS.values())


def test_the_version_has_a_short_name(run: Run) -> None:
    assert run("-V") == run("--version") and run("-V")[0] == 0


def test_quiet_leaves_the_answer_warnings_and_errors(run: Run, models: list[Path]) -> None:
    code, out, err = run("merge", *models, "--target", "new", "--output", "spoken")
    assert code == 0 and "Merged 3 models" in out and "Advice:" in err
    code, out, quiet = run("merge", *models, "--target", "new", "-q", "--output", "quiet")
    assert code == 0 and "Merged 3 models" in out and "Advice:" not in quiet
    assert [line for line in err.splitlines() if "Warning" in line] == quiet.splitlines()
    code, _, err = run("merge", *models, "-q", "--output", "quiet")
    assert code == 1 and err.startswith("Error: ")
