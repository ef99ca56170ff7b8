"""Spell the command that follows from the answer of another."""

from __future__ import annotations

from collections.abc import Callable

import hf_lwmm
from hf_lwmm.cli.expand import groups_of
from hf_lwmm.options import Options, declarations, option_arguments
from hf_lwmm.text import shell_line


def following(command: Callable[..., None], *arguments: object, given: tuple[Options, ...] = ()) -> str:
    """Return a line that runs a command with those of the given options that it has, too.

    An option is the same where both classes have it from one declaration, whatever prefix the other command gave it. A
    path that begins with a dash begins with `./-` in the line.
    """
    words = ["hf-lwmm", command.__name__]
    words += [f"./{each}" if str(each).startswith("-") else str(each) for each in arguments]
    for group in groups_of(command):
        for options in given:
            declared = declarations(type(options))
            shared = {name for name, own in group.declared.items() if declared.get(name) is own}
            words += option_arguments(options, group.group.prefix, shared)
    return shell_line(words)


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
