"""Components of networks, and the layouts in which code bases store them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from hf_lwmm.layouts.forms import Form, Shape
from hf_lwmm.layouts.language import (
    LEAVES,
    Key,
    Line,
    Pattern,
    PatternIndex,
    generic,
    index_by_generic,
    read_lines,
    read_table,
)

ShapeTest = Callable[[Callable[[str], Shape]], bool]
# The direction and the length of a weight-normalised layer make up one weight, so they share a depth position.
_DEPTH_RANK = {leaf: LEAVES.index(leaf) for leaf in LEAVES} | {"weight_g": 0, "weight_v": 0}
_REMEMBERED = 1 << 14  # names of a layout; networks have up to some thousand
_T = TypeVar("_T")


@dataclass(frozen=True)
class Variant:
    """A known size of a component: the number of blocks in each stage and, where sizes share it, the first width."""

    name: str
    depths: tuple[int, ...]
    width: int | None = None


@dataclass(frozen=True)
class Kin:
    """A family of networks among those of a component: its name, and slots that only it has, taken together."""

    title: str
    slots: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A slot's place in an outline: the sort key of its module, the rank of its leaf, and the line's flags.

    `companion` is the slot, without the component's name, that is added to this one before it is used, or ''.
    """

    key: Key
    leaf_rank: int
    flags: frozenset[str]
    companion: str = ""


@dataclass(frozen=True)
class Component:
    """A part of a network, with the canonical names (slots) of its parameters in depth order.

    Every slot begins with `name` and a dot; `outline` gives the rest. `kind` is "backbone" or "head". `title` is the
    name for people. `variants` are the known sizes, told apart by the blocks of each stage and by dim 0 of
    `width_slot`. `kin` are families with names of their own, of which the first that fits is meant.
    """

    name: str
    kind: str
    title: str
    outline: str = field(repr=False)
    variants: tuple[Variant, ...] = field(default=(), repr=False)
    width_slot: str = field(default="", repr=False)
    kin: tuple[Kin, ...] = field(default=(), repr=False)

    @cached_property
    def _index(self) -> PatternIndex:
        return index_by_generic([(p, line) for line in read_table(self.outline) for p in line.left])

    def place(self, slot: str) -> Place | None:
        """Return the place in the outline of a slot, given without the component's name; None if it has none."""
        for pattern, line in self._index.get(generic(slot), ()):
            if (found := pattern.read(slot)) is not None:
                numbers, leaf = found
                return Place(line.key(numbers), _DEPTH_RANK.get(leaf, 0), line.flags, line.companion)
        return None


@dataclass(frozen=True)
class SlotPart:
    """A slot in a stored tensor: piece `index` of the `parts` pieces that its form cuts it into."""

    slot: str
    index: int
    parts: int
    form: Form


@dataclass(frozen=True)
class Layout:
    """The names under which one code base stores the parameters of a component, and how it stacks them.

    `name` is the component's name, a slash, and the code base's; `also` lists other code bases with the same names.
    `prefixes` are what may stand before the table's names in a file; the first one is used for writing. `beside` is a
    backbone that must be in the same file, for tables whose names, such as `fc`, would otherwise fit any network.
    `told_by` is a test of shapes for a table whose names are another's, too: it is given what returns the stored shape
    of a slot, or () for one that is not there.
    """

    name: str
    component: Component
    table: str = field(repr=False)
    prefixes: tuple[str, ...] = ("",)
    beside: Component | None = None
    also: tuple[str, ...] = ()
    told_by: ShapeTest | None = field(default=None, repr=False)

    @property
    def code_bases(self) -> tuple[str, ...]:
        """The code bases that store the component under these names."""
        return (self.name.partition("/")[2], *self.also)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the table."""
        return read_table(self.table)

    @cached_property
    def _index(self) -> PatternIndex:
        return index_by_generic([(line.left[0], line) for line in self.lines])

    @cached_property
    def _slot_index(self) -> PatternIndex:
        return index_by_generic([(pattern, line) for line in self.lines for pattern in line.right])

    def may_be_in(self, forms: Container[str], prefix: str) -> bool:
        """Return False if a line that is not optional matches none of a file's `generic` names under a generic prefix.

        This quick test rules out most layouts.
        """
        beginning = generic(prefix)
        likely = any(beginning + form in forms for form in self.first_required)
        return likely and all(any(beginning + form in forms for form in each) for each in self.required)

    @cached_property
    def first_required(self) -> tuple[str, ...]:
        """The first of `required`, for which most of the table stays unread."""
        return next(_required(read_lines(self.table)))

    @cached_property
    def required(self) -> tuple[tuple[str, ...], ...]:
        """The `generic` names of each line that is not optional."""
        return tuple(_required(self.lines))

    def suits(self, slots: Iterable[str]) -> bool:
        """Return False if slots lack a line that is not optional."""
        forms = {generic(found[0]) for slot in slots if (found := self.stored(slot))}
        needed = (line.left[0] for line in self.lines if line.right and not (line.optional or line.absent))
        return all(any(form in forms for form in pattern.generics) for pattern in needed)

    def agrees(self, tensors: Mapping[str, Shape], prefix: str) -> bool:
        """Return False if the shapes of a file's tensors tell that another table with these names is meant."""

        def stored_shape(slot: str) -> Shape:
            found = self.stored(f"{self.component.name}.{slot}")
            return tensors.get(prefix + found[0], ()) if found else ()

        return self.told_by is None or self.told_by(stored_shape)

    def lines_like(self, form: str) -> list[tuple[Pattern, Line]]:
        """Return the lines that can match names of this `generic` form, each with its pattern."""
        return self._index.get(form, [])

    def line_of(self, name: str) -> Line | None:
        """Return the first line that matches a stored name (without prefix), or None."""
        found = self._read(name)
        return found[0] if found else None

    def _read(self, name: str) -> tuple[Line, dict[str, int], str] | None:
        return _remembered(self._known, name, self._match)

    @cached_property
    def _known(self) -> dict[str, tuple[Line, dict[str, int], str]]:
        return {}

    def _match(self, name: str) -> tuple[Line, dict[str, int], str] | None:
        for pattern, line in self._index.get(generic(name), ()):
            if (found := pattern.read(name)) is not None:
                return (line, *found)
        return None

    def slots(self, name: str) -> tuple[SlotPart, ...]:
        """Return the slots that a stored tensor (without prefix) holds, in stacking order; () if no line matches."""
        found = self._read(name)
        if found is None:
            return ()
        line, numbers, leaf = found
        form = line.form(leaf)
        return tuple(
            SlotPart(f"{self.component.name}.{pattern.write(numbers, leaf)}", index, len(line.right), form)
            for index, pattern in enumerate(line.right)
        )

    def stored(self, slot: str) -> tuple[str, tuple[SlotPart, ...]] | None:
        """Return the name (without prefix) of the tensor that holds a slot, and all its slots; None if none does."""
        return _remembered(self._stored, slot, self._find)

    @cached_property
    def _stored(self) -> dict[str, tuple[str, tuple[SlotPart, ...]]]:
        return {}

    def _find(self, slot: str) -> tuple[str, tuple[SlotPart, ...]] | None:
        inner = slot.removeprefix(self.component.name + ".")
        for pattern, line in self._slot_index.get(generic(inner), ()):
            if (found := pattern.read(inner)) is not None and line.left[0].fits(found[0]):
                name = line.left[0].write(*found)
                return name, self.slots(name)
        return None

    def registration_key(self, name: str) -> Key:
        """Return a key that sorts stored names (without prefix) into the registration order of the code base."""
        found = self._read(name)
        assert found is not None
        line, numbers, leaf = found
        return (*line.key(numbers), LEAVES.index(leaf) if leaf else 0)


def _remembered(known: dict[str, _T], name: str, find: Callable[[str], _T | None]) -> _T | None:
    """Return what `find` finds for a name, from `known` if it was asked for before: a merge asks several times."""
    if (found := known.get(name)) is None and (found := find(name)) is not None:
        if len(known) >= _REMEMBERED:
            known.clear()
        known[name] = found
    return found


def _required(lines: Iterable[Line]) -> Iterator[tuple[str, ...]]:
    """The `generic` names of each line that is not optional."""
    return (tuple(line.left[0].generics) for line in lines if not (line.optional or line.absent))
