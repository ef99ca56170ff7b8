"""`hf-lwmm reproduce`."""

from __future__ import annotations

from dataclasses import asdict

import click

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.help import option
from hf_lwmm.cli.terminal import print_json, progress_bar, say

EXAMPLES = """Examples:

hf-lwmm reproduce org/merged

hf-lwmm reproduce org/merged --models runs/a/best --models runs/b/best"""


@command(EXAMPLES)
@click.argument("repo", type=options.PLACE, help="Merged repository or folder, with an hf_lwmm.yaml.")
@option(
    "--models",
    metavar="PATH",
    multiple=True,
    help="File or folder of a model that was local; found by its SHA-256. Repeatable.",
)
@options.as_json
def reproduce(repo: str, models: tuple[str, ...], as_json: bool) -> None:
    """Make a merge again from its recipe and compare the bytes.

    The exit code is 1 if they differ.
    """
    with progress_bar() as progress:
        result = hf_lwmm.reproduce(repo, models, progress=progress)
    if as_json:
        print_json(asdict(result))
    elif result.same:
        say(f"{result.repo}: the bytes agree.")
        for name, digest in result.merged.items():
            say(f"  {digest}  {name}")
    else:
        agree = result.merged == result.recorded == result.stored
        say(
            f"{result.repo}: "
            + ("the bytes of the merge agree, but are not what is loaded." if agree else "the bytes DIFFER.")
        )
        if result.why:
            say(f"  {result.why}")
        for name in sorted({*result.recorded, *result.stored, *result.merged}):
            say(f"  {name}")
            for what in ("recorded", "stored", "merged"):
                say(f"    {what:<9} {getattr(result, what).get(name, 'missing')}")
    if not result.same:
        raise click.exceptions.Exit(1)
