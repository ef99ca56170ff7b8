"""Print to the terminal: data on stdout, everything else on stderr.

Everything that commands print goes through here, and what cannot be printed as it is becomes visible escapes: names in
files are other people's text.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import hf_lwmm
from hf_lwmm.errors import HfLwmmError
from hf_lwmm.text import drawn_table, printable, table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_quiet = False
_KEPT = "Files that the command wrote are whole."


@contextmanager
def answering() -> Iterator[None]:
    """Return a context in which a command prints its answer.

    Raises:
        HfLwmmError: if stdout is closed, or what it leads to takes no more.
    """
    if sys.stdout is None:
        raise HfLwmmError(f"The answer cannot be printed (stdout is closed). {_KEPT}")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left must not fail again at the end
        raise HfLwmmError(f"The answer cannot be printed ({error.strerror or error}). {_KEPT}") from None


def console(width: int | None = None) -> Console:
    """Return the console that tables are printed on; names appear as they are, whatever brackets and colons they hold.

    `width` is that of a file or a pipe, unless COLUMNS is set.
    """
    from rich.console import Console

    class PrintableConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

        def print(self, *objects: Any, **options: Any) -> None:
            with answering():
                super().print(*objects, **options)

    sized = (sys.stdout is not None and sys.stdout.isatty()) or "COLUMNS" in os.environ
    return PrintableConsole(highlight=False, markup=False, emoji=False, width=None if sized else width)


def say(line: str = "") -> None:
    """Print a line of an answer on stdout."""
    with answering():
        print(_line(line))


def print_json(data: Any) -> None:
    """Print data for a program on stdout."""
    with answering():
        print(printable(json.dumps(data, indent=2, ensure_ascii=False)))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], text: int = 0, *, named: bool = False) -> None:
    """Print a table on stdout: drawn as `drawn_table` does in a terminal, as Markdown into a file or a pipe."""
    out = console()
    if not out.is_terminal:
        with answering():
            print(printable(table(header, rows)))
        return
    for line in drawn_table(header, rows, out.width, text, named=named):
        out.print(line, soft_wrap=True)


def print_verdict(verdict: hf_lwmm.Verdict | None, command: str = "") -> None:
    """Print the last line of scores, if there is something to choose, and the command that follows, if one does."""
    if verdict is None:
        return
    say()
    console().print(_line(verdict.sentence), style="bold", soft_wrap=True)
    if command:
        say(f"  {command}")


def print_pushed(pushed: hf_lwmm.Pushed | None, *, quiet: bool = False) -> None:
    """Print the warnings of a push, and, unless `quiet`, where it went."""
    for warning in pushed.warnings if pushed is not None else ():
        warn(warning)
    if pushed is None or quiet:
        return
    if pushed.changed:
        say(f"Pushed to {pushed.pull_request or pushed.url}")
    else:
        say(f"{pushed.url} holds exactly this already; nothing was pushed.")


def be_quiet(wanted: bool) -> None:
    """Leave out notes and progress from now on, or print them again."""
    global _quiet
    _quiet = wanted


def progress_bar() -> AbstractContextManager[Any]:
    """Return a context whose value is for `progress=`; with `--quiet` it shows nothing."""
    return nullcontext(lambda what, done, total: None) if _quiet else hf_lwmm.progress_bar()


def complain(message: str) -> None:
    """Print an error, or what else must be seen, on stderr."""
    if sys.stderr is not None:  # else it would be printed on stdout
        print(_line(message), file=sys.stderr)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    complain(f"Warning: {message}")


def note(message: str) -> None:
    """Print a line for people on stderr, unless they want quiet."""
    if not _quiet:
        complain(message)


def notes(messages: Sequence[str]) -> None:
    """Print lines for people on stderr, unless they want quiet."""
    for message in messages:
        note(message)


def _line(text: str) -> str:
    """A text as `printable`, on one line, so that no name can pretend to be a line of its own."""
    return printable(text).replace("\n", "\\n")
