"""`hf-lwmm sweep`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

import typer

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import console, note, print_json
from hf_lwmm.progress import progress_bar

if TYPE_CHECKING:
    from hf_lwmm.sweeping.sweep import SweepReport

_T = TypeVar("_T")

EXAMPLES = """Examples:

hf-lwmm sweep org/a org/b org/c --dataset org/cityscapes --protocol cityscapes19 --ensemble

hf-lwmm sweep a.pth b.pth --dataset cityscapes/ --split val --methods layerwise,isotropic --start 0,0.25,0.5

hf-lwmm sweep org/a org/b --dataset org/cityscapes --methods ties,dare --base org/mit-b5 --set density=0.2,0.5

hf-lwmm sweep org/a org/b --dataset org/cityscapes --search 50 --jobs 4"""


def sweep(
    models: options.Models = None,
    dataset: Annotated[str, typer.Option(help=options.DATASET)] = "",
    output: Annotated[
        Path, typer.Option(help="Parquet file for the results; what is in it already is not scored again.")
    ] = Path("sweep.parquet"),
    split: Annotated[str, typer.Option(help="Which split of the data set.")] = "validation",
    config: Annotated[Optional[str], typer.Option(help="Which of its configurations.", show_default=False)] = None,  # noqa: UP045
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Classes to score, as for evaluate.", show_default=False),
    ] = None,
    ids: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Raw ids that label files follow, as for evaluate.", show_default=False),
    ] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Only so many images.", show_default=False)] = None,  # noqa: UP045
    flip: Annotated[bool, typer.Option("--flip", help="Average each image with its mirror image.")] = False,
    subsets: Annotated[
        str, typer.Option(help="Which models to merge: all subsets of two or more, pairs, or the whole set.")
    ] = "all",
    anchors: Annotated[str, typer.Option(help="Anchors: all models of a subset in turn, or its first.")] = "all",
    methods: Annotated[str, typer.Option(help="Methods, with commas between.")] = "layerwise",
    start: Annotated[str, typer.Option(help="Of layerwise: starts to try, such as 0,0.25,0.5.")] = "0",
    alpha: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of layerwise: anchor weights to try; 1/M if not given.", show_default=False),
    ] = None,
    ramp: Annotated[str, typer.Option(help="Of layerwise: ramps to try.")] = "linear",
    bn: Annotated[str, typer.Option(help="What to try with BatchNorm's statistics: linear,pooled,anchor.")] = "linear",
    set_option: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set", metavar="NAME=NUMBER,...", help="Values of an option, for the methods that have it; repeatable."
        ),
    ] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Also score every subset's averaged outputs.")] = False,
    search: Annotated[
        int, typer.Option(min=0, metavar="N", help="In place of a grid, N trials of start, alpha and ramp by TPE.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of --search.")] = 0,
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Processes that score candidates, or workers of --ray.", show_default=False),
    ] = None,
    ray: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="ADDRESS", help="Ray cluster that scores candidates; local starts one.", show_default=False
        ),
    ] = None,
    base: options.Base = None,
    statistics: options.Statistics = None,
    granularity: options.Granularity = "parameter",
    order: options.Order = "depth",
    share: options.Share = "all",
    head: options.Head = "shared",
    keep: options.Keep = None,
    permute: options.Permute = False,
    branch: options.Branch = "student",
    labels: options.Labels = None,
    system: options.System = None,
    device: options.Device = "cpu",
    dtype: Annotated[str, typer.Option(help="Networks compute in float32, bfloat16 or float16.")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images that pass a network together.")] = 1,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Also write the ranked table here, as .json or .md.", show_default=False),
    ] = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FOLDER", help="Draw scores by subset and anchor, and by knob.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Merge and score every combination of models, anchors, methods and knobs on a data set, and rank them."""
    import hf_lwmm
    from hf_lwmm.errors import PlanError
    from hf_lwmm.publishing.plots.sweeps import save_plots

    if not dataset:
        raise PlanError("--dataset is missing: org/name on the Hub, or a folder of images and labels.")
    if report is not None and (report.is_dir() or not report.absolute().parent.is_dir()):
        raise PlanError(f"--report {report}: name a file, .json or .md, in a folder that exists.")
    options.check_folder("--plot", plot)
    knobs = {"granularity": granularity, "order": order, "share": share, "head": head, "permute": permute}
    try:
        with progress_bar() as progress:
            found = hf_lwmm.sweep(
                models or [],
                dataset,
                output,
                subsets=subsets,
                anchors=anchors,
                methods=_listed("--methods", methods, str),
                start=_listed("--start", start, float),
                alpha=_listed("--alpha", alpha, float) if alpha else (None,),
                ramp=_listed("--ramp", ramp, str),
                bn=_listed("--bn", bn, str),
                options=_options(set_option or []),
                knobs={**knobs, "keep": tuple(keep or ())},
                base=base,
                statistics=statistics or [],
                ensemble=ensemble,
                search=search,
                seed=seed,
                branch=branch,
                jobs=jobs,
                ray=ray,
                progress=progress,
                split=split,
                config=config,
                protocol=protocol,
                ids=ids,
                limit=limit,
                flip=flip,
                labels=labels or [],
                system=system,
                device=device,
                dtype=dtype,
                batch_size=batch_size,
            )
    except KeyboardInterrupt:
        note("Interrupted; what was scored is kept, and the same command goes on from there.")
        raise typer.Exit(130) from None
    for text in found.notes:
        note(text)
    if report is not None:
        data = json.dumps(found.to_dict(), indent=2) if report.suffix == ".json" else found.to_markdown()
        report.write_text(data + "\n", encoding="utf-8")
    if plot is not None:
        for path in save_plots(found.records(), plot, found.metric):
            note(f"Drew {path}")
    if as_json:
        print_json(found.to_dict())
        return
    _print_table(found)


def _print_table(found: SweepReport) -> None:
    from rich.table import Table

    out = console()
    if not out.is_terminal:
        print(found.to_markdown())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(found.header):
        table.add_column(column, overflow="fold", justify="left" if place == 1 else "right")
    for cells in found.cells():
        table.add_row(*cells)
    out.print(table)
    out.print(found.verdict, style="bold")
    if found.skipped:
        out.print(f"Skipped ({len(found.skipped)}):")
    for reason, names in found.skipped_by_reason().items():
        out.print(f"  {reason} ({'; '.join(names)})")
    out.print(f"Written to {found.output}")


def _listed(option: str, text: str, kind: Callable[[str], _T]) -> tuple[_T, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise typer.BadParameter(f"{option} {text!r}: has nothing where a value should be.")
    try:
        return tuple(kind(part) for part in parts)
    except ValueError:
        raise typer.BadParameter(f"{option} {text}: write numbers with commas between, such as 0,0.25,0.5.") from None


def _options(settings: list[str]) -> dict[str, Any]:
    found: dict[str, tuple[float, ...]] = {}
    for setting in settings:
        name, equals, values = setting.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--set {setting}: write NAME=NUMBER,..., such as density=0.2,0.5.")
        found[name] = _listed(f"--set {name}", values, _number)
    return found


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
