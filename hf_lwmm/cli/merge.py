"""`hf-lwmm merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import note, print_json, warn
from hf_lwmm.progress import progress_bar

if TYPE_CHECKING:
    from hf_lwmm.planning.recipe import Recipe

EXAMPLES = """Examples:

hf-lwmm merge org/a org/b --anchor org/a --output merged

hf-lwmm merge org/a@v1 org/b:latest.pth --anchor org/a@v1 --push org/merged --private

hf-lwmm merge a.pth b.pth --start 0.5 --ramp cosine --dry-run

hf-lwmm merge org/a org/b --method adaptive --tune-data org/cityscapes --bn recalibrate --bn-data org/cityscapes

hf-lwmm merge --recipe hf_lwmm.yaml"""


def merge(
    context: typer.Context,
    models: options.Models = None,
    anchor: options.Anchor = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder to write; <anchor>-lwmm if nothing is pushed.", show_default=False),
    ] = None,
    push: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="[REPO]", help="Push to the Hub, to <user>/<anchor>-lwmm if no REPO follows.", show_default=False
        ),
    ] = None,
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    revision: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Branch to push to.", show_default=False),
    ] = None,
    commit_message: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Message of the commit.", show_default=False),
    ] = None,
    license: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Licence to state instead of the one that follows from the parents'.", show_default=False),
    ] = None,
    recipe: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Read models, anchor and knobs from a file such as hf_lwmm.yaml.", show_default=False),
    ] = None,
    evaluate: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="DATASET", help="Score merge and parents on it, into the card.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="With --evaluate: the split.")] = "validation",
    config: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="With --evaluate, --tune-data and --bn-data: which of the data set's configurations.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="With --evaluate and greedy-soup: the classes to score, as for evaluate.", show_default=False
        ),
    ] = None,
    ids: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --evaluate and greedy-soup: the raw ids of the label files.", show_default=False),
    ] = None,
    limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="With --evaluate: only so many images.", show_default=False),
    ] = None,
    examples: Annotated[
        int, typer.Option(min=0, help="With --evaluate: draw so many images where merge and anchor differ most.")
    ] = 0,
    system: options.System = None,
    device: options.Device = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output folder.")] = False,
    allow_nonfinite: Annotated[bool, typer.Option("--allow-nonfinite", help="Merge infinities and NaNs too.")] = False,
    max_shard_size: Annotated[str, typer.Option(help="Split larger weights over several files.")] = "50GB",
    start: options.Start = 0.0,
    alpha: options.Alpha = None,
    ramp: options.Ramp = "linear",
    granularity: options.Granularity = "parameter",
    order: options.Order = "depth",
    share: options.Share = "all",
    head: options.Head = "shared",
    dtype: options.Dtype = None,
    branch: options.Branch = "student",
    keep: options.Keep = None,
    labels: options.Labels = None,
    method: options.Method = "layerwise",
    set_option: options.Set = None,
    bn: options.Bn = "linear",
    permute: options.Permute = False,
    base: options.Base = None,
    statistics: options.Statistics = None,
    tune_data: options.TuneData = None,
    tune_split: options.TuneSplit = None,
    tune_limit: options.TuneLimit = None,
    bn_data: options.BnData = None,
    bn_split: options.BnSplit = None,
    bn_limit: options.BnLimit = None,
    as_json: options.Json = False,
) -> None:
    """Merge two or more models layer by layer, into a folder or straight to the Hub."""
    import hf_lwmm
    from hf_lwmm.cli.plan import note_undecided
    from hf_lwmm.cli.tables import print_plan

    what: dict[str, Any] = {"models": models or [], "anchor": anchor, "base": base, "statistics": statistics or []}
    what |= {"tuning": None, **options.knobs_of(context)}
    recorded = None
    if recipe is not None:
        from hf_lwmm.api.merge import load_recipe

        recorded = load_recipe(recipe)
        what = _with_recipe(context, recorded, what)
    if dry_run:
        decided = hf_lwmm.plan(**what)
        print_plan(decided, as_json=as_json)
        note_undecided(decided)
        note("Dry run: nothing was merged.")
        return
    network, rows = {"system": system, "device": device}, {"config": config}
    labels_read = {"protocol": protocol, "ids": ids}
    bn_options = {"split": bn_split, "limit": bn_limit, **rows, **network}
    bn_options = {name: value for name, value in bn_options.items() if value is not None}
    bn_images: dict[str, Any] = {"bn_data": bn_data, "bn_options": bn_options}
    if recorded and what["bn"] == "recalibrate" and bn_data is None and (seen := recorded.bn_images):
        bn_images = {"bn_data": seen["bn_data"], "bn_options": seen["bn_options"] | bn_options}
    with progress_bar() as progress:
        result = hf_lwmm.merge(
            output=output,
            push=push or push is not None,
            private=private,
            create_pr=create_pr,
            revision=revision,
            commit_message=commit_message,
            license=license,
            overwrite=overwrite,
            allow_nonfinite=allow_nonfinite,
            max_shard_size=_bytes(max_shard_size),
            evaluate=evaluate,
            evaluation={
                "split": split,
                "limit": limit,
                "examples": examples,
                **rows,
                **labels_read,
                **network,
            },
            tune_data=tune_data,
            tune_options={"split": tune_split, "limit": tune_limit, **rows, **labels_read, **network},
            **bn_images,
            progress=progress,
            **what,
        )
    for text in result.notes:
        note(text)
    for warning in result.warnings:
        warn(warning)
    alignment, pushed = result.plan.alignment, result.pushed
    if as_json:
        print_json(
            {
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
        )
        return
    part, count = alignment.shared_parameters / alignment.anchor_parameters, len(result.recipe.models)
    print(f"Merged {count} models at {alignment.positions} depth positions; {part:.1%} of the weights are shared.")
    if report := result.evaluation:
        for model in report.models:
            print(f"  {model.name}: {100 * model.mean:.2f} {report.metric.name}")
    if result.folder:
        print(f"Written to {result.folder}")
    if pushed and not pushed.changed:
        print(f"{pushed.url} holds exactly this already; nothing was pushed.")
    elif pushed:
        print(f"Pushed to {pushed.pull_request or pushed.url}")


def _with_recipe(context: typer.Context, recipe: Recipe, what: dict[str, Any]) -> dict[str, Any]:
    """Fill what the command line does not say from a recipe."""
    named = {"options": "set_option"}
    given = {n for n in what if getattr(context.get_parameter_source(named.get(n, n)), "name", "") == "COMMANDLINE"}
    recorded = {**vars(recipe.knobs), **{name: getattr(recipe, name) for name in ("models", "base", "statistics")}}
    recorded["anchor"] = None if what["models"] else recipe.anchor
    recorded["tuning"] = recipe.tuning if given <= {"dtype", "bn"} else None  # of another merge it means nothing
    return {name: value if name in given else recorded[name] for name, value in what.items()}


def _bytes(size: str) -> int:
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    number, unit = size[:-2].strip(), size[-2:].upper()
    if unit not in units or not number.replace(".", "", 1).isdigit() or float(number) <= 0:
        raise typer.BadParameter(f"--max-shard-size {size}: write a size such as 5GB or 500MB.")
    return int(float(number) * units[unit])
