"""`hf-lwmm plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import note

if TYPE_CHECKING:
    from hf_lwmm.planning.plan import MergePlan

EXAMPLES = """Examples:

hf-lwmm plan org/a org/b --anchor org/a

hf-lwmm plan org/a org/b --ramp cosine --json"""


def plan(
    context: typer.Context,
    models: options.Models = None,
    anchor: options.Anchor = None,
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
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Draw the weights over depth (.png, .svg, .pdf).", show_default=False),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print every layer, however many.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print the layer table of a merge: position, slot, shape and weights, and why other tensors are not shared."""
    import hf_lwmm
    from hf_lwmm.cli.tables import print_plan
    from hf_lwmm.publishing.plots import plot_layer_weights
    from hf_lwmm.publishing.plots.style import check_suffix

    if plot is not None:
        check_suffix(plot)
    knobs = options.knobs_of(context)
    decided = hf_lwmm.plan(models or [], anchor=anchor, base=base, statistics=statistics or [], **knobs)
    print_plan(decided, as_json=as_json, full=full)
    note_undecided(decided)
    if plot is not None:
        plot_layer_weights(decided, plot)
        note(f"Drew {plot}")


def note_undecided(plan: MergePlan) -> None:
    """Say of weights that a plan does not have that they come later, and of what."""
    if plan.undecided:
        labels = "labelled" if "labels" in plan.method.needs else "unlabelled"
        note(f"{plan.method.name} decides the weights on {labels} images (--tune-data) when it merges.")
