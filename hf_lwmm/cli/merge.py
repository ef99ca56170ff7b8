"""`hf-lwmm merge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.expand import Given, Group
from hf_lwmm.cli.following import following, repository_name, with_free_output
from hf_lwmm.cli.help import option
from hf_lwmm.cli.tables import note_plan, print_plan
from hf_lwmm.cli.terminal import (
    note,
    notes,
    print_json,
    print_pushed,
    print_table,
    print_verdict,
    progress_bar,
    say,
    warn,
)
from hf_lwmm.options import naming_with_prefix

EXAMPLES = """Examples:

hf-lwmm merge org/a org/b --anchor org/a --output merged

hf-lwmm merge org/a@v1 org/b:latest.pth --push org/merged --private

hf-lwmm merge a.pth b.pth --start 0.5 --ramp cosine --dry-run

hf-lwmm merge org/a org/b --method adaptive --tune-data org/cityscapes --bn-stats recalibrate --bn-data org/cityscapes

hf-lwmm merge --recipe hf_lwmm.yaml"""


# Knobs that layer weights do not depend on.
_OF_FILES: dict[str, Any] = {"dtype": None, "bn_stats": "linear", "bn_mix": None}
_TUNE_SPLIT = {"split": "train; validation if the method needs labels"}


@command(EXAMPLES)
@Group("knobs", hf_lwmm.Knobs, "Method", usual=("bn_stats",), panels={"bn_stats": "BatchNorm"}, partial=True)
@options.method
@options.method_option
@options.base
@options.target
@options.measurements
@Group("layerwise", hf_lwmm.Layerwise, "Method", usual=("start", "ramp"), partial=True)
@Group("writing", hf_lwmm.WriteOptions, "Output", usual=("overwrite",), partial=True)
@Group("push", hf_lwmm.PushOptions, "Hub", usual=("repo", "private"), key="repo")
@Group(
    "tune_images",
    hf_lwmm.ImageSource,
    "Method",
    "tune-",
    usual=(),
    shown=_TUNE_SPLIT,
    purposes={"data": "To decide weights on (adaptive, greedy-soup): "},
    key="data",
)
@Group(
    "bn_images",
    hf_lwmm.ImageSource,
    "BatchNorm",
    "bn-",
    usual=(),
    shown={"split": "train"},
    purposes={"data": "To recalibrate on: "},
    partial=True,
)
@Group(
    "eval_images",
    hf_lwmm.ImageSource,
    "Evaluation",
    "eval-",
    usual=("data",),
    shown={"split": "validation"},
    purposes={"data": "To score on: "},
    key="data",
)
@Group("evaluation", hf_lwmm.EvaluationSpec, "Evaluation", usual=("protocol",), skip=("ensemble",))
@Group("network", hf_lwmm.NetworkOptions, "Evaluation", usual=(), skip=("labels", "branch"))
@Group("reading", hf_lwmm.MergeInputs, "Hub", usual=(), skip=("target",), partial=True)
@options.models
@options.anchor
@option("--output", type=options.PATH, help="Folder to write; <anchor>-lwmm if nothing is pushed.", panel="Output")
@option("--recipe", type=options.PATH, help="Recipe (hf_lwmm.yaml) of what is not given here.", panel="Models")
@option("--dry-run", is_flag=True, help="Print the plan and write nothing.", panel="Output")
@options.as_json
def merge(
    knobs: Given,
    method: str | None,
    option: tuple[str, ...],
    base: str | None,
    target: str | None,
    measurements: tuple[str, ...],
    layerwise: Given,
    writing: Given,
    push: hf_lwmm.PushOptions | None,
    tune_images: hf_lwmm.ImageSource | None,
    bn_images: Given,
    eval_images: hf_lwmm.ImageSource | None,
    evaluation: hf_lwmm.EvaluationSpec,
    network: hf_lwmm.NetworkOptions,
    reading: Given,
    models: tuple[str, ...],
    anchor: str | None,
    output: Path | None,
    recipe: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Merge models layer by layer into a folder or a repository."""
    if recipe and output and any(_is_same(place, output) for place in (recipe, *recipe.resolve().parents)):
        relation = "is" if _is_same(recipe, output) else "holds"
        raise hf_lwmm.PlanError(f"{output} {relation} {recipe}, which the output is made of. Choose another output.")
    start = hf_lwmm.load_recipe(recipe) if recipe else hf_lwmm.Recipe(models, anchor or "")
    chosen = options.chosen_method(method, option, layerwise, start.knobs.method)
    if knobs.get("bn_stats", start.knobs.bn_stats) != "recalibrate":  # a recipe's mix means nothing to another choice
        knobs = {"bn_mix": None, **knobs}
    own = replace(start.knobs, **knobs, method=chosen)
    tuning = None if models or anchor or not _same_weights(own, start.knobs) else start.tuning
    inputs = hf_lwmm.MergeInputs(
        base=base or (start.base if "base" in chosen.needs else None),
        measurements=measurements or (start.measurements if chosen.measured else ()),
        tune_images=tune_images,
        bn_images=_bn_images(bn_images, start.inputs.bn_images if own.bn_stats == "recalibrate" else None),
        eval_images=eval_images,
        tuning=tuning,
        order=None if models or anchor or own.order != start.knobs.order else start.order,
        target=target,
        **reading,
    )
    inputs = replace(inputs, network=_with_recorded_system(network, start.system, inputs))
    if recipe and not models:
        start.check_told_apart(str(recipe))
    sources, wanted = models or start.models, anchor or (None if models else start.anchor)
    if push and push.repo and len(sources) == 1 and inputs.base is None:
        raise hf_lwmm.PlanError(
            f"--push took {push.repo} for the repository to push to, so that {sources[0]} alone is left to merge. Put "
            "--push behind the models."
        )
    if dry_run:
        decided = hf_lwmm.plan(sources, wanted, knobs=own, inputs=inputs)
        print_plan(decided, as_json=as_json)
        note_plan(decided)
        note("Dry run: nothing was merged.")
        return
    with progress_bar() as progress:
        result = hf_lwmm.merge(
            sources,
            wanted,
            knobs=own,
            inputs=inputs,
            output=output,
            writing=hf_lwmm.WriteOptions(**{**start.files.to_dict(), **writing}),
            push=push or False,
            evaluation=evaluation,
            progress=progress,
        )
    if recipe and not models:
        result = result.held_against(start)
    notes(result.notes)
    for warning in result.warnings:
        warn(warning)
    if as_json:
        print_json(_data(result))
    else:
        _print(result)
    print_pushed(result.pushed, quiet=as_json)
    if result.evaluation is not None and not as_json:
        print_verdict(result.evaluation.verdict, _next(result, sources, inputs, evaluation))


def _bn_images(given: Given, recorded: hf_lwmm.ImageSource | None) -> hf_lwmm.ImageSource | None:
    """Return the images of the given options, which replace those of a recipe."""
    with naming_with_prefix(hf_lwmm.ImageSource.flags(), "bn-"):
        if recorded is not None and "data" not in given:
            return replace(recorded, **given)
        given = {name: value for name, value in given.items() if value is not False}  # leaving out asks for nothing
        if given and "data" not in given:
            raise hf_lwmm.PlanError(f"{hf_lwmm.ImageSource.flag(next(iter(given)))} needs --data.")
        return hf_lwmm.ImageSource(**given) if given else None


def _with_recorded_system(
    given: hf_lwmm.NetworkOptions, recorded: str | None, inputs: hf_lwmm.MergeInputs
) -> hf_lwmm.NetworkOptions:
    """Return the given network options with the system that a recipe records."""
    runs = any((inputs.tune_images, inputs.bn_images, inputs.eval_images))
    if inputs.tuning is not None and not runs and (changed := given.changed().keys() - {"system"}):
        raise hf_lwmm.PlanError(f"{given.flag(min(changed))}: no network runs, since the recipe has the layer weights.")
    return replace(given, system=given.system or recorded)


def _is_same(file: Path, other: Path) -> bool:
    try:
        return file.samefile(other)
    except OSError:  # one of them is not there
        return False


def _same_weights(knobs: hf_lwmm.Knobs, recorded: hf_lwmm.Knobs) -> bool:
    """True if recorded layer weights are those of these knobs, too: they mean nothing to another merge."""
    return replace(knobs, **_OF_FILES) == replace(recorded, **_OF_FILES)


def _data(result: hf_lwmm.MergeResult) -> dict[str, object]:
    alignment, pushed = result.plan.alignment, result.pushed
    return {
        "models": list(result.recipe.models),
        "anchor": result.recipe.anchor,
        "positions": alignment.positions,
        "shared_parameters": alignment.shared_parameters,
        "anchor_parameters": alignment.anchor_parameters,
        "output": str(result.folder) if result.folder else None,
        "sha256": dict(result.recipe.output),
        "pushed": vars(pushed) if pushed else None,
        "warnings": list(result.warnings),
        "evaluation": result.evaluation.to_dict() if result.evaluation else None,
    }


def _print(result: hf_lwmm.MergeResult) -> None:
    alignment, count = result.plan.alignment, len(result.recipe.models)
    part = alignment.shared_parameters / max(alignment.anchor_parameters, 1)
    models = f"{count} models" if count > 1 else "1 model"
    say(f"Merged {models} at {alignment.positions} depth positions; {part:.1%} of the weights are shared.")
    if report := result.evaluation:
        say()
        print_table(*report.of_models())
        say()
    if result.folder:
        say(f"Written to {result.folder}")


def _next(
    result: hf_lwmm.MergeResult,
    models: Sequence[str],
    inputs: hf_lwmm.MergeInputs,
    evaluation: hf_lwmm.EvaluationSpec,
) -> str:
    """The command that follows from the verdict: the other merges if the merge is not to be used."""
    assert result.evaluation is not None
    assert inputs.eval_images is not None
    verdict, segments = result.evaluation.verdict, result.evaluation.metric.task in ("semantic", "panoptic")
    knobs = replace(result.recipe.knobs, labels=result.plan.knobs.labels)  # of own code, too, which no recipe has
    if verdict is not None and not verdict.merged and len(models) > 1:
        axes = hf_lwmm.SweepAxes(methods=("layerwise", "isotropic"))  # between which advice chooses
        line = following("sweep", *models, given=(axes, inputs.eval_images, evaluation, inputs.network, knobs))
        return with_free_output(line, options.SWEPT)
    if result.folder is not None and result.pushed is None:
        return following("push", result.folder, repository_name(result.folder))
    if not segments:
        return ""
    where = result.folder or (result.pushed.ref if result.pushed else "")
    return following("predict", where, "PICTURE", given=(inputs.network, knobs))
