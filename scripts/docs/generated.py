"""Reference pages as Markdown, made from the code that they describe."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import hf_lwmm
from hf_lwmm.options import Declaration, declarations

ROOT = Path(__file__).parents[2]
# Classes of options in the order of the page; any others follow.
OPTIONS = (
    "Knobs",
    "ImageSource",
    "NetworkOptions",
    "EvaluationSpec",
    "WriteOptions",
    "PushOptions",
    "SweepAxes",
    "SweepRun",
)
_OPTIONS_CLASS = re.compile(r"^class (\w+)\(\w*Options\):", re.MULTILINE)
VERBS = (
    *("merge", "plan", "push", "reproduce", "inspect", "diff", "diff_headers", "search", "load", "evaluate", "predict"),
    *("measure", "sweep", "export", "convert"),
)


def knobs() -> str:
    """Return a section for each class of options, and one for each merge method."""
    from hf_lwmm.methods import METHODS

    rank = {name: place for place, name in enumerate(OPTIONS)}
    classes = sorted(option_classes(), key=lambda cls: (rank.get(cls.__name__, len(rank)), cls.__name__))
    sections = [_section(cls.__name__, cls) for cls in classes]
    return "\n\n".join([*sections, *(_section(f"Method {method.name}", method) for method in METHODS.values())])


def option_classes() -> list[type[Any]]:
    """Return every public class of declared options in the package but the methods'."""
    found = []
    for path in sorted((ROOT / "hf_lwmm").rglob("*.py")):
        for name in _OPTIONS_CLASS.findall(path.read_text(encoding="utf-8")):
            cls = getattr(import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)), name)
            public = name in hf_lwmm.__all__
            found += [cls] if public and is_dataclass(cls) and declarations(cls) else []
    return found


def _section(title: str, cls: type[Any]) -> str:
    first = (cls.__doc__ or "").strip().split("\n\n")[0]
    lines = [f"## {title}", "", " ".join(first.split()), ""]
    hints, defaults = get_type_hints(cls), {each: field.default for each, field in cls.__dataclass_fields__.items()}
    rows = [
        (
            f"`{name}`",
            f"`{cls.flag(name)}`",
            f"`{_type(hints[name])}`",
            f"`{defaults[name]!r}`",
            _meaning(declared),
        )
        for name, declared in declarations(cls).items()
    ]
    lines += _table(("field", "option", "type", "default", "meaning"), rows) if rows else ["It has no options."]
    return "\n".join(lines)


def _type(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not getattr(hint, "__args__", ()) else str(hint)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text)


def _meaning(declared: Declaration) -> str:
    limits = [
        (declared.minimum, "at least {:g}"),
        (declared.above, "above {:g}"),
        (declared.maximum, "at most {:g}"),
        (declared.below, "below {:g}"),
    ]
    parts = [text.format(limit) for limit, text in limits if limit is not None]
    if declared.choices:
        parts.append("one of " + ", ".join(f"`{choice}`" for choice in declared.choices))
    text = _prose(declared.help)
    return f"{text} ({'; '.join(parts)})" if parts else text


def commands() -> str:
    """Return a section for each command, with its usage, its options and its examples."""
    from hf_lwmm.cli import COMMANDS, load_command

    found = [leaf for name in COMMANDS for leaf in _leaves(f"hf-lwmm {name}", load_command(name))]
    return "\n\n".join(_command(name, command) for name, command in found)


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands that do something, with what is typed before their options."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child, inner in children.items():
        yield from _leaves(f"{name} {child}", inner)


def _command(name: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    shown = (_metavar(each) if each.required else f"[{_metavar(each)}]" for each in arguments)
    words = [name, *shown, "[OPTIONS]" if options else ""]
    lines = [f"## {name}", "", _prose(command.help or ""), "", "```text", " ".join(filter(None, words)), "```", ""]
    rows = [(f"`{_metavar(each)}`", _prose(getattr(each, "help", None) or "")) for each in arguments]
    lines += [*_table(("argument", "meaning"), rows), ""] if rows else []
    panels: dict[str, list[Any]] = {}
    for option in options:
        panels.setdefault(option.panel.removesuffix("Options"), []).append(option)
    for panel in sorted(panels, key=bool):  # options of the command itself, then those that are declared elsewhere
        rows = [(f"`{', '.join((*each.opts, *each.secondary_opts))}`", _option_help(each)) for each in panels[panel]]
        lines += [*([f"**{panel}**", ""] if panel else []), *_table(("option", "meaning"), rows), ""]
    if command.epilog:
        title, *examples = [line for line in command.epilog.splitlines() if line.strip()]
        lines += [title, "", "```sh", *map(_plain, examples), "```"]
    return "\n".join(lines).rstrip()


def _metavar(argument: Any) -> str:
    return argument.name.upper() + ("..." if argument.nargs == -1 else "")


def _option_help(option: Any) -> str:
    text = _prose(option.help or "")
    default = option.to_info_dict()["default"]
    return text if option.is_flag or default is None else f"{text} Default: `{default}`."


def recipe() -> str:
    """Return the recipe that the quick start's merge has written."""
    text = (ROOT / "model_cards" / "streets-gta-lwmm" / "hf_lwmm.yaml").read_text(encoding="utf-8")
    return f"```yaml\n{text.rstrip()}\n```"


def api() -> str:
    """Return the public names of the package for mkdocstrings: functions by verb, then classes, then the rest."""
    names = {name for name in hf_lwmm.__all__ if not name.startswith("__")}
    verbs = [name for name in VERBS if name in names]
    classes = sorted(name for name in names if name[0].isupper() and not name.isupper())
    rest = sorted(names - {*verbs, *classes})
    groups = (("Verbs", verbs), ("Other functions and values", rest), ("Classes", classes))
    parts = [f"## {title}\n\n" + "\n\n".join(f"::: hf_lwmm.{name}" for name in group) for title, group in groups]
    return "\n\n".join(parts)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    # Python-Markdown takes a bar in code as it is, and would show a backslash before it.
    cells = [[re.sub(r"(`[^`]*`)|\|", lambda bar: bar[1] or r"\|", cell) for cell in row] for row in (titles, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + " --- |" * len(titles), *lines[1:]]


def _plain(text: str) -> str:
    """A help text without the escapes of terminal markup, on one line."""
    return " ".join(text.replace(r"\[", "[").replace("\b", "").split())


def _prose(text: str) -> str:
    """A help text as Markdown."""
    return re.sub(r"([\[\]*_])", r"\\\1", html.escape(_plain(text), quote=False))
