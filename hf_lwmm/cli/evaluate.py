"""`hf-lwmm evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.expand import Group
from hf_lwmm.cli.following import following, repository_name, scoring_merge
from hf_lwmm.cli.help import option
from hf_lwmm.cli.terminal import note, notes, print_json, print_table, print_verdict, progress_bar, say
from hf_lwmm.text import operand, shell_line

EXAMPLES = """Examples:

hf-lwmm evaluate org/merged org/a org/b --data org/cityscapes --protocol cityscapes19

hf-lwmm evaluate a.pth b.pth --data cityscapes/ --split val --labels cityscapes19 --ensemble --flip

accelerate launch --num_processes 4 -m hf_lwmm evaluate org/merged --data org/cityscapes"""


@command(EXAMPLES)
@Group(
    "images",
    hf_lwmm.ImageSource,
    "Evaluation",
    usual=(*options.USUAL_IMAGES, "ignore_index"),
    shown={"split": "validation"},
    key="data",
)
@Group("evaluation", hf_lwmm.EvaluationSpec, "Evaluation", usual=("protocol", "ensemble", "flip", "examples"))
@Group("network", hf_lwmm.NetworkOptions, "Models", usual=("labels", "device"), panels={"device": "Evaluation"})
@options.models
@option(
    "--plot", type=options.PATH, metavar="FOLDER", help="Draw scores by class, confusions and examples.", panel="Output"
)
@option("--output", type=options.PATH, help="Also write the report here, as .json or .md.", panel="Output")
@options.overwrite
@options.as_json
def evaluate(
    images: hf_lwmm.ImageSource | None,
    evaluation: hf_lwmm.EvaluationSpec,
    network: hf_lwmm.NetworkOptions,
    models: tuple[str, ...],
    plot: Path | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Score models on a labelled data set.

    The first model is the anchor that the others are compared with. Merges are compared with the best parent, too.
    """
    if images is None:
        raise hf_lwmm.PlanError("--data is missing: org/name on the Hub, or a folder of images and labels.")
    if evaluation.examples and plot is None:
        raise hf_lwmm.PlanError("--examples draws into a folder: name it with --plot FOLDER.")
    read: tuple[Any, ...] = (*models, images, evaluation, network)
    target = hf_lwmm.check_report_name(output, *read, overwrite=overwrite) if output is not None else None
    folder = hf_lwmm.check_score_plots(plot, *read, overwrite=overwrite) if plot is not None else None
    with progress_bar() as progress:
        found = hf_lwmm.evaluate(models, images, evaluation=evaluation, network=network, progress=progress)
    if found is None:
        return  # another process answers
    notes(found.notes)
    if target is not None:
        hf_lwmm.save_report(found, target)
        note(f"Wrote {output}")
    if as_json:
        print_json(found.to_dict())
    else:
        say(found.summary)
        say()
        print_table(*found.of_models())
        say()
        print_table(*found.of_classes(), named=True)
        say()
        say(f"{found.images_per_second:.2f} images/s")
        print_verdict(found.verdict, _next(found, models, network, images, evaluation))
    if folder is not None:  # last, so that no scores are lost where it fails
        for path in (*hf_lwmm.save_score_plots(found, folder), *hf_lwmm.save_examples(found, folder)):
            note(f"Drew {path}")


def _next(
    found: hf_lwmm.EvaluationReport,
    models: tuple[str, ...],
    network: hf_lwmm.NetworkOptions,
    images: hf_lwmm.ImageSource,
    evaluation: hf_lwmm.EvaluationSpec,
) -> str:
    """The command that follows from the verdict; empty if none does."""
    if found.verdict is None:
        return ""
    chosen = models[[model.name for model in found.models].index(found.verdict.model)]
    done = hf_lwmm.finished_merge(Path(chosen)) if found.verdict.merged and Path(chosen).is_dir() else None
    if done is not None:
        name = repository_name(Path(chosen))
        if done.is_scored or done.recipe.converted is not None:
            return following("push", chosen, name)
        again = _merge_again(Path(chosen), done.recipe, models)  # its card says that nobody scored it; this scores it
        return scoring_merge(again, images, evaluation, network, "--push", name)
    segments = found.metric.task in ("semantic", "panoptic")
    return following("predict", chosen, "PICTURE", given=(network,)) if segments else ""


def _merge_again(folder: Path, recipe: hf_lwmm.Recipe, models: tuple[str, ...]) -> str:
    """The line that makes a merge once more, with a note if it names what was local and is not among the models."""
    if not recipe.local:
        return shell_line(["hf-lwmm", "merge", "--recipe", operand(str(folder))])
    places = {name: str(ref) for name, ref in hf_lwmm.known_local_models(recipe, models).items()}
    images = [each for each in (recipe.tuning and recipe.tuning.images, recipe.bn_images) if each and each.local]
    if lost := [name for name in (*recipe.local, *(each.data for each in images)) if name not in places]:
        note(f"{folder}: its recipe has no places on this machine. Put them into the command: of {', '.join(lost)}")
    parents = tuple(places.get(model, model) for model in recipe.models)
    anchor, base = places.get(recipe.anchor, recipe.anchor), recipe.base and places.get(recipe.base, recipe.base)
    return hf_lwmm.merge_command(replace(recipe, models=parents, anchor=anchor, base=base))
