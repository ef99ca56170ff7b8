"""Spell options as the command line takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Any

from hf_lwmm.options.declaration import declarations, option_name
from hf_lwmm.options.options import Options

_CLEAR = re.compile(r"[\w-]([\w .-]*[\w.-])?")  # a text that means itself between commas


def option_arguments(options: Options, prefix: str = "", names: Container[str] | None = None) -> list[str]:
    """Return the arguments that make options what they are: those that differ from their defaults.

    Args:
        options: the options.
        prefix: what stands before every option's name, such as `eval-`.
        names: the fields that are meant; all, if None.
    """
    parts = []
    changed = options.changed()
    for name, declared in declarations(type(options)).items():
        if name not in changed or (names is not None and name not in names):
            continue
        flag, value = option_name(name, declared, prefix), changed[name]
        if value is True:
            parts.append(flag)
        elif isinstance(value, tuple) and not declared.commas:
            parts += [part for each in value for part in (flag, argument(each))]
        else:
            parts += [flag, argument(value)]
    return parts


def argument(value: Any) -> str:
    """Return a value as the command line reads it.

    Texts become a JSON list where commas between them could be read in another way.
    """
    if not isinstance(value, tuple):
        return str(value).lower() if value is None or isinstance(value, bool) else str(value)
    texts = list(map(str, value))
    unclear = isinstance(value[0], str) and (len(texts) == 1 or not all(map(_CLEAR.fullmatch, texts)))
    return json.dumps(texts, ensure_ascii=False) if unclear else ",".join(texts)
