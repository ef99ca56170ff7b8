"""Check the arguments of verbs where a wrong type would end in an error far away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hf_lwmm.errors import PlanError


def expect(value: object, cls: type, name: str) -> None:
    """Refuse an argument that is not a `cls`, which is a public class of options. Raises PlanError."""
    if not isinstance(value, cls):
        raise PlanError(f"{name} must be hf_lwmm.{cls.__name__}(...), not {_shown(value)}.")


def expect_list(value: object, name: str) -> None:
    """Refuse a single value, such as one text, where several are expected. Raises PlanError."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise PlanError(f"{name} must be a list, not {_shown(value)}.")


def _shown(value: object) -> str:
    """A plain value itself, or the type of any other, which may be long."""
    return repr(value) if isinstance(value, str | Path | int | float | dict | None) else f"a {type(value).__name__}"
