"""Declare an option once: its type, default, range and help text stand in one dataclass field.

Command line, recipe and card all follow from such declarations. A class of options is a frozen dataclass that
derives from `Options` and whose fields are made with `option`:

    @dataclass(frozen=True)
    class Layerwise(Options):
        start: float = option(0.0, "Fraction of the depth that keeps the first layer's weights.", minimum=0, below=1)
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from numbers import Integral
from pathlib import PurePath
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from hf_lwmm.errors import HfLwmmError, PlanError

_T = TypeVar("_T")
_Self = TypeVar("_Self", bound="Options")


@dataclass(frozen=True)
class Declaration:
    """The facts about an option besides its type and default.

    `minimum` and `maximum` are inclusive, `above` and `below` exclusive. `name` is the option's name on the command
    line if it differs from the field's. With `commas`, the command line takes several values as one text with commas
    between them; without, an option of several values is repeated. `metavar` stands for the value in help texts, and
    `shown` for the default.
    """

    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    name: str = ""
    commas: bool = False
    metavar: str | None = None
    shown: str = ""


def option(
    default: _T,
    help: str,
    *,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    name: str = "",
    commas: bool = False,
    metavar: str | None = None,
    shown: str = "",
) -> _T:
    """Declare a field of an `Options` class; the arguments are those of `Declaration`."""
    declared = Declaration(help, tuple(choices), minimum, maximum, above, below, name, commas, metavar, shown)
    # For mypy this is a value of the field's type; the dataclass sees its field.
    return field(default=default, metadata={"option": declared})


class Options:
    """Base of frozen dataclasses whose values are checked when they are made, but for defaults, which are right.

    Raises:
        PlanError: for a value of another type, outside its range, or none of its choices.
    """

    error: ClassVar[type[HfLwmmError]] = PlanError

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            if getattr(self, each.name) is not each.default:
                object.__setattr__(self, each.name, self._checked(each.name, each.metadata.get("option")))

    @classmethod
    def flag(cls, name: str) -> str:
        """Return what messages call an option: its name on the command line."""
        return option_name(name, declarations(cls)[name]) if name in declarations(cls) else name

    def _checked(self, name: str, declared: Declaration | None) -> Any:
        """An option's value, in the type of its field."""
        flag, given = self.flag(name), _plain(getattr(self, name))
        hint = _hints(type(self))[name]  # type: ignore[arg-type]
        wrong = self.error(f"{flag} must be {_type_name(hint)}, not {given!r}.")
        if declared is None:  # the field holds what checks itself, such as other options
            if not _is_instance(given, hint):
                raise wrong
            return given
        try:
            value = _adapter(hint)(given)
        except ValueError:  # pydantic's ValidationError is one
            raise wrong from None
        for one in value if isinstance(value, tuple) else (value,):
            if one is None:
                continue
            if declared.choices and one not in declared.choices:
                near = did_you_mean(str(one), declared.choices)
                raise self.error(f"{flag} {one} is not one of {', '.join(declared.choices)}.{near}")
            if (limits := _outside(one, declared)) is not None:
                raise self.error(f"{flag} {one} must be {limits}.")
        return value

    @classmethod
    def read(cls: type[_Self], content: Any, where: str) -> _Self:
        """Make the options from a mapping, such as a section of a recipe.

        Raises:
            PlanError: if it is no mapping, has an unknown name, or a value that does not fit; the message begins with
                `where` and gives the nearest known name.
        """
        if not isinstance(content, Mapping):
            raise cls.error(f"{where}: must hold names and values, not {content!r}.")
        check_names(content, [each.name for each in fields(cls)], where)  # type: ignore[arg-type]
        try:
            return cls(**content)
        except cls.error as error:
            raise cls.error(f"{where}: {error}") from None

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)  # type: ignore[arg-type]
            if getattr(self, each.name) != each.default
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all options as plain data; tuples become lists."""
        return {each.name: _listed(getattr(self, each.name)) for each in fields(self)}  # type: ignore[arg-type]


def declarations(cls: type[Any]) -> dict[str, Declaration]:
    """Return the declared options of a class, its own before inherited ones."""
    own = vars(cls).get("__annotations__", {})
    ordered = sorted(fields(cls), key=lambda each: each.name not in own)
    found = {each.name: each.metadata.get("option") for each in ordered}
    return {name: declared for name, declared in found.items() if declared is not None}


def option_name(name: str, declared: Declaration | None = None, prefix: str = "") -> str:
    """Return what the command line calls an option, such as `--image-column`."""
    own = declared.name if declared is not None and declared.name else name
    return "--" + prefix + own.replace("_", "-")


def check_names(content: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    """Refuse names that nobody reads.

    Raises:
        PlanError: with the nearest known name.
    """
    for name in content:
        if name not in known:
            hint = did_you_mean(str(name), known)
            names = f"Known: {', '.join(known)}." if known else "It has no options."
            raise PlanError(f"{where}: has no {name!r}.{hint} {names}")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a sentence that suggests the nearest known name, empty if none is near."""
    near = get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def parsed(text: str, hint: Any) -> Any:
    """Return what a text says in the type of a field, such as (0.5, 1) for `0.5,1`; the text itself if it says no such.

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
    with contextlib.suppress(ValueError):
        if isinstance(found := json.loads(text), list):
            return list(map(str, found))
    return [part.strip() for part in text.split(",")]


_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(size: int | str) -> int:
    """Return a size such as 500MB in bytes. Raises PlanError for any other text."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)?\s*", str(size).upper())
    if found is None or not float(found[1]):
        raise PlanError(f"--max-shard-size {size}: write a size such as 5GB or 500MB.")
    return int(float(found[1]) * _UNITS[found[2] or ""])


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls)


@cache
def _adapter(hint: Any) -> Callable[[Any], Any]:
    """A function that returns a value in a type, or raises ValueError."""
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    return lambda value: adapter.validate_python(value, strict=True)


def _is_instance(value: Any, hint: Any) -> bool:
    """True for a value, or a tuple of values, of a class that a type names."""
    parts = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_instance(each, parts[0]) for each in value)
    return any(_is_instance(value, part) for part in parts) if parts else isinstance(value, hint)


def _plain(value: Any) -> Any:
    """Lists, as YAML and command lines give them, as tuples, paths as texts, and NumPy's whole numbers as Python's."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _listed(value: Any) -> Any:
    """Tuples as lists, options as mappings: what YAML and JSON know."""
    if isinstance(value, Options):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _listed(item) for name, item in dataclasses.asdict(value).items()}
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _outside(value: Any, declared: Declaration) -> str | None:
    """The limits that a number does not keep, in words; None if it keeps them."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
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


def _type_name(hint: Any) -> str:
    """A type in words."""
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "nothing"}
    if hint in names:
        return names[hint]
    inner = get_args(hint)
    if get_origin(hint) is tuple:
        return _LISTS.get(inner[0]) or f"a list, each entry {_type_name(inner[0])}"
    return " or ".join(map(_type_name, inner)) if inner else f"of type {getattr(hint, '__name__', hint)}"
