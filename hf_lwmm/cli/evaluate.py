"""`hf-lwmm evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import console, note, print_json
from hf_lwmm.progress import progress_bar

if TYPE_CHECKING:
    from hf_lwmm.evaluation.evaluate import EvaluationReport

EXAMPLES = """Examples:

hf-lwmm evaluate org/merged org/a org/b --dataset org/cityscapes --protocol cityscapes19

hf-lwmm evaluate a.pth b.pth --dataset cityscapes/ --split val --labels cityscapes19 --ensemble --flip

accelerate launch --num_processes 4 -m hf_lwmm evaluate org/merged --dataset org/cityscapes"""


def evaluate(
    models: options.Models = None,
    dataset: Annotated[str, typer.Option(help=options.DATASET)] = "",
    split: Annotated[str, typer.Option(help="Which split of it.")] = "validation",
    config: Annotated[Optional[str], typer.Option(help="Which of its configurations.", show_default=False)] = None,  # noqa: UP045
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Classes to score: cityscapes19, synthia16, synthia13, camvid11, ... or a file."),
    ] = None,
    ids: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Raw ids that label files follow: cityscapes, gta, synthia, camvid, ... (class ids if not given)."
        ),
    ] = None,
    image_column: Annotated[Optional[str], typer.Option(help="Column of the images.", show_default=False)] = None,  # noqa: UP045
    label_column: Annotated[Optional[str], typer.Option(help="Column of the labels.", show_default=False)] = None,  # noqa: UP045
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Also score the models' averaged outputs.")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="Average each image with its mirror image.")] = False,
    scales: Annotated[str, typer.Option(help="Average over these sizes of an image, e.g. 0.5,1,1.5.")] = "1",
    limit: Annotated[Optional[int], typer.Option(min=1, help="Only so many images.", show_default=False)] = None,  # noqa: UP045
    streaming: Annotated[bool, typer.Option("--streaming", help="Read images of the Hub as they are needed.")] = False,
    labels: options.Labels = None,
    system: options.System = None,
    device: options.Device = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images that pass a network together.")] = 1,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the networks first (torch.compile), for GPUs.")
    ] = False,
    edaps_void: Annotated[
        bool, typer.Option("--edaps-void", help="Count void panoptic pixels as the first class, as EDAPS does.")
    ] = False,
    examples: Annotated[
        int, typer.Option(min=0, help="Draw so many images on which the last model and the first differ most.")
    ] = 0,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FOLDER", help="Draw scores by class, confusions and --examples's images.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Also write the report here, as .json or .md.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Score models on a labelled data set in one pass; the first is the anchor that the others are compared with."""
    from hf_lwmm.errors import PlanError
    from hf_lwmm.evaluation.evaluate import evaluate as run
    from hf_lwmm.evaluation.examples import save_examples
    from hf_lwmm.publishing.plots.scores import save_plots

    if not dataset:
        raise PlanError("--dataset is missing: org/name on the Hub, or a folder of images and labels.")
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise PlanError(f"--output {output}: name a file, .json or .md, in a folder that exists.")
    if examples and plot is None:
        raise PlanError("--examples draws into a folder: name it with --plot FOLDER.")
    options.check_folder("--plot", plot)
    try:
        sizes = [float(size) for size in scales.split(",")]
    except ValueError:
        raise PlanError(f"--scales {scales}: write numbers with commas between, such as 0.5,1,1.5.") from None
    with progress_bar() as progress:
        found = run(
            models or [],
            dataset,
            split=split,
            config=config,
            protocol=protocol,
            ids=ids,
            image_column=image_column,
            label_column=label_column,
            ensemble=ensemble,
            flip=flip,
            scales=sizes,
            limit=limit,
            streaming=streaming,
            labels=labels or [],
            system=system,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            compile=compile,
            edaps_void=edaps_void,
            examples=examples,
            progress=progress,
        )
    if found is None:
        return  # another process answers
    for text in found.notes:
        note(text)
    if output is not None:
        data = json.dumps(found.to_dict(), indent=2) if output.suffix == ".json" else found.to_markdown()
        output.write_text(data + "\n", encoding="utf-8")
    if plot is not None:
        for path in (*save_plots(found, plot), *save_examples(found, plot)):
            note(f"Drew {path}")
    if as_json:
        print_json(found.to_dict())
        return
    _print_tables(found)


def _print_tables(found: EvaluationReport) -> None:
    from rich.markdown import Markdown

    out = console()
    if out.is_terminal:
        out.print(Markdown(found.to_markdown()))
    else:
        print(found.to_markdown())
    print(f"\n{found.images_per_second:.2f} images/s")
