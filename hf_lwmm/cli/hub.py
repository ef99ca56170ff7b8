"""`hf-lwmm hub`."""

from __future__ import annotations

from pathlib import Path

import click

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.help import GroupedCommand, option
from hf_lwmm.cli.terminal import note

EXAMPLES = """Example:

hf-lwmm hub serve --root ~/local-hub"""


@click.group()
def hub() -> None:
    """Run a local Hub for tests and offline sites."""


@hub.command(cls=GroupedCommand, epilog=EXAMPLES)
@option("--root", type=options.PATH, required=True, help="Folder that holds the repositories; made if missing.")
@options.port
@option(
    "--allowed-host",
    metavar="NAME",
    multiple=True,
    help="Another name under which requests may come, beside localhost. Repeatable.",
)
def serve(root: Path, port: int, allowed_host: tuple[str, ...]) -> None:
    """Serve a folder as a Hub on this machine.

    The stock clients work with it. Only this machine reaches it, until the command is interrupted.
    """

    def announce(endpoint: str, user: str, token: str) -> None:
        note(f"Local Hub of {root} for the user {user}, on this machine only (127.0.0.1).")
        note("For experiments, tests and air-gapped sites: no encryption, no quotas. In another shell:")
        note(f"  export HF_ENDPOINT={endpoint} HF_TOKEN={token} HF_HUB_DISABLE_XET=1")
        note(f"In a browser: {endpoint}. Ctrl-C stops it; what was pushed stays.")

    hf_lwmm.serve(root, port, announce, allowed_host)
