"""`hf-lwmm plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.expand import Given, Group
from hf_lwmm.cli.tables import note_plan, print_plan
from hf_lwmm.cli.terminal import note

EXAMPLES = """Examples:

hf-lwmm plan org/a org/b --anchor org/a

hf-lwmm plan org/a org/b --ramp cosine --json"""


def plan(
    *,
    knobs: Annotated[
        Given,
        Group(
            "Method",
            usual=("head", "labels"),
            panels={"labels": "Models"},
            options=hf_lwmm.Knobs,
        ),
    ],
    method: options.MethodName = None,
    option: options.MethodOption = None,
    base: options.Base = None,
    target: options.Target = None,
    measurements: options.Measurements = None,
    layerwise: Annotated[Given, Group("Method", usual=("start", "ramp"), options=hf_lwmm.Layerwise)],
    network: Annotated[
        hf_lwmm.NetworkOptions,
        Group("Method", usual=(), skip=("labels", "branch", "system", "device", "compute_dtype")),
    ],
    models: options.Models = None,
    anchor: options.Anchor = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Draw the weights over depth (.png, .svg, .pdf).", show_default=False, rich_help_panel="Output"
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    full: Annotated[
        bool, typer.Option("--full", help="Print every layer, however many.", rich_help_panel="Output")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Print the layer table of a merge.

    It shows positions, slots, shapes and weights, and why the rest is not shared. Nothing is merged.
    """
    inputs = hf_lwmm.MergeInputs(base=base, measurements=tuple(measurements or ()), target=target, network=network)
    own = hf_lwmm.Knobs(method=options.chosen_method(method, option or (), layerwise), **knobs)
    read = (*(models or ()), own, inputs)
    place = hf_lwmm.check_picture_name(plot, *read, overwrite=overwrite) if plot is not None else None
    decided = hf_lwmm.plan(models or [], anchor, knobs=own, inputs=inputs)
    print_plan(decided, as_json=as_json, full=full)
    note_plan(decided)
    if place is not None:
        hf_lwmm.plot_layer_weights(decided, place)
        note(f"Drew {place.path}")
