"""Show a command's help as plain text, its options in panels. Rich would draw boxes and take most of the time."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

ADVANCED = "Advanced"
PANELS = ("Models", "Method", "BatchNorm", "Evaluation", "Output", "Hub", "Options", ADVANCED)
SHOWING_ALL = "hf_lwmm.help_all"  # a key of a context's `meta`
_EXAMPLES = 2  # shown where the help is short
# What stands for a value of a type, which typer writes as <str>, <list[str]> or <int range>.
_VALUES = {"str": "TEXT", "path": "PATH", "Path": "PATH", "int": "N", "float": "NUMBER"}
_TYPE = re.compile(rf"<(?:list\[)?({'|'.join(_VALUES)})\]?(?: range)?>")
_NEGATION = re.compile(r" / --no-[\w-]+$")


class GroupedCommand(TyperCommand):
    """A command whose help lists its options by panel; those of the panel "Advanced" are counted unless asked for."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, panel by panel."""
        panels: dict[str, list[tuple[str, str]]] = {title: [] for title in PANELS}
        for parameter in sorted(self.get_params(ctx), key=lambda each: each.param_type_name != "argument"):
            if (record := parameter.get_help_record(ctx)) is not None:
                name = _TYPE.sub(lambda found: _VALUES[found[1]], record[0])
                if parameter.default is not True:  # of a switch that is on, the negation is what one needs
                    name = _NEGATION.sub("", name)
                is_argument = parameter.param_type_name == "argument"
                title = getattr(parameter, "rich_help_panel", None) or ("Models" if is_argument else "Options")
                panels[title].append((name, record[1]))
        if panels[ADVANCED] and not ctx.meta.get(SHOWING_ALL):
            advanced = panels.pop(ADVANCED)
            panels["Options"].append(("--help-all", f"Show {len(advanced)} advanced options, and all examples."))
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=34)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples unwrapped, so that they can be copied; the first ones where the help is short."""
        if self.epilog:
            title, *examples = self.epilog.split("\n\n")
            if has_advanced(self) and not ctx.meta.get(SHOWING_ALL):
                examples = examples[:_EXAMPLES]
            formatter.write_paragraph()
            formatter.write(f"{title}\n" + "".join(f"  {example}\n" for example in examples))


def has_advanced(command: Any) -> bool:
    """Return True for a command that has options of the panel "Advanced"."""
    return any(getattr(parameter, "rich_help_panel", None) == ADVANCED for parameter in command.params)
