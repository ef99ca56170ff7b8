"""Spell the command that follows from the answer of another."""

from __future__ import annotations

import os
import re
from itertools import count
from pathlib import Path

import hf_lwmm
from hf_lwmm.cli import load_command
from hf_lwmm.cli.expand import groups_of
from hf_lwmm.options import Options, declarations, option_arguments
from hf_lwmm.text import operand, shell_line


def following(name: str, *arguments: object, given: tuple[Options, ...] = ()) -> str:
    """Return a line that runs the command of a name with those of the given options that it has, too.

    An option is the same where both classes have it from one declaration, whatever prefix the other command gave it. A
    path that begins with a dash begins with `./-` in the line.
    """
    words = ["hf-lwmm", name, *(operand(str(each)) for each in arguments)]
    for group in groups_of(load_command(name)):
        for options in given:
            declared = declarations(type(options))
            shared = {name for name, own in group.declared.items() if declared.get(name) is own}
            words += option_arguments(options, group.prefix, shared)
    return shell_line(words)


def with_free_output(line: str, default: str | Path) -> str:
    """Return a command's line with an `--output` that nothing has yet, if something has its default output."""
    default = Path(default)
    if not os.path.lexists(default):
        return line
    numbered = (default.with_name(f"{default.stem}-{number}{default.suffix}") for number in count(2))
    free = next(path for path in numbered if not os.path.lexists(path))
    return f"{line} {shell_line(['--output', operand(str(free))])}"


def repository_name(folder: Path) -> str:
    """Return a name for the repository of a folder: its own, of the characters that names on the Hub have."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", folder.resolve().name)
    return re.sub(r"\.{2,}", ".", name).strip("-._") or "merge"


def scoring_merge(
    merge: str,
    images: hf_lwmm.ImageSource,
    evaluation: hf_lwmm.EvaluationSpec,
    network: hf_lwmm.NetworkOptions,
    *words: str,
) -> str:
    """Return the line of a merge with what scores it, too, so that the scores are on its card; `words` follow."""
    taken = declarations(hf_lwmm.EvaluationSpec).keys() - {"ensemble", "examples"}
    runs = declarations(hf_lwmm.NetworkOptions).keys() - {"labels", "branch", "system"}  # which the merge has itself
    arguments = [*option_arguments(images, "eval-"), *option_arguments(evaluation, names=taken)]
    return f"{merge} {shell_line([*arguments, *option_arguments(network, names=runs), *words])}"
