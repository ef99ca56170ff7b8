"""Arguments and options that several commands share and that belong to no class of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import click

import hf_lwmm
from hf_lwmm.cli.expand import completed
from hf_lwmm.cli.help import ADVANCED, option
from hf_lwmm.errors import PlanError
from hf_lwmm.options import declarations, parsed

_BRANCH = declarations(hf_lwmm.Knobs)["branch"]
_TARGET = declarations(hf_lwmm.MergeInputs)["target"]
PORT = 8765  # of local Hubs
SWEPT = "sweep.parquet"  # a sweep's results, unless --output names another file
USUAL_IMAGES = ("data", "split", "ids", "limit")  # the options of images that a short help shows
MODEL = "org/name[@revision][:file[+file]], or a local path."
# A path, and a path or a repository; whether they exist is checked where they are used.
PATH = click.Path(readable=False, path_type=Path)
PLACE = click.Path(readable=False)

models = click.argument("models", nargs=-1, type=PLACE, help=MODEL)
anchor = option(
    "--anchor", metavar="MODEL|NUMBER", help="Gives task, head and layout.  [default: the first]", panel="Models"
)
method = option(
    "--method",
    metavar="NAME",
    help="As in `hf-lwmm methods`, or auto.  [default: layerwise]",
    panel="Method",
    shell_complete=completed(lambda: ["auto", *(method.name for method in hf_lwmm.list_methods())]),
)
method_option = option(
    "--option",
    metavar="NAME=VALUE",
    multiple=True,
    help="Option of the method: density=0.2, ... Repeatable.",
    panel="Method",
)
base = option("--base", metavar="MODEL", help="Pre-training of all models, for methods that need it.", panel=ADVANCED)
target = option(
    "--target",
    metavar="|".join(_TARGET.choices),
    help=_TARGET.help,
    panel=ADVANCED,
    shell_complete=completed(_TARGET.choices),
)
measurements = option(
    "--measurements",
    metavar="FILE",
    multiple=True,
    help="Measurements of a model (fisher, regmean); one file for each model, in their order.",
    panel=ADVANCED,
)
branch = option("--branch", default="student", metavar=_BRANCH.metavar, help=_BRANCH.help, panel="Models")
overwrite = option("--overwrite/--no-overwrite", show_default=False, help="Replace an existing output.", panel="Output")
port = option("--port", type=int, default=PORT, help="Port of the Hub on 127.0.0.1; 0 is any free one.")
as_json = option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


def chosen_method(
    name: str | None, options: Sequence[str], layerwise: Mapping[str, Any], recorded: hf_lwmm.Method | None = None
) -> hf_lwmm.Method:
    """Return the method that a command line chooses, beginning from a recorded one.

    `options` are texts NAME=VALUE, and `layerwise` are the given ones of --start, --alpha and --ramp.

    Raises:
        PlanError: for an unknown method or option, or a value out of range.
    """
    recorded = recorded or hf_lwmm.Layerwise()
    method = recorded if name in (None, recorded.name) else hf_lwmm.Knobs(method=name).method  # type: ignore[arg-type]
    if layerwise and not isinstance(method, hf_lwmm.Layerwise):
        raise PlanError(
            f"--{next(iter(layerwise))} is an option of layerwise; --method {method.name} has other options."
        )
    given = {**layerwise, **_values(options, type(method))}
    known = type(method).read(given, f"--method {method.name}")
    return replace(method, **{option: getattr(known, option) for option in given})  # type: ignore[type-var]


def _values(options: Sequence[str], method: type[hf_lwmm.Method]) -> dict[str, Any]:
    """The values of texts NAME=VALUE, in the types of a method's options."""
    found: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise PlanError(f"--option {text}: write NAME=VALUE, such as density=0.2.")
        found[name] = parsed(value, get_type_hints(method).get(name))
    return found
