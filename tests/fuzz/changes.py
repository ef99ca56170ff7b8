"""Changes to the bytes of files and to the values of documents, drawn at random."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import yaml

EDGES = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 1 << 20, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
Change = Callable[[bytearray, random.Random, bytes], None]


def flip(content: bytearray, draw: random.Random, other: bytes) -> None:
    for _ in range(draw.choice((1, 1, 2, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def cut(content: bytearray, draw: random.Random, other: bytes) -> None:
    del content[draw.randrange(len(content)) :]


def splice(content: bytearray, draw: random.Random, other: bytes) -> None:
    content[draw.randrange(len(content)) :] = other[draw.randrange(len(other)) :]


def number(content: bytearray, draw: random.Random, other: bytes) -> None:
    """Write another number over a few bytes, as lengths and places are written."""
    size = draw.choice((1, 2, 4, 8))
    place = draw.randrange(len(content))
    value = draw.choice((draw.choice(EDGES), draw.randrange(2 * len(content)))) % (1 << 8 * size)
    content[place : place + size] = value.to_bytes(size, draw.choice(("little", "little", "big")))


def repeat(content: bytearray, draw: random.Random, other: bytes) -> None:
    begin = draw.randrange(len(content))
    piece = content[begin : begin + draw.choice((1, 4, 16, 64))]
    place = draw.randrange(len(content))
    content[place:place] = piece * draw.choice((1, 2, 50))


def drop(content: bytearray, draw: random.Random, other: bytes) -> None:
    begin = draw.randrange(len(content))
    del content[begin : begin + draw.choice((1, 2, 4, 16, 64))]


def digits(content: bytearray, draw: random.Random, other: bytes) -> None:
    """Write another number over one that stands in a text."""
    found = list(re.finditer(rb"-?\d+", content))
    if found:
        place = draw.choice(found)
        value = draw.choice((*EDGES, -1, int(place[0][:300]) + draw.choice((-1, 1)), 10**30))
        content[place.start() : place.end()] = str(value).encode()


BYTES: tuple[Change, ...] = (flip, cut, splice, number, repeat, drop)
TEXTS: tuple[Change, ...] = (flip, cut, splice, repeat, drop, digits)


def changed_bytes(
    content: bytes, draw: random.Random, other: bytes, changes: Sequence[Change] = BYTES, most: int = 3
) -> bytes:
    """The content after one to `most` changes."""
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, *range(2, most + 1)))):
        change = draw.choice(changes)
        if found:
            change(found, draw, other)
    return bytes(found)


# Values that a field was not made for.
_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 255, 256, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, 1e308,
    float("inf"), float("nan"), "", " ", "a", "0", "x" * 5000, "\0", "\x1b[31mred", "\u202eright to left", "\ud800",
    "../../../etc/passwd", "/etc/passwd", "# a\n\n<b>", "a | b ` c", "```\n# a\n```", "{{ 1 }}", "LABEL_0", "None",
    "nan", "1e3", [], {}, [[]], [None], {"": {}}, {"0": "a"}, {"1": "a", "01": "b"}, {"a": {"b": {"c": []}}},
    ["a", "a"], [1, 2, 3], [0] * 2000, {str(i): "c" for i in range(300)},
)  # fmt: skip


def _deep(levels: int) -> Any:
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


def _containers(value: Any) -> list[Any]:
    """All lists and mappings in a value that are not empty."""
    found = [value] if isinstance(value, dict | list) and value else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found + [each for one in inner for each in _containers(one)]


def _change_value(root: Any, draw: random.Random) -> Any:
    """Change a value of a document in its place; gives the document, which may be another one."""
    within = _containers(root)
    if not within or draw.random() < 0.03:
        return deepcopy(draw.choice(_ODD))
    holder = draw.choice(within)
    key = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    kind = draw.randrange(8)
    if kind < 4:
        holder[key] = deepcopy(draw.choice(_ODD))
    elif kind == 4:
        del holder[key]
    elif kind == 5:
        holder[key] = draw.choice((_deep(40), _deep(120), str(holder[key]), [holder[key]], {"a": holder[key]}))
    elif kind == 6 and isinstance(holder, dict):
        name = draw.choice((str(key) + " ", str(key).upper(), "__class__", "", str(key)[:-1], "nested." + str(key)))
        holder[name] = holder.pop(key)
    else:
        donor = draw.choice(within)
        holder[key] = deepcopy(draw.choice(list(donor.values() if isinstance(donor, dict) else donor)))
    return root


def changed_json(content: bytes, draw: random.Random, other: bytes) -> bytes:
    """A JSON text after changes to its values or, now and then, to its bytes."""
    if draw.random() < 0.3:
        return changed_bytes(content, draw, other, TEXTS)
    root = json.loads(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        root = _change_value(root, draw)
    text = json.dumps(root, ensure_ascii=draw.random() < 0.5)
    if draw.random() < 0.05:
        text = text.replace("{", '{"a": 1, "a": 2, ', 1)
    return text.encode("utf-8", "surrogatepass")


@cache
def _read_yaml(content: bytes) -> Any:
    return yaml.safe_load(content)


def changed_yaml(content: bytes, draw: random.Random, other: bytes) -> bytes:
    """A YAML text after changes to its values or, now and then, to its bytes."""
    if draw.random() < 0.3:
        return changed_bytes(content, draw, other, TEXTS)
    root = deepcopy(_read_yaml(content))
    for _ in range(draw.choice((1, 1, 2, 4))):
        root = _change_value(root, draw)
    if draw.random() < 0.1 and isinstance(root, dict):
        shared = ["x"]
        root["again"] = [shared, shared]
    text: str = yaml.safe_dump(root, allow_unicode=draw.random() < 0.5, sort_keys=False)
    return text.encode("utf-8", "surrogatepass")
