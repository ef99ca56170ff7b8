"""Names of branches and tags: what git and the Hub take for one."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ALLOWED = re.compile(r"(?!refs/|tags/)\w[\w./+-]*")  # all else that git allows needs quoting somewhere
_REFUSED = re.compile(r"\.\.|//|(?:^|/)\.|\.lock(?:/|\Z)|[./](?:/|\Z)")  # by git, in any part
_LIKE_A_COMMIT = re.compile("[0-9a-fA-F]{7,40}")  # which it would hide
_LONGEST = 255  # characters


def is_branch_name(text: str) -> bool:
    """Return True for a text that can be the name of a new branch or tag, by the rules of `git check-ref-format`."""
    return (
        len(text) <= _LONGEST
        and text != "HEAD"
        and _ALLOWED.fullmatch(text) is not None
        and _REFUSED.search(text) is None
        and _LIKE_A_COMMIT.fullmatch(text) is None
    )


def clashing(name: str, others: Iterable[str]) -> str | None:
    """Return one of the other names that cannot stand beside a name, as `a` and `a/b`; None if there is none."""
    return next((each for each in others if each.startswith(f"{name}/") or name.startswith(f"{each}/")), None)
