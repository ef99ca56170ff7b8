"""`hf-lwmm sweep`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.expand import Given, Group
from hf_lwmm.cli.following import following, scoring_merge, with_free_output
from hf_lwmm.cli.help import option
from hf_lwmm.cli.terminal import note, notes, print_json, print_table, print_verdict, progress_bar, say

EXAMPLES = """Examples:

hf-lwmm sweep org/a org/b org/c --data org/cityscapes --protocol cityscapes19 --ensemble

hf-lwmm sweep a.pth b.pth --data cityscapes/ --split val --methods layerwise,isotropic --start 0,0.25,0.5

hf-lwmm sweep org/a org/b --data org/cityscapes --methods ties,dare --base org/mit-b5 --option density=0.2,0.5

hf-lwmm sweep org/a org/b --data org/cityscapes --search 50 --jobs 4"""


@command(EXAMPLES)
@Group(
    "axes",
    hf_lwmm.SweepAxes,
    "Method",
    usual=("subsets", "anchors", "methods", "start", "bn_stats", "options", "ensemble"),
    partial=True,
)
@Group("fixed", hf_lwmm.Knobs, "Method", usual=(), skip=("bn_stats", "bn_mix", "dtype"), partial=True)
@Group(
    "images", hf_lwmm.ImageSource, "Evaluation", usual=options.USUAL_IMAGES, shown={"split": "validation"}, key="data"
)
@Group("evaluation", hf_lwmm.EvaluationSpec, "Evaluation", usual=("protocol",), skip=("ensemble", "examples"))
@Group("network", hf_lwmm.NetworkOptions, "Evaluation", usual=(), skip=("labels", "branch"))
@Group("run", hf_lwmm.SweepRun, "Method", usual=())
@options.models
@option(
    "--output", type=options.PATH, default=Path(options.SWEPT), help="Parquet file, also to go on with.", panel="Output"
)
@options.base
@options.target
@options.measurements
@option("--report", type=options.PATH, help="Also write the ranked table here, as .json or .md.", panel="Output")
@option(
    "--plot", type=options.PATH, metavar="FOLDER", help="Draw scores by subset and anchor, and by knob.", panel="Output"
)
@option(
    "--overwrite/--no-overwrite", show_default=False, help="Replace an existing --report, and plots.", panel="Output"
)
@options.as_json
def sweep(
    axes: Given,
    fixed: Given,
    images: hf_lwmm.ImageSource | None,
    evaluation: hf_lwmm.EvaluationSpec,
    network: hf_lwmm.NetworkOptions,
    run: hf_lwmm.SweepRun,
    models: tuple[str, ...],
    output: Path,
    base: str | None,
    target: str | None,
    measurements: tuple[str, ...],
    report: Path | None,
    plot: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Merge and score many combinations, and rank them.

    The combinations are of models, anchors, methods and knobs.
    """
    if images is None:
        raise hf_lwmm.PlanError("--data is missing: org/name on the Hub, or a folder of images and labels.")
    knobs = hf_lwmm.Knobs(**fixed)
    inputs = hf_lwmm.MergeInputs(base=base, measurements=measurements, target=target)
    read: tuple[Any, ...] = (*models, inputs, images, knobs, evaluation)
    place = hf_lwmm.check_report_name(report, *read, overwrite=overwrite) if report is not None else None
    folder = hf_lwmm.check_sweep_plots(plot, *read, overwrite=overwrite) if plot is not None else None
    with progress_bar() as progress:
        found = hf_lwmm.sweep(
            models,
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
        print_verdict(found.verdict, _next(found, models, inputs, network, knobs, images, evaluation))
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
    models: tuple[str, ...],
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
        return following("predict", models[chosen.anchor], "PICTURE", given=(network, fixed)) if segments else ""
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
