"""`hf-lwmm search`."""

from __future__ import annotations

from typing import Literal

import click

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.help import option
from hf_lwmm.cli.terminal import console, note, print_json, progress_bar

EXAMPLES = """Examples:

hf-lwmm search --backbone mit-b5 --labels cityscapes19

hf-lwmm search --like org/model --limit 5"""

_NAMES = 5
_WIDE = 140  # columns that the table takes with whole names


@command(EXAMPLES)
@option("--backbone", metavar="NAME", help="Backbone: a size such as mit-b5 or resnet-101, or a family: mit.")
@option("--like", metavar="MODEL", help="Model that the others can merge with.")
@option("--labels", metavar="SET|FILE", help="Compare classes with this label set.")
@option("--limit", type=click.IntRange(min=1), default=20, help="Stop when this many models are found.")
@option("--scan", type=click.IntRange(min=1), default=200, help="Look at this many repositories at most.")
@options.as_json
def search(backbone: str | None, like: str | None, labels: str | None, limit: int, scan: int, as_json: bool) -> None:
    """Find models on the Hub that can be merged.

    They can merge with a backbone (--backbone) or a model (--like). Weights are not downloaded.
    """
    with progress_bar() as progress:
        found = hf_lwmm.search(backbone, like=like, labels=labels, limit=limit, scan=scan, progress=progress)
    if as_json:
        print_json(found.to_dict())
        return
    from rich.table import Table

    out = console(_WIDE)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in found.columns:
        justify: Literal["left", "right"] = "right" if name in ("downloads", "shared") else "left"
        whole = name == "model" and out.width >= _WIDE  # a repository's name is there to be copied
        shown.add_column(name, justify=justify, min_width=len(name), no_wrap=whole, overflow="fold")
    for cells in found.cells():
        shown.add_row(*cells)
    if found.candidates:
        out.print(shown)
    note(f"{len(found.candidates)} of {found.looked_at} inspected models can merge with {found.wanted}.")
    if found.unread:
        names = ", ".join(list(found.unread)[:_NAMES]) + (", ..." if len(found.unread) > _NAMES else "")
        note(f"Not judged: {len(found.unread)} ({names}); --json gives the reasons.")
