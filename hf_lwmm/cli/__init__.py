"""The command line: a file for each command, which reads options, calls a verb of the package and prints the answer."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Any

import click

from hf_lwmm._version import __version__
from hf_lwmm.errors import HfLwmmError, held, kept, naming_extras

# Each command and its one line of help. Its module is imported when it is run, so that `--help` costs little; a test
# holds the lines against the commands' own.
COMMANDS = {
    "demo": "Merge two small models on a local Hub, and score the merge.",
    "merge": "Merge models layer by layer into a folder or a repository.",
    "plan": "Print the layer table of a merge.",
    "inspect": "Describe models: layout, architecture, classes, size.",
    "search": "Find models on the Hub that can be merged.",
    "diff": "Compare two models layer by layer.",
    "push": "Push a merged folder to a repository.",
    "reproduce": "Make a merge again from its recipe and compare the bytes.",
    "methods": "List the merge methods with their needs and options.",
    "measure": "Measure a model on images for fisher and regmean.",
    "evaluate": "Score models on a labelled data set.",
    "sweep": "Merge and score many combinations, and rank them.",
    "predict": "Segment pictures or find objects, and write overlays.",
    "convert": "Convert a model for transformers or another code base.",
    "hub": "Run a local Hub for tests and offline sites.",
}
_PATIENCE = 1.5  # seconds that an interrupted command has to put things in order
_told = threading.Event()  # set when the user was told that the command was interrupted


class _LazyGroup(click.Group):
    """A group that imports a command's module only to run that command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Raises _InterruptedError after Ctrl-C, of which click would say no more than "Aborted!"."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            raise _InterruptedError(*kept(stopped)) from None


class _InterruptedError(Exception):
    """A command was interrupted. Its arguments say what is kept."""


def load_command(name: str) -> click.Command:
    """Import a command."""
    command: click.Command = getattr(import_module(f"hf_lwmm.cli.{name}"), name)
    return command


@click.group(
    "hf-lwmm",
    cls=_LazyGroup,
    commands={name: click.Command(name, help=line) for name, line in COMMANDS.items()},
    epilog="Example: hf-lwmm merge org/a org/b --anchor org/a --push",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(__version__, "--version", "-V", message="%(version)s", help="Print the version.")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Merge vision models of the Hugging Face Hub, layer by layer."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line; an error is one message on stderr and exit code 1, Ctrl-C is 130."""
    from hf_lwmm.cli.terminal import complain

    atexit.register(gc.freeze)  # the process ends: looking for garbage once more would take a tenth of a second
    # The stock client, once it is imported, warns of cards and caches in words of its own; what matters is said here.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # Huge pages for torch's tensors: the kernel clears and maps pages of 4 KiB for a third of a small network's time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    _told.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        _run()
    except HfLwmmError as error:
        for place, line in enumerate(error.lines):
            complain(line if place else f"Error: {line}")
        sys.exit(1)
    except (KeyboardInterrupt, _InterruptedError) as stopped:
        _tell_once(*stopped.args or ("nothing half-written remains",))
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _run() -> None:
    """Run the command. Raises HfLwmmError also if what click itself prints, such as help, cannot be printed."""
    from hf_lwmm.cli.terminal import say

    try:
        with naming_extras():
            app(sys.argv[1:], prog_name="hf-lwmm")  # for which completion is set up, however the command is run
    except BrokenPipeError:
        raise
    except OSError:
        say()  # if it was stdout that took no more, it takes no line either
        raise


def run_command(arguments: Sequence[str]) -> None:
    """Run a command from within another.

    Raises:
        click.exceptions.Exit: if its exit code is not 0.
    """
    if code := app(arguments, standalone_mode=False):
        raise click.exceptions.Exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupt the command, and end the process soon after, whatever its threads wait for; a second signal, at once.

    That loses nothing: the process could be killed as well, and the next run removes what it leaves.
    """
    signal.signal(number, signal.SIG_DFL)
    end = threading.Timer(_PATIENCE, _end)
    end.daemon = True
    end.start()
    raise KeyboardInterrupt


def _end() -> None:
    notes = held() or ("what was downloaded or scored is kept, and the next run removes what is half-written",)
    _tell_once(*notes)
    os._exit(130)


def _tell_once(*notes: str) -> None:
    from hf_lwmm.cli.terminal import complain

    if not _told.is_set():
        _told.set()
        complain(f"Interrupted; {'; '.join(dict.fromkeys(notes))}.")
