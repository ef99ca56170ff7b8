"""The language of the tables: lines of names with numbers in them, read from text.

A *component* is a part of a network, such as a MiT backbone or a DAFormer head. Its *outline* lists its modules in the
order in which a forward pass first uses them. A *layout* lists the names that one code base gives to these modules, in
the order in which its code registers them. Both are text of the same form:

    for s:                                       # once for each stage s = 0, 1, ...
        patch_embed{s+1}.proj = stage{s}.embed.proj
        for b:
            block{s+1}.{b}.attn.kv = stage{s}.block{b}.attn.k | stage{s}.block{b}.attn.v

| written | meaning |
| --- | --- |
| `{s}` `{s+1}` `{3-s}` | the number s, s + 1, or 3 - s |
| `{s,b:1x-2-3+1}` | the number of block b of stage s in a single row of blocks, whose first has number 1; here stages \
have 1, 2 and 3 blocks, and those of a stage with an x are counted, but not meant |
| `a = b` | the stored module a holds slot b |
| `a = b | c` | the stored module a holds b and c, stacked along dim 0 in this order |
| `a` (layouts) | the stored module a must be in the file and is registered here; another line or table has its slots |
| `a & b` (outlines) | a and b run side by side and share a depth position |
| `for i:` `for i reversed:` `for i together:` | i counts up, i counts down, or all i share a depth position |
| `? ` before a line | not every network of the kind has the module |
| `no a` (layouts) | the stored module a must not be in the file: it is another family's |
| `(1x1)` `(7x7)` after a line | the stored weight is a convolution with this kernel, the slot a matrix |
| `(1x1?)` after a line | the stored weight is a matrix or such a convolution, the slot a matrix |
| `(+1d)` `(+3d)` after a line | the stored tensors have so many axes of length 1 before those of the slot |
| `(-1d)` `(-2d)` after a line | the slot has so many axes of length 1 before those of the stored tensors |
| `(unfolded)` after a line | the last axis has 2x2 pixels for each channel, the slot's channels for each pixel |
| `a = b | c (tokens)` | the stored rows are tokens: b has those before a square grid, c the grid |
| `a = b | c (tokens?)` | the same, but there may be none before the grid, and then there is no b |
| `(classes)` (outlines) | dim 0 counts classes, so the slot is shared only between equal label sets |
| `(background)` (outlines) | before the classes, dim 0 counts the background |
| `(boxes)` (outlines) | dim 0 counts four coordinates of a box for each class |
| `(unused)` (outlines) | the weights are stored, but no forward pass uses them |
| `(constant)` (outlines) | computed when the network is built, though stored beside its weights |
| `(pretraining)` (outlines) | only pre-training with masked images uses it: a layout without it can do without |
| `(grid)` (outlines) | the tokens of a square grid of patches, which can be interpolated to another grid |
| `(relative)` (outlines) | relative positions in a square window: such a grid, too, and perhaps rows behind it |
| `(with x)` (outlines) | slot x is added to it before it is used; a network that has no x stores the sum |
| `{leaf}` | weight, bias, ...; appended to the name after a dot if not written |
| `name!` | a parameter itself, not a module with leaves |
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hf_lwmm.errors import LayoutError
from hf_lwmm.layouts.forms import Form

# In the order in which torch registers them, which is also the order in which a module uses them.
LEAVES = ("weight", "bias", "weight_g", "weight_v", "running_mean", "running_var", "num_batches_tracked")

_VARIABLE = re.compile(
    r"\{(?:(?P<from>\d+)-)?(?P<name>[a-z]+(?:,[a-z]+:(?P<row>\d+x?(?:-\d+x?)*))?)(?:\+(?P<plus>\d+))?\}"
)
_FLAG = (
    r"\d+x\d+\??|[+-]\d+d|unfolded|tokens\??|"  # of layouts
    r"classes|background|boxes|unused|constant|grid|relative|pretraining|with [\w.]+"  # of outlines
)
_LINE = re.compile(rf"^(?:(?P<optional>\?) |(?P<absent>no) )?(?P<body>.*?)(?P<flags>(?:\s+\((?:{_FLAG})\))*)$")
_LOOP = re.compile(r"^for (?P<name>[a-z]+)(?: (?P<kind>reversed|together))?:$")
_NUMBER = re.compile(r"\d+")
_VARIABLE_OR_NUMBER = re.compile(rf"{_VARIABLE.pattern}|\d+")
_DIGITS = 9  # of a number in a name, at most
_KERNEL = re.compile(r"\d+x\d+\??")

Key = tuple[int, ...]


def generic(name: str) -> str:
    """Return the name with every number replaced by `#`; the names that a pattern matches share a few such forms."""
    return _NUMBER.sub("#", name)


def _variable(match: re.Match[str]) -> str:
    """The name of a variable, without the sizes of a row of blocks."""
    return match["name"].partition(":")[0]


@dataclass(frozen=True)
class Row:
    """The blocks of all stages in one row: the variables of stage and block, each stage's size, and if it is meant."""

    stage: str
    block: str
    sizes: tuple[int, ...]
    meant: tuple[bool, ...]

    @classmethod
    def read(cls, text: str) -> Row:
        """Read a row such as `s,b:1x-2-3`."""
        names, _, row = text.partition(":")
        stage, block = names.split(",")
        sizes = row.split("-")
        return cls(
            stage, block, tuple(int(size.rstrip("x")) for size in sizes), tuple(size[-1] != "x" for size in sizes)
        )

    def split(self, number: int) -> dict[str, int] | None:
        """Return the stage and block that have a number in the row, None if none that is meant has."""
        for stage, (size, meant) in enumerate(zip(self.sizes, self.meant, strict=True)):
            if 0 <= number < size:
                return {self.stage: stage, self.block: number} if meant else None
            number -= size
        return None

    def join(self, numbers: Mapping[str, int]) -> int | None:
        """Return the number in the row of a stage's block, None if there is none that is meant."""
        stage, block = numbers[self.stage], numbers[self.block]
        if stage >= len(self.sizes) or block >= self.sizes[stage] or not self.meant[stage]:
            return None
        return sum(self.sizes[:stage]) + block


@dataclass(frozen=True)
class Pattern:
    """A name with numbers in it, such as `block{s+1}.{b}.attn.q`, which reads and writes actual names."""

    text: str

    @cached_property
    def _full(self) -> str:
        if self.text.endswith("!"):
            return self.text[:-1]
        return self.text if "{leaf}" in self.text else self.text + ".{leaf}"

    @cached_property
    def _numbers(self) -> tuple[str, ...]:
        """The numbers of a name in their order: the names of variables, and others as they are written."""
        found = (match for match in _VARIABLE_OR_NUMBER.finditer(self._full) if match["name"] != "leaf")
        return tuple(_variable(match) if match["name"] else match[0] for match in found)

    @cached_property
    def _shifts(self) -> dict[str, tuple[int, int]]:
        """The sign and offset of each variable: the written number is offset + sign * value."""
        return {
            _variable(m): (-1, int(m["from"])) if m["from"] else (1, int(m["plus"] or 0))
            for m in _VARIABLE.finditer(self._full)
            if m["name"] != "leaf"
        }

    @cached_property
    def _rows(self) -> dict[str, Row]:
        """The rows of blocks that variables number."""
        return {_variable(m): Row.read(m["name"]) for m in _VARIABLE.finditer(self._full) if m["row"]}

    @cached_property
    def generics(self) -> Mapping[str, str]:
        """The `generic` form of every name that the pattern can match, with the leaf of these names."""
        form = generic(_VARIABLE.sub(lambda match: "{leaf}" if match["name"] == "leaf" else "0", self._full))
        return {form.replace("{leaf}", leaf): leaf for leaf in (LEAVES if "{leaf}" in form else ("",))}

    def read(self, name: str) -> tuple[dict[str, int], str] | None:
        """Return the numbers in a name and its leaf ('' for a parameter itself), or None if it does not match."""
        leaf, texts = self.generics.get(generic(name)), _NUMBER.findall(name)
        if leaf is None or len(texts) != len(self._numbers):  # a # of the name itself is no number
            return None
        numbers: dict[str, int] = {}
        for own, text in zip(self._numbers, texts, strict=True):
            if own not in self._shifts:
                if own != text:
                    return None
                continue
            if len(text) > _DIGITS or str(int(text)) != text:  # 01 is no number of a block
                return None
            sign, offset = self._shifts[own]
            value = sign * (int(text) - offset)
            if numbers.setdefault(own, value) != value:
                return None
        for key, row in self._rows.items():
            if (both := row.split(numbers.pop(key))) is None:
                return None
            numbers |= both
        return (numbers, leaf) if all(number >= 0 for number in numbers.values()) else None

    def fits(self, numbers: Mapping[str, int]) -> bool:
        """Return False if a row of blocks in the pattern has no block of these numbers."""
        return all(row.join(numbers) is not None for row in self._rows.values())

    def write(self, numbers: Mapping[str, int], leaf: str) -> str:
        """Return the name with these numbers, which must fit, and this leaf."""
        written = {"leaf": leaf}
        for key, (sign, offset) in self._shifts.items():
            value = self._rows[key].join(numbers) if key in self._rows else numbers[key]
            assert value is not None
            written[key] = str(offset + sign * value)
        return self._template % written

    @cached_property
    def _template(self) -> str:
        """The name with `%(s)s` for each variable s."""
        return _VARIABLE.sub(lambda match: f"%({_variable(match)})s", self._full)


def row(sizes: Sequence[int], meant: Collection[int], first: int = 0) -> str:
    """Return a variable for the blocks of some stages, by their indices, in a row of the blocks of all.

    Args:
        sizes: the number of blocks of each stage.
        meant: the stages that are.
        first: the number of the first block of all.
    """
    marked = "-".join(f"{size}{'' if stage in meant else 'x'}" for stage, size in enumerate(sizes))
    return f"{{s,b:{marked}+{first}}}"


@dataclass(frozen=True)
class Line:
    """A line of a table: the patterns on both sides, its flags, and its place in the order.

    A line that is `absent` names what must not be in a file; nothing is required of one that is `optional`.
    `place` has the number of the line on each level of indentation. The number of a loop is followed by the loop's
    variable: "i", or "-i" if reversed, or nothing if all values share a position.
    """

    left: tuple[Pattern, ...]
    right: tuple[Pattern, ...]
    flags: frozenset[str]
    optional: bool
    absent: bool
    place: tuple[int | str, ...]

    def form(self, leaf: str) -> Form:
        """Return how the stored tensor of this leaf differs from its slots."""
        kernel = next((flag for flag in self.flags if _KERNEL.fullmatch(flag)), "")
        ones = next((int(flag[:-1]) for flag in self.flags if flag[0] in "+-"), 0)
        if not kernel or not leaf.startswith("weight"):
            tokens = not self.flags.isdisjoint({"tokens", "tokens?"})
            return Form(ones=ones, unfolded="unfolded" in self.flags, tokens=tokens, bare="tokens?" in self.flags)
        height, width = kernel.removesuffix("?").split("x")
        return Form(kernel=(int(height), int(width)), perhaps=kernel.endswith("?"))

    @cached_property
    def companion(self) -> str:
        """The slot that is added to the line's before it is used, or ''."""
        return next((flag.removeprefix("with ") for flag in self.flags if flag.startswith("with ")), "")

    def key(self, numbers: Mapping[str, int]) -> Key:
        """Return the line's place for these numbers; sorting by it gives the order of the table."""
        return tuple(
            part if isinstance(part, int) else -numbers[part[1:]] if part[0] == "-" else numbers[part]
            for part in self.place
        )


PatternIndex = dict[str, list[tuple[Pattern, Line]]]  # generic form -> patterns that can match it, with their lines


def read_table(text: str) -> tuple[Line, ...]:
    """Read the lines of a table.

    Raises:
        LayoutError: for a line that does not belong to the language.
    """
    return tuple(read_lines(text))


def read_lines(text: str) -> Iterator[Line]:
    """Yield the lines of a table, each as soon as it is read. Raises LayoutError as `read_table`."""
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
            yield _read_line(content.strip(), place)


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
        absent=match["absent"] is not None,
        place=place,
    )


def index_by_generic(entries: list[tuple[Pattern, Line]]) -> PatternIndex:
    """Index patterns and their lines by the `generic` forms of the names that they can match."""
    index: PatternIndex = {}
    for pattern, line in entries:
        for name in pattern.generics:
            index.setdefault(name, []).append((pattern, line))
    return index
