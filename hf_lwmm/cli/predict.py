"""`hf-lwmm predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.expand import Group
from hf_lwmm.cli.terminal import note, notes, print_json, progress_bar, say, warn

EXAMPLES = """Examples:

hf-lwmm predict org/merged street.jpg

hf-lwmm predict org/daformer:latest.pth photos/ --labels cityscapes19 --output seen"""


def predict(
    network: Annotated[hf_lwmm.NetworkOptions, Group("Models", usual=("labels", "branch", "device"))],
    model: Annotated[str, typer.Argument(help=options.MODEL)],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    output: Annotated[Path, typer.Option(help="Folder to write into.", rich_help_panel="Output")] = Path("predictions"),
    opacity: Annotated[
        float,
        typer.Option(min=0, max=1, help="Opacity of the colours over the picture.", rich_help_panel="Output"),
    ] = 0.6,
    key: Annotated[
        bool, typer.Option(help="Write the classes that were found below overlays.", rich_help_panel="Output")
    ] = True,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Segment pictures or find objects, and write overlays.

    Label files come with them; panoptic models also give a segment PNG, and detectors a list of boxes instead.
    """
    with progress_bar() as progress:
        found = hf_lwmm.predict(
            model, pictures, output, opacity=opacity, key=key, overwrite=overwrite, network=network, progress=progress
        )
    notes(found.notes)
    for path, reason in found.failed:
        warn(f"{path}: skipped: {reason}")
    if as_json:
        done = [
            {"picture": str(d.picture), "files": list(map(str, d.files)), "classes": d.parts or d.objects}
            for d in found.done
        ]
        failed = [{"picture": str(path), "reason": reason} for path, reason in found.failed]
        print_json({"predictions": done, "skipped": failed})
    else:
        for one in found.done:
            shares = [f"{name} {part:.0%}" for name, part in one.parts.items()]
            numbers = [f"{number} {name}" for name, number in one.objects.items()]
            most = ", ".join((shares or numbers or ["nothing"])[:4])
            say(f"{one.picture}: {most} -> {one.files[0]}")
    if found.failed:
        note(f"{len(found.failed)} of {len(found.failed) + len(found.done)} pictures could not be read.")
        raise typer.Exit(1)
