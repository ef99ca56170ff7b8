"""Print to the terminal: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import hf_lwmm

if TYPE_CHECKING:
    from rich.console import Console


def console(width: int | None = None) -> Console:
    """Return the console that tables are printed on; names appear as they are, whatever brackets and colons they hold.

    `width` is that of a file or a pipe, unless COLUMNS is set.
    """
    from rich.console import Console

    sized = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, markup=False, emoji=False, width=None if sized else width)


def print_json(data: Any) -> None:
    """Print data for a program on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_pushed(pushed: hf_lwmm.Pushed | None) -> None:
    """Print where a push went."""
    if pushed is not None and pushed.changed:
        print(f"Pushed to {pushed.pull_request or pushed.url}")
    elif pushed is not None:
        print(f"{pushed.url} holds exactly this already; nothing was pushed.")


def warn(message: str) -> None:
    """Print a warning on stderr."""
    print(f"Warning: {message}", file=sys.stderr)


def note(message: str) -> None:
    """Print a line for people on stderr."""
    print(message, file=sys.stderr)


def notes(messages: Sequence[str]) -> None:
    """Print lines for people on stderr."""
    for message in messages:
        note(message)
