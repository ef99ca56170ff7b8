"""What goes to the terminal: data on stdout, all else on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console(width: int | None = None) -> Console:
    """Where tables are printed, on stdout; names are shown as they are, whatever brackets and colons they have.

    `width` is that of a file or a pipe, unless COLUMNS tells it.
    """
    from rich.console import Console

    sized = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, markup=False, emoji=False, width=None if sized else width)


def print_json(data: Any) -> None:
    """Data for a program, on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def warn(message: str) -> None:
    """A line for a person, on stderr."""
    print(f"Warning: {message}", file=sys.stderr)


def note(message: str) -> None:
    """A line for a person, on stderr."""
    print(message, file=sys.stderr)
