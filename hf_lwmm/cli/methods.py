"""`hf-lwmm methods`."""

from __future__ import annotations

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.terminal import console, print_json


@command()
@options.as_json
def methods(as_json: bool) -> None:
    """List the merge methods with their needs and options."""
    if as_json:
        print_json([_data(method) for method in hf_lwmm.list_methods()])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", "needs", "options", "reference"):
        table.add_column(column, overflow="fold")
    for method in hf_lwmm.list_methods():
        shown = ", ".join(f"{name}={value}" for name, value in method().options.items())
        table.add_row(method.name, ", ".join(_needs(method)) or "-", shown or "-", method.reference)
    console().print(table)


def _data(method: type[hf_lwmm.Method]) -> dict[str, object]:
    return {
        "method": method.name,
        "does": method.summary,
        "needs": _needs(method),
        "options": method().options,
        "reference": method.reference,
    }


def _needs(method: type[hf_lwmm.Method]) -> list[str]:
    return [*(["base"] if "base" in method.needs else []), *([method.data] if method.data else [])]
