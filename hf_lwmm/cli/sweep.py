"""`hf-lwmm sweep`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.expand import Given, Group
from hf_lwmm.cli.following import following, scoring_merge, with_free_output
from hf_lwmm.cli.predict import predict
from hf_lwmm.cli.terminal import (
    note,
    notes,
    print_json,
    print_table,
    print_verdict,
    progress_bar,
    say,
)

EXAMPLES = """Examples:

hf-lwmm sweep org/a org/b org/c --data org/cityscapes --protocol cityscapes19 --ensemble

hf-lwmm sweep a.pth b.pth --data cityscapes/ --split val --methods layerwise,isotropic --start 0,0.25,0.5

hf-lwmm sweep org/a org/b --data org/cityscapes --methods ties,dare --base org/mit-b5 --option density=0.2,0.5

hf-lwmm sweep org/a org/b --data org/cityscapes --search 50 --jobs 4"""

SWEPT = "sweep.parquet"  # the results, unless --output names another file


def sweep(
    axes: Annotated[
        Given,
        Group(
            "Method",
            usual=("subsets", "anchors", "methods", "start", "bn_stats", "options", "ensemble"),
            options=hf_lwmm.SweepAxes,
        ),
    ],
    fixed: Annotated[
        Given,
        Group("Method", usual=(), skip=("bn_stats", "bn_mix", "dtype"), options=hf_lwmm.Knobs),
    ],
    images: Annotated[
        Optional[hf_lwmm.ImageSource],  # noqa: UP045
        Group("Evaluation", usual=options.USUAL_IMAGES, shown={"split": "validation"}),
    ],
    evaluation: Annotated[
        hf_lwmm.EvaluationSpec,
        Group("Evaluation", usual=("protocol",), skip=("ensemble", "examples")),
    ],
    network: Annotated[hf_lwmm.NetworkOptions, Group("Evaluation", usual=(), skip=("labels", "branch"))],
    run: Annotated[hf_lwmm.SweepRun, Group("Method", usual=())],
    models: options.Models = None,
    output: Annotated[
        Path,
        typer.Option(help="Parquet file, also to go on with.", rich_help_panel="Output"),
    ] = Path(SWEPT),
    base: options.Base = None,
    target: options.Target = None,
    measurements: options.Measurements = None,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Also write the ranked table here, as .json or .md.", show_default=False, rich_help_panel="Output"
        ),
    ] = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FOLDER",
            help="Draw scores by subset and anchor, and by knob.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(help="Replace an existing --report, and plots.", show_default=False, rich_help_panel="Output"),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Merge and score many combinations, and rank them.

    The combinations are of models, anchors, methods and knobs.
    """
    if images is None:
        raise hf_lwmm.PlanError("--data is missing: org/name on the Hub, or a folder of images and labels.")
    knobs = hf_lwmm.Knobs(**fixed)
    inputs = hf_lwmm.MergeInputs(base=base, measurements=tuple(measurements or ()), target=target)
    read = (*(models or ()), inputs, images, knobs, evaluation)
    place = hf_lwmm.check_report_name(report, *read, overwrite=overwrite) if report is not None else None
    folder = hf_lwmm.check_sweep_plots(plot, *read, overwrite=overwrite) if plot is not None else None
    with progress_bar() as progress:
        found = hf_lwmm.sweep(
            models or [],
            images,
            output,
            axes=hf_lwmm.SweepAxes(**axes, fixed=knobs),
            inputs=inputs,
            evaluation=evaluation,
            network=network,
            run=run,
            progress=progress,
        )
    if found.advice is not None and _is_news(found.advice, axes.get("methods")):
        note(found.advice.line)
    notes(found.notes)
    if place is not None:
        hf_lwmm.save_report(found, place)
        note(f"Wrote {report}")
    if as_json:
        print_json(found.to_dict())
        note(f"Wrote {found.output}")
    else:
        _print(found)
        if found.confirmation is not None:
            images = replace(images, split=found.confirmation.split)
        print_verdict(found.verdict, _next(found, models or [], inputs, network, knobs, images, evaluation))
    if folder is not None:  # last, so that no scores are lost where it fails
        for path in hf_lwmm.save_sweep_plots(found.records(), folder, found.metric):
            note(f"Drew {path}")


def _is_news(advice: hf_lwmm.Advice, methods: tuple[str, ...] | None) -> bool:
    """True if the target was named, auto is among the methods to try, or nobody chose these."""
    if advice.known.target is not None:
        return True
    return "auto" in methods if methods is not None else advice.method != hf_lwmm.Layerwise.name


def _print(found: hf_lwmm.SweepReport) -> None:
    say(found.summary)
    say()
    print_table(found.header, found.cells(), text=1)
    say()
    if found.key:
        say(found.key)
    say(found.remarks)
    if found.skipped:
        say(f"Skipped ({len(found.skipped)}):")
    for reason, names in found.skipped_by_reason().items():
        say(f"  {reason} ({'; '.join(names)})")
    say(f"Written to {found.output}")


def _next(
    found: hf_lwmm.SweepReport,
    models: list[str],
    inputs: hf_lwmm.MergeInputs,
    network: hf_lwmm.NetworkOptions,
    fixed: hf_lwmm.Knobs,
    images: hf_lwmm.ImageSource,
    evaluation: hf_lwmm.EvaluationSpec,
) -> str:
    """The command that follows from the verdict, for a merge with its scores on `images`; empty if none does."""
    if found.chosen is None:
        return ""
    chosen = found.chosen.candidate
    if chosen.knobs is None:
        segments = found.task in ("semantic", "panoptic")
        return following(predict, models[chosen.anchor], "PICTURE", given=(network, fixed)) if segments else ""
    method, measurements = chosen.knobs.method, inputs.measurements
    recipe = hf_lwmm.Recipe(
        tuple(models[index] for index in chosen.models),
        models[chosen.anchor],
        chosen.knobs,
        base=str(inputs.base) if inputs.base and "base" in method.needs else None,
        measurements=tuple(str(measurements[index]) for index in chosen.models) if method.measured else (),
        system=network.system,
    )
    line = scoring_merge(hf_lwmm.merge_command(recipe), images, evaluation, network)
    return with_free_output(line, hf_lwmm.parse_ref(recipe.anchor).merge_name)
