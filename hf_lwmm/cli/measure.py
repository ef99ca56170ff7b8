"""`hf-lwmm measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import note
from hf_lwmm.progress import progress_bar

EXAMPLES = """Example:

hf-lwmm measure org/a --dataset org/cityscapes --split train --output a.safetensors

hf-lwmm merge org/a org/b --method fisher --measurements a.safetensors --measurements b.safetensors"""


def measure(
    model: Annotated[str, typer.Argument(help=options.MODEL)],
    output: Annotated[Path, typer.Option(help="File to write, .safetensors.")],
    dataset: Annotated[str, typer.Option(help=options.DATASET)],
    kind: Annotated[str, typer.Option(help="fisher (labelled images), or grams for regmean (no labels).")] = "fisher",
    count: Annotated[int, typer.Option(min=1, help="How many images.")] = 64,
    split: Annotated[str, typer.Option(help="Which split.")] = "train",
    config: Annotated[Optional[str], typer.Option(help="Which of its configurations.", show_default=False)] = None,  # noqa: UP045
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The label set that the images' ids stand for, if the data set does not name it."),
    ] = None,
    ids: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Raw ids that label files follow: cityscapes, gta, synthia, camvid, ..."),
    ] = None,
    labels: options.Labels = None,
    system: options.System = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Measure what the methods fisher and regmean must know of a model, on images of its source domain."""
    import hf_lwmm
    from hf_lwmm.calibration.measurements import measure as run
    from hf_lwmm.data.loading import open_images
    from hf_lwmm.data.pictures import Images, open_unlabelled_images

    loaded = hf_lwmm.load(model, labels=labels or [], system=system)
    for text in loaded.notes:
        note(text)
    images: Images = (
        open_unlabelled_images(dataset, split, config=config)
        if kind == "grams"
        else open_images(dataset, split, config=config, ids=ids)
    )
    with progress_bar() as progress:
        used = run(
            loaded, images, output, kind=kind, count=count, protocol=protocol, overwrite=overwrite, progress=progress
        )
    print(f"Measured {kind} on {used} images; written to {output}")
