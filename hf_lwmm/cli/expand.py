"""Turn options that are declared in dataclasses into options of the command line.

A command takes the options of a class as one argument:

    @command()
    @Group("knobs", hf_lwmm.Knobs, "Method")
    def plan(knobs: hf_lwmm.Knobs) -> None: ...

Every declared field becomes an option of its own, and the command is called with the dataclass made of those that were
given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, wraps
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import click

from hf_lwmm.cli.help import ADVANCED, option
from hf_lwmm.errors import PlanError
from hf_lwmm.options import Declaration, Options, declarations, naming_with_prefix, option_name, parsed

Given = Mapping[str, Any]  # the options of a class that were given, by field


@dataclass(frozen=True)
class Group:
    """A decorator that gives a command the options of a class, as its argument `name`.

    In the help they stand in `panel`, except those in `panels`, by field; where `usual` names fields, the others are
    advanced. `prefix` stands before every option's name. `skip` are fields that this command does not offer. `shown`
    are defaults of this command's own, as help texts show them, and `purposes` say before an option's help what it is
    for. Without the field `key`, if one is named, the argument is None. With `partial`, it is `Given` in place of the
    dataclass.
    """

    name: str
    options: type[Options]
    panel: str
    prefix: str = ""
    usual: tuple[str, ...] | None = None
    panels: Mapping[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    shown: Mapping[str, str] = field(default_factory=dict)
    purposes: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    partial: bool = False

    def __call__(self, command: Callable[..., None]) -> Callable[..., None]:
        """Return a command's function that takes single options."""

        @wraps(command)
        def run(**given: Any) -> None:
            own = {name: given.pop(self._single(name)) for name in self.declared}
            command(**given, **{self.name: self._argument(own)})

        run.groups = (self, *getattr(command, "groups", ()))  # type: ignore[attr-defined]
        for name in reversed(self.declared):
            self._option(name)(run)
        return run

    @cached_property
    def declared(self) -> dict[str, Declaration]:
        """The options that the command has, by field."""
        return {name: own for name, own in declarations(self.options).items() if name not in self.skip}

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self.options)

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {each.name: each.default for each in fields(self.options)}  # type: ignore[arg-type]

    def _single(self, name: str) -> str:
        """The name of a field's parameter among the single options."""
        return f"{self.prefix.replace('-', '_')}{name}"

    def _flag(self, name: str) -> str:
        return option_name(name, self.declared[name], self.prefix)

    def _panel(self, name: str) -> str:
        is_advanced = self.usual is not None and name not in self.usual
        return ADVANCED if is_advanced else self.panels.get(name, self.panel)

    def _option(self, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """The decorator that adds a field's option."""
        declared, flag, default = self.declared[name], self._flag(name), self._defaults[name]
        kind, is_repeated = _kind(self._hints[name], declared)
        shown = self.shown.get(name) or declared.shown or _shown(default)
        metavar = declared.metavar or _choices(name, declared)
        is_hidden = 0 < _width(declared) <= 60 and "|" not in str(metavar)
        listed = f" One of {', '.join(declared.choices)}." if is_hidden else ""
        return option(
            self._single(name),
            f"{flag}/--no-{flag.removeprefix('--')}" if kind is bool else flag,
            type=kind,
            multiple=is_repeated,
            default=None,
            help=self.purposes.get(name, "")
            + declared.help
            + listed
            + (f"  [default: {shown}]" if shown and kind is not bool else ""),
            metavar=metavar,
            panel=self._panel(name),
            bare=default if declared.bare else None,
            shell_complete=completed(declared.choices or declared.known),
        )

    def _argument(self, given: Given) -> Any:
        """The argument that the command gets."""
        found = {name: self._value(name, value) for name, value in given.items() if value not in (None, ())}
        if self.partial:
            return found
        if self.key and self.key not in found:
            if changed := [name for name, value in found.items() if value != self._defaults[name]]:
                raise PlanError(f"{self._flag(changed[0])} needs {self._flag(self.key)}.")
            return None
        with naming_with_prefix(self.options.flags(), self.prefix):
            return self.options(**found)

    def _value(self, name: str, given: Any) -> Any:
        """An option's value as its field takes it."""
        if not self.declared[name].commas:
            return given
        if not all(part.strip() for part in given.split(",")):
            raise PlanError(f"{self.options.flag(name)}: has nothing where a value should be.")
        return parsed(given, self._hints[name])


def groups_of(command: click.Command) -> tuple[Group, ...]:
    """Return the classes of options that a command takes."""
    return getattr(command.callback, "groups", ())


def completed(
    choices: Iterable[str] | Callable[[], Iterable[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a function that completes a value, of which there may be several with commas between, to choices."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        known = choices() if callable(choices) else choices
        return [before + comma + choice for choice in known if choice.startswith(last)]

    return complete


def _kind(hint: Any, declared: Declaration) -> tuple[type[Any], bool]:
    """The type in which the command line takes an option, and whether the option is repeated for several values."""
    alternatives = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) is tuple:
        return (str, False) if declared.commas else (_kind(alternatives[0], declared)[0], True)
    if get_origin(hint) in (Union, UnionType) and len(alternatives) == 1:
        return _kind(alternatives[0], declared)
    return (hint if hint in (bool, int, float) else str), False


def _shown(default: Any) -> str:
    """A default in help texts; empty if there is nothing to show."""
    if default is None or default is False or default in ((), ""):
        return ""
    parts = default if isinstance(default, tuple) else (default,)
    return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)


def _choices(name: str, declared: Declaration) -> str | None:
    """The placeholder for the value of an option that has choices: their names, if they are short."""
    names = "|".join(declared.choices)
    if _width(declared) > 25:
        names = name.removesuffix("s").replace("_", "-").upper()
    return names + (",..." if declared.commas else "") if names else None


def _width(declared: Declaration) -> int:
    return len("|".join(declared.choices))
