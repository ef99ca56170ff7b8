"""Turn options that are declared in dataclasses into options of the command line.

A command takes a dataclass of options as one parameter, marked by a `Group`:

    def plan(models: options.Models = None, knobs: Annotated[Knobs, Group("Merge")]) -> None: ...

Every declared field becomes an option of its own, and the command is called with the dataclass made of those that were
given. A parameter of type `Given` receives only the given ones, by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Optional, Union, get_args, get_origin, get_type_hints

import typer

from hf_lwmm.cli.help import ADVANCED
from hf_lwmm.errors import PlanError
from hf_lwmm.options import Declaration, Options, declarations, naming_with_prefix, option_name, parsed

Given = Mapping[str, Any]  # the options of a class that were given, by field


@dataclass(frozen=True)
class Group:
    """The options of a class in a command's help.

    They stand in `panel`, except those in `panels`, by field; where `usual` names fields, the others are advanced.
    `prefix` stands before every option's name. `skip` are fields that this command does not offer. `options` is the
    class, for a parameter of type `Given`. `shown` are defaults of this command's own, as help texts show them, and
    `purposes` say before an option's help what it is for.
    """

    panel: str
    prefix: str = ""
    usual: tuple[str, ...] | None = None
    panels: Mapping[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    options: type[Options] | None = None
    shown: Mapping[str, str] = field(default_factory=dict)
    purposes: Mapping[str, str] = field(default_factory=dict)

    def panel_of(self, name: str) -> str:
        """Return the title under which the help shows a field's option."""
        is_advanced = self.usual is not None and name not in self.usual
        return ADVANCED if is_advanced else self.panels.get(name, self.panel)


@dataclass(frozen=True)
class GroupParameter:
    """A parameter of a command that stands for a class of options."""

    name: str
    cls: type[Options]
    group: Group
    optional: bool
    partial: bool

    def flat(self, field: str) -> str:
        """Return the name of a field's parameter among the single options."""
        return f"{self.group.prefix.replace('-', '_')}{field}"

    @property
    def declared(self) -> dict[str, Declaration]:
        """The options that the command has, by field."""
        return {name: own for name, own in declarations(self.cls).items() if name not in self.group.skip}

    def value(self, given: dict[str, Any]) -> Any:
        """Return the argument that the command gets."""
        found = {field: given[self.flat(field)] for field in self.declared if given[self.flat(field)] is not None}
        values = {field: _value(self.cls, field, self.declared[field], value) for field, value in found.items()}
        if self.partial:
            return values
        key = next(iter(self.declared))
        if self.optional and key not in values:
            defaults = {each.name: each.default for each in fields(self.cls)}  # type: ignore[arg-type]
            if changed := [name for name, value in values.items() if value != defaults[name]]:
                first = changed[0]
                needs = option_name(key, self.declared[key], self.group.prefix)
                raise PlanError(f"{option_name(first, self.declared[first], self.group.prefix)} needs {needs}.")
            return None
        with naming_with_prefix(self.cls.flags(), self.group.prefix):
            return self.cls(**values)


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose parameters are the single options of its groups."""
    signature, groups = inspect.signature(command, eval_str=True), groups_of(command)
    named = {group.name: group for group in groups}
    parameters: list[inspect.Parameter] = []
    for each in signature.parameters.values():
        if each.name in named:
            parameters += _options_of(named[each.name])
        else:
            parameters.append(each.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def run(**given: Any) -> None:
        arguments = {group.name: group.value(given) for group in groups}
        for group in groups:
            for name in group.declared:
                given.pop(group.flat(name))
        command(**given, **arguments)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def groups_of(command: Callable[..., None]) -> list[GroupParameter]:
    """Return the parameters of a command that stand for classes of options."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    return [found for each in parameters if (found := _group_of(each)) is not None]


def _group_of(parameter: inspect.Parameter) -> GroupParameter | None:
    annotation = parameter.annotation
    if get_origin(annotation) is not Annotated:
        return None
    hint, *marks = get_args(annotation)
    group = next((mark for mark in marks if isinstance(mark, Group)), None)
    if group is None:
        return None
    if group.options is not None:
        return GroupParameter(parameter.name, group.options, group, optional=False, partial=True)
    inner = [each for each in get_args(hint) if each is not type(None)] or [hint]
    return GroupParameter(parameter.name, inner[0], group, optional=len(get_args(hint)) > 1, partial=False)


def _options_of(parameter: GroupParameter) -> list[inspect.Parameter]:
    hints, found = get_type_hints(parameter.cls), []
    defaults = {each.name: each.default for each in fields(parameter.cls)}  # type: ignore[arg-type]
    for name, declared in parameter.declared.items():
        kind = _kind(hints[name], declared)
        shown = parameter.group.shown.get(name) or declared.shown or _shown(defaults[name])
        metavar = declared.metavar or _choices(name, declared)
        is_hidden = 0 < _width(declared) <= 60 and "|" not in str(metavar)
        listed = f" One of {', '.join(declared.choices)}." if is_hidden else ""
        flag = option_name(name, declared, parameter.group.prefix)
        info = typer.Option(
            f"{flag}/--no-{flag.removeprefix('--')}" if kind is bool else flag,
            help=parameter.group.purposes.get(name, "")
            + declared.help
            + listed
            + (f"  [default: {shown}]" if shown and kind is not bool else ""),
            metavar=metavar,
            show_default=False,
            rich_help_panel=parameter.group.panel_of(name),
            autocompletion=completed(declared.choices or declared.known),
        )
        annotation: Any = Annotated[Optional[kind], info]  # noqa: UP045  (typer reads it)
        flat = parameter.flat(name)
        found.append(inspect.Parameter(flat, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return found


def completed(choices: Iterable[str] | Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that completes a value, of which there may be several with commas between, to choices."""

    def complete(incomplete: str) -> list[str]:
        before, comma, _ = incomplete.rpartition(",")
        return [before + comma + choice for choice in (choices() if callable(choices) else choices)]

    return complete


def _kind(hint: Any, declared: Declaration) -> Any:
    """The type in which the command line takes an option."""
    alternatives = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) is tuple:
        return str if declared.commas else list[_kind(alternatives[0], declared)]  # type: ignore[misc]
    if isinstance(None, hint if isinstance(hint, type) else ()) or not alternatives:
        return hint if hint in (bool, int, float, str) else str
    if len(alternatives) == 1 and get_origin(hint) in (Union, type(int | None)):
        return _kind(alternatives[0], declared)
    return str


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


def _value(cls: type[Options], name: str, declared: Declaration, given: Any) -> Any:
    """An option's value as its field takes it."""
    if declared.commas:
        if not all(part.strip() for part in given.split(",")):
            raise PlanError(f"{cls.flag(name)}: has nothing where a value should be.")
        return parsed(given, get_type_hints(cls)[name])
    return tuple(given) if isinstance(given, list) else given
