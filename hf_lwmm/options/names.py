"""Reject unknown names, and suggest the nearest known one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from hf_lwmm.errors import PlanError


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
