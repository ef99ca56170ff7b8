"""`hf-lwmm push`."""

from __future__ import annotations

from pathlib import Path

import click

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.expand import Group
from hf_lwmm.cli.terminal import print_json, print_pushed

EXAMPLES = """Example:

hf-lwmm push merged me/merged --private"""


@command(EXAMPLES)
@Group("push", hf_lwmm.PushOptions, "Hub", skip=("repo",))
@click.argument("folder", type=options.PATH, help="Folder that merge wrote.")
@click.argument("repo", help="Repository, as org/name, or a name in your own namespace.")
@options.as_json
def push(push: hf_lwmm.PushOptions, folder: Path, repo: str, as_json: bool) -> None:
    """Push a merged folder to a repository.

    It takes the place of an earlier merge there; files of others stay.
    """
    pushed = hf_lwmm.push(folder, repo, push)
    if as_json:
        print_json(vars(pushed))
    print_pushed(pushed, quiet=as_json)
