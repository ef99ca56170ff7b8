"""Reject unknown names, suggest the nearest known one, and name options as a command has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from hf_lwmm.errors import HfLwmmError, PlanError


def check_names(content: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    """Reject unknown names.

    Raises:
        PlanError: with the nearest known name.
    """
    for name in content:
        if name not in known:
            hint = did_you_mean(str(name), known)
            names = f"Known: {', '.join(known)}." if known else "It has no options."
            raise PlanError(f"{where}: has no {name!r}.{hint} {names}")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a sentence that suggests the nearest known name, empty if none is near."""
    near = get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def with_prefix(text: str, flags: Iterable[str], prefix: str) -> str:
    """Return a text in which each of the flags has a prefix, such as --eval-ids in the place of --ids."""
    names = "|".join(re.escape(flag.removeprefix("--")) for flag in flags)
    return re.sub(rf"(?<![\w-])--({names})(?![\w-])", rf"--{prefix}\1", text)


@contextmanager
def naming_with_prefix(flags: Iterable[str], prefix: str) -> Iterator[None]:
    """Return a context in which errors name flags with a prefix."""
    try:
        yield
    except HfLwmmError as error:
        error.args = (with_prefix(str(error), flags, prefix),)
        raise
