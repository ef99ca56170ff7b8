"""Show a command's help as plain text, its options in groups. Rich would draw boxes and take most of the time."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

# What stands for a value of a type, which typer writes as <str>, <list[str]> or <int range>.
_VALUES = {"str": "TEXT", "path": "PATH", "Path": "PATH", "int": "N", "float": "NUMBER"}
_TYPE = re.compile(rf"<(?:list\[)?({'|'.join(_VALUES)})\]?(?: range)?>")


class GroupedCommand(TyperCommand):
    """A command whose help lists its options under the title of their group."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the command's own options, and the groups."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                record = (_TYPE.sub(lambda found: _VALUES[found[1]], record[0]), record[1])
                is_argument = parameter.param_type_name == "argument"
                title = getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=34)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples unwrapped, so that they can be copied."""
        if self.epilog:
            formatter.write_paragraph()
            title, *examples = self.epilog.split("\n\n")
            formatter.write(f"{title}\n" + "".join(f"  {example}\n" for example in examples))
