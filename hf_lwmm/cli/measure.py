"""`hf-lwmm measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.expand import Group, completed
from hf_lwmm.cli.terminal import notes, progress_bar, say

EXAMPLES = """Examples:

hf-lwmm measure org/a --data org/cityscapes --split train --output a.safetensors

hf-lwmm merge org/a org/b --method fisher --measurements a.safetensors --measurements b.safetensors"""


def measure(
    images: Annotated[
        hf_lwmm.ImageSource | None,
        Group("Evaluation", usual=options.USUAL_IMAGES, shown={"split": "train", "limit": "64"}),
    ],
    network: Annotated[
        hf_lwmm.NetworkOptions,
        Group("Models", usual=("labels", "branch", "device"), panels={"device": "Evaluation"}),
    ],
    model: Annotated[str, typer.Argument(help=options.MODEL)],
    output: Annotated[Path, typer.Option(help="File to write, .safetensors.", rich_help_panel="Output")],
    kind: Annotated[
        str,
        typer.Option(
            metavar="fisher|grams",
            help="Fisher information (labelled images), or Gram matrices.",
            rich_help_panel="Method",
            autocompletion=completed(("fisher", "grams")),
        ),
    ] = "fisher",
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Label set that the images' ids stand for, if the data set does not name it.",
            rich_help_panel="Evaluation",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
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
