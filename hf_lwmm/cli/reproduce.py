"""`hf-lwmm reproduce`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import print_json

EXAMPLES = """Example:

hf-lwmm reproduce org/merged"""


def reproduce(
    repo: Annotated[str, typer.Argument(help="Merged repository or folder, with an hf_lwmm.yaml.")],
    as_json: options.Json = False,
) -> None:
    """Make a merge again from its recipe and compare the bytes.

    The exit code is 1 if they differ.
    """
    with hf_lwmm.progress_bar() as progress:
        result = hf_lwmm.reproduce(repo, progress=progress)
    if as_json:
        print_json(asdict(result))
    elif result.same:
        print(f"{result.repo}: the bytes agree.")
        for name, digest in result.merged.items():
            print(f"  {digest}  {name}")
    else:
        print(f"{result.repo}: the bytes DIFFER.")
        for name in sorted({*result.recorded, *result.stored, *result.merged}):
            print(f"  {name}")
            for what in ("recorded", "stored", "merged"):
                print(f"    {what:<9} {getattr(result, what).get(name, 'missing')}")
    if not result.same:
        raise typer.Exit(1)
