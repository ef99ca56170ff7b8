"""The language that layouts are written in: tables of names, read from text.

A *component* is a part of a network (a MiT backbone, a DAFormer head). Its outline lists its modules in the
order in which a forward pass first uses them. A *layout* lists how one code base calls these modules, in the
order in which that code registers them. Both are text of the same shape:

    for s:                                       # once for every stage s = 0, 1, ...
        patch_embed{s+1}.proj = stage{s}.embed.proj
        for b:
            block{s+1}.{b}.attn.kv = stage{s}.block{b}.attn.k | stage{s}.block{b}.attn.v

| written | means |
| --- | --- |
| `{s}` `{s+1}` `{3-s}` | the number s, shifted, or counted down |
| `a = b` | stored module a holds slot b; `a = b | c` holds b above c, stacked along dim 0 |
| `a` (layout) | stored module a must be in the file, and is registered here; another line or component has its slots |
| `a & b` (outline) | a and b run side by side and share a depth position |
| `for i:` / `for i reversed:` / `for i together:` | ascending, descending, all i share a position |
| `? ` before a line | not every network of the kind has it |
| `(1x1)`, `(7x7)` after a line | the stored weight is a convolution of this size where the slot is a matrix |
| `(classes)` (outline) | dim 0 counts classes: shared only between equal label sets |
| `(unused)` (outline) | stored, but never used by a forward pass |
| `{leaf}` | where weight, bias, ... stands in the name; at the end after a dot if not written |
| `name!` | a parameter of its own, no module with leaves |
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from hf_lwmm.errors import LayoutError

# In the order in which torch registers them, which is also the order in which a module uses them.
LEAVES = ("weight", "bias", "weight_g", "weight_v", "running_mean", "running_var", "num_batches_tracked")
# A weight-normalised layer's two tensors are one weight (its direction and its length): one depth position.
_DEPTH_RANK = {leaf: LEAVES.index(leaf) for leaf in LEAVES} | {"weight_g": 0, "weight_v": 0}
_VARIABLE = re.compile(r"\{(?:(?P<from>\d+)-)?(?P<name>[a-z]+)(?:\+(?P<plus>\d+))?\}")
_LINE = re.compile(r"^(?P<optional>\? )?(?P<body>.*?)(?P<flags>(?:\s+\((?:\d+x\d+|classes|unused)\))*)$")
_LOOP = re.compile(r"^for (?P<name>[a-z]+)(?: (?P<kind>reversed|together))?:$")

Key = tuple[int, ...]


def generic(name: str) -> str:
    """The name with every number replaced by `#`: equal for all names that one pattern can match."""
    return re.sub(r"\d+", "#", name)


@dataclass(frozen=True)
class Pattern:
    """A name with numbers in it, such as `block{s+1}.{b}.attn.q`; reads names and writes them."""

    text: str

    @cached_property
    def _full(self) -> str:
        if self.text.endswith("!"):
            return self.text[:-1]
        return self.text if "{leaf}" in self.text else self.text + ".{leaf}"

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts, end = [], 0
        for match in _VARIABLE.finditer(self._full):
            parts.append(re.escape(self._full[end : match.start()]))
            name = match["name"]
            parts.append(f"(?P<leaf>{'|'.join(LEAVES)})" if name == "leaf" else rf"(?P<{name}>0|[1-9]\d*)")
            end = match.end()
        return re.compile("".join([*parts, re.escape(self._full[end:])]) + r"\Z")

    @cached_property
    def _shifts(self) -> dict[str, tuple[int, int]]:
        """For each variable (sign, offset): the written number is offset + sign * value."""
        return {
            m["name"]: (-1, int(m["from"])) if m["from"] else (1, int(m["plus"] or 0))
            for m in _VARIABLE.finditer(self._full)
            if m["name"] != "leaf"
        }

    def generics(self) -> Iterator[str]:
        """`generic(name)` of every name that this pattern can match."""
        form = generic(_VARIABLE.sub(lambda match: "{leaf}" if match["name"] == "leaf" else "0", self._full))
        for leaf in LEAVES if "{leaf}" in form else ("",):
            yield form.replace("{leaf}", leaf)

    def read(self, name: str) -> tuple[dict[str, int], str] | None:
        """The numbers in a name and its leaf ('' for a parameter of its own), or None if it does not match."""
        match = self._regex.match(name)
        if match is None:
            return None
        found = match.groupdict()
        leaf = found.pop("leaf", "")
        numbers = {key: sign * (int(found[key]) - offset) for key, (sign, offset) in self._shifts.items()}
        return (numbers, leaf) if all(number >= 0 for number in numbers.values()) else None

    def write(self, numbers: Mapping[str, int], leaf: str) -> str:
        """The name for these numbers and this leaf."""

        def number(match: re.Match[str]) -> str:
            if match["name"] == "leaf":
                return leaf
            sign, offset = self._shifts[match["name"]]
            return str(offset + sign * numbers[match["name"]])

        return _VARIABLE.sub(number, self._full)


@dataclass(frozen=True)
class Line:
    """One line of a table: patterns on both sides, flags, and where it stands in the order."""

    left: tuple[Pattern, ...]
    right: tuple[Pattern, ...]
    flags: frozenset[str]
    optional: bool
    place: tuple[int | str, ...]  # integers, and names of loop variables ('-i' reversed, absent if together)

    @cached_property
    def window(self) -> Key:
        """The size of the stored convolution where the slot is a matrix, or ()."""
        return next((tuple(map(int, flag.split("x"))) for flag in self.flags if flag[0].isdigit()), ())

    def key(self, numbers: Mapping[str, int]) -> Key:
        """Where the line stands for these numbers; keys of one table sort in its order."""
        return tuple(
            part if isinstance(part, int) else -numbers[part[1:]] if part[0] == "-" else numbers[part]
            for part in self.place
        )


def read_table(text: str) -> tuple[Line, ...]:
    """Read the lines of a table.

    Raises:
        LayoutError: for a line that cannot be read.
    """
    lines: list[Line] = []
    counters = [0]
    places: list[tuple[int | str, ...]] = [()]
    for raw in text.splitlines():
        content = raw.split("#")[0].rstrip()
        if not content:
            continue
        depth, rest = divmod(len(content) - len(content.lstrip()), 4)
        if rest or depth >= len(counters):
            raise LayoutError(f"Layout table: the indentation of {raw!r} does not fit the line above it.")
        del counters[depth + 1 :], places[depth + 1 :]
        place: tuple[int | str, ...] = (*places[depth], counters[depth])
        counters[depth] += 1
        if loop := _LOOP.match(content.strip()):
            variable = {"reversed": ("-" + loop["name"],), "together": (), None: (loop["name"],)}[loop["kind"]]
            counters.append(0)
            places.append((*place, *variable))
        else:
            lines.append(_read_line(content.strip(), place))
    return tuple(lines)


def _read_line(content: str, place: tuple[int | str, ...]) -> Line:
    match = _LINE.match(content)
    assert match is not None
    left, equals, right = match["body"].partition(" = ")
    if not left or (equals and not right):
        raise LayoutError(f"Layout table: cannot read {content!r}.")
    return Line(
        left=tuple(Pattern(part.strip()) for part in left.split(" & ")),
        right=tuple(Pattern(part.strip()) for part in right.split(" | ")) if equals else (),
        flags=frozenset(re.findall(r"\((.*?)\)", match["flags"])),
        optional=match["optional"] is not None,
        place=place,
    )


def index_by_generic(entries: list[tuple[Pattern, Line]]) -> dict[str, list[tuple[Pattern, Line]]]:
    """The lines that can match a name, by the name's generic form."""
    index: dict[str, list[tuple[Pattern, Line]]] = {}
    for pattern, line in entries:
        for name in pattern.generics():
            index.setdefault(name, []).append((pattern, line))
    return index


@dataclass(frozen=True)
class Variant:
    """A known size of a component: blocks in each stage and, where sizes differ in it, the first width."""

    name: str
    depths: tuple[int, ...]
    width: int | None = None


@dataclass(frozen=True)
class Place:
    """What an outline says of a slot."""

    key: Key  # of its module, in depth order inside the component
    leaf_rank: int
    flags: frozenset[str]


@dataclass(frozen=True)
class Component:
    """A part of a network and the canonical names (slots) of its parameters, in depth order.

    `name` starts every slot. `kind` is "backbone" or "head". `title` names an unknown size in messages.
    """

    name: str
    kind: str
    title: str
    outline: str = field(repr=False)
    variants: tuple[Variant, ...] = field(default=(), repr=False)
    width_slot: str = field(default="", repr=False)

    @cached_property
    def _index(self) -> dict[str, list[tuple[Pattern, Line]]]:
        return index_by_generic([(p, line) for line in read_table(self.outline) for p in line.left])

    def place(self, slot: str) -> Place | None:
        """Where the outline has a slot (given without the component's name), or None."""
        for pattern, line in self._index.get(generic(slot), ()):
            if (found := pattern.read(slot)) is not None:
                numbers, leaf = found
                return Place(line.key(numbers), _DEPTH_RANK.get(leaf, 0), line.flags)
        return None


@dataclass(frozen=True)
class SlotPart:
    """One slot held by a stored tensor, `index` of `parts` equal pieces along dim 0."""

    slot: str
    index: int
    parts: int
    flat: Key  # the two trailing dimensions of the stored weight that the slot's last one takes in, or ()


@dataclass(frozen=True)
class Layout:
    """How one code base names and stacks the parameters of a component.

    `name` is the component's, a slash, and the code base's; `also` are other code bases with the same names.
    `prefixes` are what may stand before the table's names in a file; the first is the one that is written.
    `beside` is the backbone without which names as common as `fc` say nothing.
    """

    name: str
    component: Component
    table: str = field(repr=False)
    prefixes: tuple[str, ...] = ("",)
    beside: Component | None = None
    also: tuple[str, ...] = ()

    @property
    def code_bases(self) -> tuple[str, ...]:
        """The code bases that store the component so."""
        return (self.name.partition("/")[2], *self.also)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        return read_table(self.table)

    @cached_property
    def _index(self) -> dict[str, list[tuple[Pattern, Line]]]:
        return index_by_generic([(line.left[0], line) for line in self.lines])

    @cached_property
    def _slot_index(self) -> dict[str, list[tuple[Pattern, Line]]]:
        return index_by_generic([(pattern, line) for line in self.lines for pattern in line.right])

    def may_be_in(self, forms: Container[str], prefix: str) -> bool:
        """Whether every line that is not optional could match one of these `generic` names; quickly said of most."""
        return all(
            line.optional or any(prefix + form in forms for form in line.left[0].generics()) for line in self.lines
        )

    def lines_like(self, form: str) -> list[tuple[Pattern, Line]]:
        """The lines, with their patterns, that can match names whose `generic` form this is."""
        return self._index.get(form, [])

    def line_of(self, name: str) -> Line | None:
        """The table's line for a stored name without its prefix; the first if there are several."""
        found = self._read(name)
        return found[0] if found else None

    def _read(self, name: str) -> tuple[Line, dict[str, int], str] | None:
        for pattern, line in self._index.get(generic(name), ()):
            if (found := pattern.read(name)) is not None:
                return (line, *found)
        return None

    def slots(self, name: str) -> tuple[SlotPart, ...]:
        """The slots that a stored tensor holds, top to bottom; empty if the table does not have the name."""
        found = self._read(name)
        if found is None:
            return ()
        line, numbers, leaf = found
        flat = line.window if leaf.startswith("weight") else ()
        return tuple(
            SlotPart(f"{self.component.name}.{pattern.write(numbers, leaf)}", index, len(line.right), flat)
            for index, pattern in enumerate(line.right)
        )

    def stored(self, slot: str) -> tuple[str, tuple[SlotPart, ...]] | None:
        """The stored name (without prefix) that holds a slot, and all that it holds; None if there is none."""
        inner = slot.removeprefix(self.component.name + ".")
        for pattern, line in self._slot_index.get(generic(inner), ()):
            if (found := pattern.read(inner)) is not None:
                name = line.left[0].write(*found)
                return name, self.slots(name)
        return None

    def registration_key(self, name: str) -> Key:
        """Sorts stored names (without prefix) into the order in which the layout's own code registers them."""
        found = self._read(name)
        assert found is not None
        line, numbers, leaf = found
        return (*line.key(numbers), LEAVES.index(leaf) if leaf else 0)
