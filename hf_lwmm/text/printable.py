"""Write text for terminals: no character of it is obeyed, reorders others, or stays unseen."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

_SUSPECT = re.compile(r"[^\n -~]")


def printable(text: str) -> str:
    """Return a text in which every character that does not print, but the line end, is an escape such as `\\u001b`.

    JSON stays JSON with the same content.
    """
    return _SUSPECT.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return a text as `printable`, on one line."""
    return printable(" ".join(text.split()))


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names in a sentence, and how many follow: a, b, c and 4 more."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
