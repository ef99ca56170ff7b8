"""`hf-lwmm plan`."""

from __future__ import annotations

from pathlib import Path

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.expand import Given, Group
from hf_lwmm.cli.help import option
from hf_lwmm.cli.tables import note_plan, print_plan
from hf_lwmm.cli.terminal import note

EXAMPLES = """Examples:

hf-lwmm plan org/a org/b --anchor org/a

hf-lwmm plan org/a org/b --ramp cosine --json"""


@command(EXAMPLES)
@Group("knobs", hf_lwmm.Knobs, "Method", usual=("head", "labels"), panels={"labels": "Models"}, partial=True)
@options.method
@options.method_option
@options.base
@options.target
@options.measurements
@Group("layerwise", hf_lwmm.Layerwise, "Method", usual=("start", "ramp"), partial=True)
@Group(
    "network",
    hf_lwmm.NetworkOptions,
    "Method",
    usual=(),
    skip=("labels", "branch", "system", "device", "compute_dtype"),
)
@options.models
@options.anchor
@option("--plot", type=options.PATH, help="Draw the weights over depth (.png, .svg, .pdf).", panel="Output")
@options.overwrite
@option("--full", is_flag=True, help="Print every layer, however many.", panel="Output")
@options.as_json
def plan(
    knobs: Given,
    method: str | None,
    option: tuple[str, ...],
    base: str | None,
    target: str | None,
    measurements: tuple[str, ...],
    layerwise: Given,
    network: hf_lwmm.NetworkOptions,
    models: tuple[str, ...],
    anchor: str | None,
    plot: Path | None,
    overwrite: bool,
    full: bool,
    as_json: bool,
) -> None:
    """Print the layer table of a merge.

    It shows positions, slots, shapes and weights, and why the rest is not shared. Nothing is merged.
    """
    inputs = hf_lwmm.MergeInputs(base=base, measurements=measurements, target=target, network=network)
    own = hf_lwmm.Knobs(method=options.chosen_method(method, option, layerwise), **knobs)
    place = None
    if plot is not None:
        place = hf_lwmm.check_picture_name(plot, *models, own, inputs, overwrite=overwrite)
    decided = hf_lwmm.plan(models, anchor, knobs=own, inputs=inputs)
    print_plan(decided, as_json=as_json, full=full)
    note_plan(decided)
    if place is not None:
        hf_lwmm.plot_layer_weights(decided, place)
        note(f"Drew {place.path}")
