"""`hf-lwmm push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.expand import Group
from hf_lwmm.cli.terminal import print_json, print_pushed

EXAMPLES = """Example:

hf-lwmm push merged me/merged --private"""


def push(
    push: Annotated[hf_lwmm.PushOptions, Group("Hub", skip=("repo",))],
    folder: Annotated[Path, typer.Argument(help="Folder that merge wrote.")],
    repo: Annotated[str, typer.Argument(help="Repository, as org/name, or a name in your own namespace.")],
    as_json: options.Json = False,
) -> None:
    """Push a merged folder to a repository.

    It takes the place of an earlier merge there; files of others stay.
    """
    pushed = hf_lwmm.push(folder, repo, push)
    if as_json:
        print_json(vars(pushed))
    print_pushed(pushed, quiet=as_json)
