"""Write text that anybody may have written, such as names in files, so that terminals and Markdown only show it."""

from hf_lwmm.text.branches import clashing, is_branch_name
from hf_lwmm.text.columns import drawn_table
from hf_lwmm.text.markdown import Markdown, as_markdown, code, fenced, joined, link, plain, table, target
from hf_lwmm.text.numbers import near_one
from hf_lwmm.text.printable import first_few, one_line, printable
from hf_lwmm.text.shell import operand, shell_line

__all__ = [
    "Markdown",
    "as_markdown",
    "clashing",
    "code",
    "drawn_table",
    "fenced",
    "first_few",
    "is_branch_name",
    "joined",
    "link",
    "near_one",
    "one_line",
    "operand",
    "plain",
    "printable",
    "shell_line",
    "table",
    "target",
]
