"""Parse, convert and check the values of options."""

from __future__ import annotations

import contextlib
import re
import sys
from operator import index
from pathlib import PurePath
from types import UnionType
from typing import Any, SupportsFloat, SupportsIndex, Union, get_args, get_origin

from hf_lwmm.errors import DocumentError, PlanError
from hf_lwmm.files.documents import parse_json
from hf_lwmm.options.declaration import Declaration


def parsed(text: str, hint: Any) -> Any:
    """Parse a text as the type of a field, such as `0.5,1` as (0.5, 1); return the text if it does not parse.

    Several values stand with commas between them, or as a JSON list.
    """
    if get_origin(hint) is tuple:
        return tuple(parsed(part, get_args(hint)[0]) for part in _parts(text))
    kinds = get_args(hint) or (hint,)
    if type(None) in kinds and text.lower() in ("none", "null"):
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        if kind in kinds:
            with contextlib.suppress(ValueError):
                return kind(text)
    return text


def _parts(text: str) -> list[str]:
    if text.lstrip().startswith("["):
        with contextlib.suppress(DocumentError):
            return list(map(str, parse_json(text, text)))
    return [part.strip() for part in text.split(",")]


_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(size: int | str, name: str, minimum: int = 1) -> int:
    """Return a size such as 500MB in bytes.

    Raises:
        PlanError: for any other text, or less than `minimum` bytes, as a value of the option `name`.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)?\s*", str(size).upper())
    count = float(found[1]) * _UNITS[found[2] or ""] if found else -1
    if not minimum <= count < 2**63:
        raise PlanError(f"{name} {str(size)[:40]}: write a size such as 5GB or 500MB.")
    return int(count)


_CONVERTED: dict[type[Any], type[Any]] = {int: SupportsIndex, float: SupportsFloat}


def typed(value: Any, hint: Any) -> Any:
    """Return a value in a type.

    Numbers of other classes, such as NumPy's and torch's, become Python's own, and whole ones floats where the type is
    float. Anything else stays as it is.

    Raises:
        TypeError: if it is not of the type; True and False are no numbers.
    """
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is tuple:
        if isinstance(value, tuple):
            return tuple(typed(each, parts[0]) for each in value)
    elif kind in (Union, UnionType):
        for part in parts:
            with contextlib.suppress(TypeError):
                return typed(value, part)
    elif kind in (int, float):
        if isinstance(value, _CONVERTED[kind]) and not isinstance(value, bool | complex):
            with contextlib.suppress(TypeError, ValueError, OverflowError):  # an array of several, or too large
                return index(value) if kind is int else float(value)
    elif isinstance(value, kind):
        return value
    raise TypeError(f"{value!r} is not of the type {hint}")


def plain(value: Any) -> Any:
    """Normalise a value for an option.

    Lists, as YAML and command lines give them, become tuples, and paths and texts of other classes, such as NumPy's,
    Python's own texts.
    """
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, str):
        return str.__str__(value)
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def as_written(value: Any) -> Any:
    """Return a tuple of single values as a command line has it, with commas between, and any other value as it is."""
    if not isinstance(value, tuple) or not all(isinstance(one, str | int | float) for one in value):
        return value
    return ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)


_LARGEST = sys.float_info.max


def outside(value: Any, declared: Declaration) -> str | None:
    """Describe the limits of a number outside them; None if it is within."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not -_LARGEST <= value <= _LARGEST:  # so written, it refuses NaN and whole numbers that no float holds, too
        return "a finite number"
    low, high = declared.minimum, declared.maximum
    texts = [
        ("at least {:g}", low, low is None or value >= low),
        ("above {:g}", declared.above, declared.above is None or value > declared.above),
        ("at most {:g}", high, high is None or value <= high),
        ("below {:g}", declared.below, declared.below is None or value < declared.below),
    ]
    if all(kept for _, _, kept in texts):
        return None
    return " and ".join(text.format(limit) for text, limit, _ in texts if limit is not None)


_LISTS = {float: "a list of numbers", int: "a list of whole numbers", str: "a list of texts"}


def type_name(hint: Any) -> str:
    """Return a type in words."""
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "nothing"}
    if hint in names:
        return names[hint]
    inner = get_args(hint)
    if get_origin(hint) is tuple:
        return _LISTS.get(inner[0]) or f"a list, each entry {type_name(inner[0])}"
    return " or ".join(map(type_name, inner)) if inner else f"of type {getattr(hint, '__name__', hint)}"
