"""Add the options that every command has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from hf_lwmm.cli.help import SHOWING_ALL
from hf_lwmm.cli.terminal import be_quiet
from hf_lwmm.options import check_environment


def with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that also has `--quiet` and `--help-all`, of which its function learns nothing."""
    signature = inspect.signature(command, eval_str=True)
    common = inspect.signature(_common, eval_str=True).parameters
    parameters = [*signature.parameters.values(), *common.values()]

    def run(**given: object) -> None:
        check_environment()
        command(**{name: value for name, value in given.items() if name not in common})

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _show_all(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        ctx.meta[SHOWING_ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


def _common(
    *,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", callback=be_quiet, expose_value=False, help="Print the answer, warnings and errors alone."
        ),
    ] = False,
    help_all: Annotated[
        bool, typer.Option("--help-all", callback=_show_all, is_eager=True, expose_value=False, hidden=True)
    ] = False,
) -> None: ...
