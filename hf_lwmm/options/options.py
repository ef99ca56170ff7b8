"""The base of all options: frozen dataclasses whose values are checked when they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar, TypeVar, get_type_hints

from hf_lwmm.errors import HfLwmmError, PlanError
from hf_lwmm.files.documents import shortened
from hf_lwmm.options import values
from hf_lwmm.options.declaration import Declaration, declarations, option_name
from hf_lwmm.options.names import check_names, did_you_mean

_Self = TypeVar("_Self", bound="Options")


class Options:
    """Base of frozen dataclasses whose values are checked when they are made; defaults are trusted.

    Raises:
        PlanError: for a value of another type, outside its range, or not one of its choices.
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

    @classmethod
    def flags(cls) -> tuple[str, ...]:
        """Return what messages call its options."""
        return tuple(map(cls.flag, declarations(cls)))

    def _checked(self, name: str, declared: Declaration | None) -> Any:
        """An option's value, in the type of its field."""
        flag, given = self.flag(name), values.plain(getattr(self, name))
        hint = _hints(type(self))[name]  # type: ignore[arg-type]
        wrong = self.error(f"{flag} must be {values.type_name(hint)}, not {shortened(values.as_written(given))}.")
        try:
            value = values.typed(given, hint)
        except TypeError:
            raise wrong from None
        if declared is None:  # the field holds what checks itself, such as other options
            return value
        for one in value if isinstance(value, tuple) else (value,):
            if one is None:
                continue
            if declared.choices and one not in declared.choices:
                near = did_you_mean(str(one), declared.choices)
                raise self.error(f"{flag} {one} is not one of {', '.join(declared.choices)}.{near}")
            if (limits := values.outside(one, declared)) is not None:
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
            raise cls.error(f"{where}: must hold names and values, not {shortened(content)}.")
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


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls)


def _listed(value: Any) -> Any:
    """Tuples as lists, options as mappings: what YAML and JSON know."""
    if isinstance(value, Options):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _listed(item) for name, item in dataclasses.asdict(value).items()}
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
