"""Read the classes that a text lists: a name on each line, ids and names, JSON or YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_lwmm.errors import DocumentError, PlanError
from hf_lwmm.files.documents import parse_json, parse_yaml, shortened
from hf_lwmm.files.kinds import HEAD, foreign_kind
from hf_lwmm.labels.named_ids import class_names

REMEDY = "Write one class a line, or give a config.json with id2label."

_UNDER = ("id2label", "names")  # where a config.json and the data.yaml of Ultralytics have them
_NUMBERED = re.compile(r"(\d{1,9})(?:\s+-\s+|\s+|\s*[,;:=|.)]\s*)(\S.*)")
_HYPHENATED = re.compile(r"(\d{1,9})[-_](\S.*)")  # an id and a name if the ids count, else a name, such as 2-wheeler
_IN_YAML = re.compile(r"\d+\s*:\s.*")
_MARKED = re.compile(r"['\"]|\s#")  # what YAML takes for more than a part of a name
_MARKS = (re.compile(r"[*+\u2022]\s+(\S.*)"), re.compile(r"'([^']+)'"), re.compile(r'"([^"]+)"'))
_BULLET = re.compile(r"[-\u2013\u2014\u2022*+].*")
_COMMENT = re.compile(r"(//|/\*|--|%|;).*|.*\s(#|//).*")
_HEADING = re.compile(
    r"((id|index|no)\W+)?((class|label|category|object)[ _-]?)?(names?|class(es)?|labels?|categor(y|ies))", re.I
)
_NUMBER_LAST = re.compile(r"(\S.*?)(?:\s+|\s*[,;:=|]\s*)(\d+)")
_COLOURED = re.compile(r"\d+[\s,;]+\d+[\s,;]+\d+")
_COLUMNS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
_ENTRY = re.compile(r"[^:]*:(\s.*)?")
_CODE = re.compile(r"[\[\]{}<>\"=]")


def classes_in(text: str, where: str) -> tuple[str, ...]:
    """Return the classes in a text, in the order of their ids.

    Args:
        text: a name on each line, in quotes or behind a bullet if all are; ids from 0 and names, such as `0 road`; a
            list, or a mapping of ids from 0 to names, in JSON or YAML, which may stand under `id2label` or `names`.
        where: what messages call the text.

    Raises:
        PlanError: if it is anything else, naming what it seems to be.
    """
    if text.strip() and (mistake := foreign_kind(text[:HEAD].encode(errors="replace"))):
        raise PlanError(f"{where} {mistake}")
    stripped = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    lines = _without_marks(stripped[1:] if stripped[:1] == ["---"] else stripped)
    if not all(lines):
        raise PlanError(f"{where}: has a line without a name. {REMEDY}")
    try:
        if text.lstrip().startswith(("[", "{")):
            return _names(parse_json(text, where), where)
        if lines and all(map(_IN_YAML.fullmatch, lines)) and any(map(_MARKED.search, lines)):
            return _names(parse_yaml(text, where), where)
        numbered = _hyphenated(lines) or [found for line in lines if (found := _NUMBERED.fullmatch(line))]
        if lines and len(numbered) == len(lines):
            if odd := _commented(lines) or _behind_ids(numbered):
                raise PlanError(f"{where}: {odd}. {REMEDY}")
            return _in_turn([(int(found[1]), _unquoted(found[2])) for found in numbered], where)
        if (lines and all(line.startswith("- ") for line in lines)) or any(map(_ENTRY.fullmatch, lines)):
            return _names(parse_yaml(text, where), where)
    except DocumentError as error:
        raise PlanError(f"{error} {REMEDY}") from None
    if form := _foreign_form(lines, numbered):
        raise PlanError(f"{where}: {form}, not of one class a line. {REMEDY}")
    if odd := _heading(lines) or _commented(lines) or _marked(lines):
        raise PlanError(f"{where}: {odd}. {REMEDY}")
    return tuple(lines)


def _without_marks(lines: Sequence[str]) -> Sequence[str]:
    """Lines without the bullets or the quotes that all of them have."""
    for mark in _MARKS:
        found = [mark.fullmatch(line) for line in lines]
        if lines and all(found):
            lines = [each[1].strip() for each in found if each]
    return lines


def _heading(lines: Sequence[str]) -> str | None:
    if len(lines) > 1 and _HEADING.fullmatch(lines[0]):
        return f"begins with {shortened(lines[0])}, which seems to be a heading: take it out"
    return None


def _commented(lines: Sequence[str]) -> str | None:
    found = next(filter(_COMMENT.fullmatch, lines), None)
    return f"has the line {shortened(found)}, which seems to have a comment: take it out" if found else None


def _marked(lines: Sequence[str]) -> str | None:
    marks = (*_MARKS, _BULLET)
    found = next((line for line in lines if any(mark.fullmatch(line) for mark in marks)), None)
    if found and all(map(_BULLET.fullmatch, lines)):
        return f"has bullets without a space behind, or of several kinds ({shortened(found)})"
    return f"has a bullet or quotes in some lines and not in others ({shortened(found)})" if found else None


def _hyphenated(lines: Sequence[str]) -> list[re.Match[str]]:
    """Lines such as 0-road, if their numbers count; none, if they are parts of names."""
    found = [each for line in lines if (each := _HYPHENATED.fullmatch(line))]
    ids = sorted(int(each[1]) for each in found)
    counts = ids[:1] in ([0], [1]) and ids == [*range(ids[0], ids[0] + len(ids))]
    return found if counts and len(found) == len(lines) else []


def _names(content: Any, where: str) -> tuple[str, ...]:
    if isinstance(content, Mapping):
        content = next((content[name] for name in _UNDER if name in content), content)
    if isinstance(content, Mapping):
        content = {str(key) if type(key) is int else key: name for key, name in content.items()}
    return class_names(content, where)


def _in_turn(numbered: Sequence[tuple[int, str]], where: str) -> tuple[str, ...]:
    """The names behind the ids 0, 1, 2, ..., in any order."""
    ids = sorted(number for number, _ in numbered)
    if ids == [*range(1, len(ids) + 1)]:
        raise PlanError(
            f"{where}: numbers its classes from 1, so that the first row of a model could be the class 1, or one that "
            "is not listed. Write the names alone, one a line, from the first row on."
        )
    if ids != [*range(len(ids))]:
        raise PlanError(f"{where}: has lines of numbers and names, which do not count 0, 1, 2, ... in turn. {REMEDY}")
    return tuple(name for _, name in sorted(numbered))


def _unquoted(name: str) -> str:
    return name[1:-1].strip() if any(mark.fullmatch(name) for mark in _MARKS[1:]) else name


def _behind_ids(numbered: Sequence[re.Match[str]]) -> str | None:
    """Say what stands behind ids, if it is more than names."""
    names, line = [found[2] for found in numbered], numbered[0][0]
    with_commas = all("," in found[0][found.end(1) : found.start(2)] for found in numbered)
    return _table(names, "\t;|," if with_commas else "\t;|", line)


def _foreign_form(lines: Sequence[str], numbered: Sequence[re.Match[str]]) -> str | None:
    """Say what lines seem to be that are not names alone; None for names."""
    if not lines:
        return None
    if coded := next(filter(_CODE.search, lines), None):
        return f"seems to be made for a program ({shortened(coded)})"
    if 2 * len(numbered) > len(lines):
        return "most of its lines have a number before a name, and some have not, as in a table"
    if first := next((found[0] for found in numbered if int(found[1]) == 0), None):
        return f"has an id before a name in some lines ({shortened(first)}), and not in others"
    return _table(lines, "\t,;|", lines[0])


def _table(texts: Sequence[str], marks: str, line: str) -> str | None:
    """Say which table texts seem to be, of which the first is from `line`; None for names."""
    for mark in marks:
        counts = {text.count(mark) for text in texts}
        if len(counts) == 1 and counts != {0}:
            return f"seems to be a table of columns with {_COLUMNS[mark]} between ({shortened(line)})"
    if all(map(_COLOURED.search, texts)):
        return f"seems to be a table of colours ({shortened(line)})"
    last = [found for text in texts if (found := _NUMBER_LAST.fullmatch(text))]
    if len(last) == len(texts) and len({found[1] for found in last}) > 1:
        return f"has a number behind each name ({shortened(line)})"
    return None
