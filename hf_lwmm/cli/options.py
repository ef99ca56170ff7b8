"""Arguments and options that several commands share and that belong to no class of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Optional, get_type_hints

import typer

import hf_lwmm
from hf_lwmm.cli.expand import completed
from hf_lwmm.cli.help import ADVANCED
from hf_lwmm.errors import PlanError
from hf_lwmm.options import declarations, parsed

_BRANCH = declarations(hf_lwmm.Knobs)["branch"]
_TARGET = declarations(hf_lwmm.MergeInputs)["target"]
PORT = 8765  # of local Hubs
USUAL_IMAGES = ("data", "split", "ids", "limit")  # the options of images that a short help shows
MODEL = "org/name[@revision][:file[+file]], or a local path."

Models = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads it at run time, also on Python 3.10)
    typer.Argument(help=MODEL, show_default=False, rich_help_panel="Models"),
]
Anchor = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="MODEL|NUMBER",
        help="Gives task, head and layout.  [default: the first]",
        show_default=False,
        rich_help_panel="Models",
    ),
]
MethodName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--method",
        metavar="NAME",
        help="As in `hf-lwmm methods`, or auto.  [default: layerwise]",
        show_default=False,
        rich_help_panel="Method",
        autocompletion=lambda: ["auto", *(method.name for method in hf_lwmm.list_methods())],
    ),
]
MethodOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Option of the method: density=0.2, ... Repeatable.",
        rich_help_panel="Method",
    ),
]
Base = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="MODEL",
        help="Pre-training of all models, for methods that need it.",
        show_default=False,
        rich_help_panel=ADVANCED,
    ),
]
Target = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="|".join(_TARGET.choices),
        help=_TARGET.help,
        show_default=False,
        rich_help_panel=ADVANCED,
        autocompletion=completed(_TARGET.choices),
    ),
]
Measurements = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        metavar="FILE",
        help="Measurements of a model (fisher, regmean); one file for each model, in their order.",
        rich_help_panel=ADVANCED,
    ),
]
Branch = Annotated[str, typer.Option(metavar=_BRANCH.metavar, help=_BRANCH.help, rich_help_panel="Models")]
Overwrite = Annotated[
    bool, typer.Option(help="Replace an existing output.", show_default=False, rich_help_panel="Output")
]
Port = Annotated[int, typer.Option(help="Port of the Hub on 127.0.0.1; 0 is any free one.")]
License = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="License to state in place of the source's.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


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
