"""`hf-lwmm measure`."""

from __future__ import annotations

from pathlib import Path

import click

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.expand import Group, completed
from hf_lwmm.cli.help import option
from hf_lwmm.cli.terminal import notes, progress_bar, say

EXAMPLES = """Examples:

hf-lwmm measure org/a --data org/cityscapes --split train --output a.safetensors

hf-lwmm merge org/a org/b --method fisher --measurements a.safetensors --measurements b.safetensors"""


@command(EXAMPLES)
@Group(
    "images",
    hf_lwmm.ImageSource,
    "Evaluation",
    usual=options.USUAL_IMAGES,
    shown={"split": "train", "limit": "64"},
    key="data",
)
@Group(
    "network", hf_lwmm.NetworkOptions, "Models", usual=("labels", "branch", "device"), panels={"device": "Evaluation"}
)
@click.argument("model", type=options.PLACE, help=options.MODEL)
@option("--output", type=options.PATH, required=True, help="File to write, .safetensors.", panel="Output")
@option(
    "--kind",
    default="fisher",
    metavar="fisher|grams",
    help="Fisher information (labelled images), or Gram matrices.",
    panel="Method",
    shell_complete=completed(("fisher", "grams")),
)
@option(
    "--protocol", help="Label set that the images' ids stand for, if the data set does not name it.", panel="Evaluation"
)
@options.overwrite
def measure(
    images: hf_lwmm.ImageSource | None,
    network: hf_lwmm.NetworkOptions,
    model: str,
    output: Path,
    kind: str,
    protocol: str | None,
    overwrite: bool,
) -> None:
    """Measure a model on images for fisher and regmean.

    The images are those of the model's source domain; 64 are used unless --limit says otherwise.
    """
    if images is None:
        raise hf_lwmm.PlanError("--data is missing: org/name on the Hub, or a folder of images.")
    with progress_bar() as progress:
        found = hf_lwmm.measure(
            model,
            images,
            output,
            kind=kind,
            protocol=protocol,
            overwrite=overwrite,
            network=network,
            progress=progress,
        )
    notes(found.notes)
    say(f"Measured {kind} on {found.images.limit} images; written to {found.path}")
