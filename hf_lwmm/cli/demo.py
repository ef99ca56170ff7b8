"""`hf-lwmm demo`."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

import click

import hf_lwmm
from hf_lwmm.cli import options, run_command
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.help import option
from hf_lwmm.cli.terminal import say
from hf_lwmm.text import shell_line

EXAMPLES = """Examples:

hf-lwmm demo

hf-lwmm demo --output tried --port 0 --no-open"""

_A, _B, _MERGED, _DATA = "local/streets-gta", "local/streets-night", "local/streets-gta-lwmm", "local/streets"
_MERGE = f"merge {_A} {_B} --anchor {_A} --method auto --target new --eval-data {_DATA} --eval-split new --push"
_SCORE = f"evaluate {_MERGED} {_A} {_B} --data {_DATA} --split"
_STEPS = (
    (f"{_A} learned streets by day, {_B} streets at night. Merge them for evening and fog, which neither has seen:",
     _MERGE),
    ("The recipe that was pushed with the merge makes the same bytes again:", f"reproduce {_MERGED}"),
    ("On the new streets each parent knows something that the other does not. What the merge knows of both, the "
     "verdict below the scores says:", f"{_SCORE} new"),
    (f"On streets by day, which {_A} learned, the other parent has nothing to add, and averaging can only take away:",
     f"{_SCORE} gta"),
)  # fmt: skip


@command(EXAMPLES)
@option("--output", type=options.PATH, default=Path("hf-lwmm-demo"), help="Folder for the Hub; made if missing.")
@options.port
@option("--frames", type=click.IntRange(min=1), default=16, help="Pictures of each style to score on.")
@option("--open/--no-open", "open_card", default=True, help="Show the card in the browser.")
def demo(output: Path, port: int, frames: int, open_card: bool) -> None:
    """Merge two small models on a local Hub, and score the merge.

    It shows a merge that wins and one that does not. It needs neither a network nor an account, and keeps nothing
    outside its folder.
    """
    with (
        hf_lwmm.LocalHub(output / "hub", port, faults=False) as hub,
        tempfile.TemporaryDirectory(prefix="hf-lwmm-") as scratch,
    ):
        os.environ.setdefault("MPLCONFIGDIR", scratch)  # matplotlib keeps a cache of fonts in the home folder
        _point_stock_clients(hub.endpoint, hub.token, output / "hf")
        from hf_lwmm import demo  # after the addresses are set, which the stock clients read when they are imported

        demo.fill(output, _DATA, frames)
        for text, line in _STEPS:
            say(text)
            say()
            say(f"$ hf-lwmm {line}")
            run_command(shlex.split(line))
            say()
        page = f"{hub.endpoint}/{_MERGED}"
        if open_card and _has_display() and webbrowser.open(page):
            say(f"The card of the merge: {page}, until Ctrl-C")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    serve = shell_line(["hf-lwmm", "hub", "serve", "--root", str(output / "hub"), "--port", str(hub.port)])
    say(f"The Hub has stopped. To run the commands above, or to look at {page}, start it again:")
    say(f"  {serve}")
    say("and export in another shell what it prints.")


def _point_stock_clients(endpoint: str, token: str, home: Path) -> None:
    """Let the stock clients, which must not be imported yet, talk to this Hub alone and keep their files in `home`."""
    settings = {"ENDPOINT": endpoint, "TOKEN": token, "HOME": str(home.resolve()), "HUB_OFFLINE": "0"}
    settings |= {f"HUB_DISABLE_{what}": "1" for what in ("XET", "TELEMETRY", "PROGRESS_BARS")}
    os.environ.update({f"HF_{name}": value for name, value in settings.items()})
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name, ""), urlsplit(endpoint).hostname)))


def _has_display() -> bool:
    """True where a browser has a screen to open on."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
