"""`hf-lwmm methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import console, print_json

if TYPE_CHECKING:
    from hf_lwmm.methods import Method


def methods(as_json: options.Json = False) -> None:
    """List the ways to merge: what each does, what it needs, its options with their defaults."""
    from hf_lwmm.methods import METHODS

    if as_json:
        print_json(
            [
                {
                    "method": method.name,
                    "does": method.summary,
                    "needs": _needs(method),
                    "options": method().options,
                    "reference": method.reference,
                }
                for method in METHODS.values()
            ]
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", "needs", "options", "reference"):
        table.add_column(column, overflow="fold")
    for method in METHODS.values():
        shown = ", ".join(f"{name}={value}" for name, value in method().options.items())
        table.add_row(method.name, ", ".join(_needs(method)) or "-", shown or "-", method.reference)
    console().print(table)


def _needs(method: type[Method]) -> list[str]:
    return [*(["base"] if "base" in method.needs else []), *([method.data] if method.data else [])]
