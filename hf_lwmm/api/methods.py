"""List the merge methods."""

from __future__ import annotations

from hf_lwmm.methods import METHODS, Method


def list_methods() -> tuple[type[Method], ...]:
    """Return the classes of all merge methods, the paper's first; their fields are the methods' options."""
    return tuple(METHODS.values())
