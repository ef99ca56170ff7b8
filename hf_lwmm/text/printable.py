"""Write text for terminals: no character of it is obeyed, reorders others, or stays unseen."""

from __future__ import annotations

import json
import re

_SUSPECT = re.compile(r"[^\n -~]")


def printable(text: str) -> str:
    """Return a text in which every character that does not print, but the line end, is an escape such as `\\u001b`.

    JSON stays JSON with the same content.
    """
    return _SUSPECT.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return a text as `printable`, on one line."""
    return printable(" ".join(text.split()))
