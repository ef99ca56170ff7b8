"""Declare an option as a field of a dataclass, with help text, range and choices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Declaration:
    """The description of an option, apart from its type and default.

    `minimum` and `maximum` are inclusive, `above` and `below` exclusive. `name` is the option's name on the command
    line if it differs from the field's. With `commas`, the command line takes several values as one text with commas
    between them; without, an option of several values is repeated. `metavar` stands for the value in help texts, and
    `shown` for the default. `known` are values that a shell completes where others are allowed, too. With `bare`, the
    option may stand without a value, and means the default.
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
    known: Iterable[str] | Callable[[], Iterable[str]] = ()
    bare: bool = False


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
    known: Iterable[str] | Callable[[], Iterable[str]] = (),
    bare: bool = False,
) -> _T:
    """Declare a field of an `Options` class; the arguments are those of `Declaration`."""
    declared = Declaration(
        help, tuple(choices), minimum, maximum, above, below, name, commas, metavar, shown, known, bare
    )
    # For mypy this is a value of the field's type; the dataclass sees its field.
    return field(default=default, metadata={"option": declared})


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
