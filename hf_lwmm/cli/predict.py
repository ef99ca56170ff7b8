"""`hf-lwmm predict`."""

from __future__ import annotations

from pathlib import Path

import click

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.expand import Group
from hf_lwmm.cli.help import option
from hf_lwmm.cli.terminal import note, notes, print_json, progress_bar, say, warn

EXAMPLES = """Examples:

hf-lwmm predict org/merged street.jpg

hf-lwmm predict org/daformer:latest.pth photos/ --labels cityscapes19 --output seen"""


@command(EXAMPLES)
@Group("network", hf_lwmm.NetworkOptions, "Models", usual=("labels", "branch", "device"))
@click.argument("model", type=options.PLACE, help=options.MODEL)
@click.argument("pictures", nargs=-1, required=True, type=options.PATH, help="Pictures, or folders of pictures.")
@option("--output", type=options.PATH, default=Path("predictions"), help="Folder to write into.", panel="Output")
@option(
    "--opacity",
    type=click.FloatRange(0, 1),
    default=0.6,
    help="Opacity of the colours over the picture.",
    panel="Output",
)
@option("--key/--no-key", default=True, help="Write the classes that were found below overlays.", panel="Output")
@options.overwrite
@options.as_json
def predict(
    network: hf_lwmm.NetworkOptions,
    model: str,
    pictures: tuple[Path, ...],
    output: Path,
    opacity: float,
    key: bool,
    overwrite: bool,
    as_json: bool,
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
        raise click.exceptions.Exit(1)
