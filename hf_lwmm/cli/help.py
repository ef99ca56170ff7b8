"""Show a command's help as plain text, its options in panels."""

from __future__ import annotations

from functools import partial
from itertools import takewhile
from typing import Any

import click
from click.shell_completion import CompletionItem

ADVANCED = "Advanced"
PANELS = ("Models", "Method", "BatchNorm", "Evaluation", "Output", "Hub", "Options", ADVANCED)
SHOWING_ALL = "hf_lwmm.help_all"  # a key of a context's `meta`
_EXAMPLES = 2  # shown where the help is short
_METAVARS = {"integer": "N", "integer range": "N", "float": "NUMBER", "float range": "NUMBER"}


class Option(click.Option):
    """An option that stands in a panel of the help; where no values are known, a shell completes it to files.

    With `bare` it may stand without a value, and has that one then.
    """

    def __init__(self, *declarations: Any, panel: str = "Options", bare: Any = None, **settings: Any) -> None:
        if bare is not None:
            settings |= {"is_flag": False, "flag_value": bare}
        super().__init__(*declarations, **settings)
        self.panel, self.bare = panel, bare
        self.metavar = self.metavar or _METAVARS.get(self.type.name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the values that fit, or ask the shell for files."""
        return super().shell_complete(ctx, incomplete) or [CompletionItem(incomplete, type="file")]


option = partial(click.option, cls=Option)


class GroupedCommand(click.Command):
    """A command whose help lists its options by panel; those of the panel "Advanced" are counted unless asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments. Raises UsageError for `--push=-x`, which click would read as `--push -x`."""
        options = (each for each in self.params if isinstance(each, Option) and each.bare is not None)
        bare = {flag for each in options for flag in each.opts}
        for name, _, value in (arg.partition("=") for arg in takewhile(lambda arg: arg != "--", args)):
            if name in bare and value.startswith("-") and not ctx.resilient_parsing:
                raise click.BadOptionUsage(name, f"Option {name!r} takes no value that begins with a dash.", ctx)
        return super().parse_args(ctx, args)

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: arguments stand in the panel of the models."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments and options, panel by panel."""
        panels: dict[str, list[tuple[str, str]]] = {title: [] for title in PANELS}
        for parameter in sorted(self.get_params(ctx), key=lambda each: isinstance(each, click.Option)):
            if (record := parameter.get_help_record(ctx)) is not None:
                name, help = record
                if parameter.default is not True:  # of a switch that is on, the negation is what one needs
                    name = name.partition(" / ")[0]
                title = "Models" if isinstance(parameter, click.Argument) else panel_of(parameter)
                panels[title].append((name, help))
        if panels[ADVANCED] and not ctx.meta.get(SHOWING_ALL):
            advanced = panels.pop(ADVANCED)
            panels["Options"].append(("--help-all", f"Show {len(advanced)} advanced options, and all examples."))
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=34)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples unwrapped, so that they can be copied; the first ones where the help is short."""
        if self.epilog:
            title, *examples = self.epilog.split("\n\n")
            if any(panel_of(each) == ADVANCED for each in self.params) and not ctx.meta.get(SHOWING_ALL):
                examples = examples[:_EXAMPLES]
            formatter.write_paragraph()
            formatter.write(f"{title}\n" + "".join(f"  {example}\n" for example in examples))


def panel_of(parameter: click.Parameter) -> str:
    """Return the title under which the help shows an option."""
    return parameter.panel if isinstance(parameter, Option) else "Options"
