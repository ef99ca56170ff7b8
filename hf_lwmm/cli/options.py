"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hf_lwmm.errors import PlanError

MODEL = r"Model: org/name\[@revision][:file[+file]], or a local file or folder."  # \[ is no markup
DATASET = r"org/name\[@revision] on the Hub, or a folder."

Models = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads it at run time, also on Python 3.10)
    typer.Argument(help=MODEL.replace("Model", "Models"), show_default=False),
]
Anchor = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="The model whose task, head and layout the result keeps; the first if not given."),
]
Start = Annotated[float, typer.Option(help="Fraction of the depth that keeps the first layer's weights.")]
Alpha = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Weight of the anchor in the first layers; 1/M if not given.", show_default=False),
]
Ramp = Annotated[str, typer.Option(help="How the others fade: linear, cosine, step or power:P.")]
Granularity = Annotated[str, typer.Option(help="What has a depth position: parameter, module, block or stage.")]
Order = Annotated[str, typer.Option(help="Depth order: depth (execution) or file (registration).")]
Share = Annotated[str, typer.Option(help="Merge slots that all models have, or that the anchor and any other have.")]
Head = Annotated[str, typer.Option(help="Heads: shared, anchor, or by-label (match classifier rows by class name).")]
Dtype = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="float16, bfloat16, float32 or float64; the anchor's own if not given.", show_default=False),
]
Branch = Annotated[str, typer.Option(help="Of self-training checkpoints: student or teacher.")]
Keep = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Slot, or dotted beginning of slots, to keep as in the anchor; may be repeated."),
]
Labels = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        metavar="SET|FILE",
        help="Classes of models that name none: cityscapes19, synthia16, mapillary, voc, ade20k, ... or a file; "
        "may be repeated, the number of classes decides.",
    ),
]
Base = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="The pre-training that all models share, for methods that work on what was added to it."),
]
Statistics = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="What was measured of a model (fisher, regmean); one file for each, in the models' order."),
]
Method = Annotated[str, typer.Option(help="How to merge; `hf-lwmm methods` lists the ways.")]
Set = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="NAME=NUMBER", help="An option of the method, such as density=0.2; may be repeated."),
]
Bn = Annotated[str, typer.Option(help="Running statistics of BatchNorm: linear, pooled, anchor or recalibrate.")]
TuneData = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="DATASET",
        help="Images that greedy-soup (labelled) and adaptive (unlabelled) decide their weights on.",
        show_default=False,
    ),
]
TuneSplit = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Their split; validation of labelled images, train of others.", show_default=False),
]
TuneLimit = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Only so many of them.", show_default=False),
]
BnData = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="DATASET", help="With --bn recalibrate: the images, without labels.", show_default=False),
]
BnSplit = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Their split; train unless a recipe says otherwise.", show_default=False),
]
BnLimit = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Only so many of them.", show_default=False),
]
Permute = Annotated[
    bool, typer.Option("--permute", help="First permute every model's units to match the anchor's (Git Re-Basin).")
]
System = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Whose DeepLabV2 a checkpoint is, which its file does not say: advent, adaptsegnet, fada, ..."),
]
Device = Annotated[str, typer.Option(help="Where networks run: cpu, cuda, mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]

_KNOBS = (
    *("start", "alpha", "ramp", "granularity", "order", "share", "head", "dtype", "branch", "keep", "labels"),
    *("method", "bn", "permute"),
)


def knobs_of(context: typer.Context) -> dict[str, Any]:
    """The knobs among a command's options."""
    return {name: context.params[name] for name in _KNOBS} | {"options": _numbers(context.params["set_option"] or [])}


def _numbers(settings: list[str]) -> dict[str, float]:
    options = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise typer.BadParameter(f"--set {setting}: write NAME=NUMBER, such as density=0.2.")
        options[name] = int(number) if number == int(number) and "." not in value and "e" not in value else number
    return options


def check_folder(option: str, folder: Path | None) -> None:
    """Refuse a folder that a file is in the way of, before any work is done for it."""
    if folder is not None and not next(part for part in (folder, *folder.absolute().parents) if part.exists()).is_dir():
        raise PlanError(f"{option} {folder}: name a folder; a file is in its place.")
