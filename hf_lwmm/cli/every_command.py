"""Make commands, with the options that every command has."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import click

from hf_lwmm.cli.help import SHOWING_ALL, GroupedCommand, option
from hf_lwmm.cli.terminal import be_quiet
from hf_lwmm.options import check_environment


def command(examples: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a command with `--quiet` and `--help-all`, of which its function learns nothing."""

    def made(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(**given: object) -> None:
            check_environment()
            function(**given)

        return _help_all(_quiet(click.command(cls=GroupedCommand, epilog=examples)(run)))

    return made


def _show_all(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.meta[SHOWING_ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()


_quiet = option(
    "--quiet",
    "-q",
    is_flag=True,
    callback=lambda ctx, parameter, wanted: be_quiet(wanted),
    expose_value=False,
    help="Print the answer, warnings and errors alone.",
)
_help_all = option("--help-all", is_flag=True, callback=_show_all, is_eager=True, expose_value=False, hidden=True)
