"""Draw a table of a width in characters, without breaking a word or leaving anything out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from textwrap import wrap

from hf_lwmm.text.printable import one_line

_GAP = "  "
_Column = list[str]  # a header and the cells


def drawn_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], width: int, text: int = 0, *, named: bool = False
) -> list[str]:
    """Return the lines of a table.

    Where the names of the rows leave too little room they stand above, and the table has their numbers; where that does
    not do either, the table is cut into parts below each other, each with the numbers. Only a name alone may be wider.

    Args:
        header: the names of the columns, which are broken between words.
        rows: as many cells in each.
        width: the characters in a line.
        text: the column of the rows' names, which is aligned to the left, all others to the right. Columns before it
            number the rows.
        named: the header has names, which are numbered in the place of the rows' names.
    """
    columns = [[one_line(cell) for cell in column] for column in zip(header, *rows, strict=True)]
    if _taken(_widths(columns), range(len(columns))) <= width:
        return _lines(columns, text + 1)
    if named:
        names = [column[0] for column in columns[1:]]
        numbers = _numbers(names)
        columns = [columns[0], *([number, *column[1:]] for number, column in zip(numbers, columns[1:], strict=True))]
    else:
        what, *names = columns.pop(text)
        if not text:
            columns.insert(0, [what, *_numbers(names)])
        numbers = columns[0][1:]
    wide = max(map(_size, numbers), default=0)
    lines = [f"{_padded(number, wide, left=True)}{_GAP}{name}" for number, name in zip(numbers, names, strict=True)]
    for part in _parts(columns, width):
        lines += ["", *_lines([columns[place] for place in part], 1)]
    return lines


def _numbers(names: Sequence[str]) -> list[str]:
    return [str(number) for number in range(1, len(names) + 1)]


def _parts(columns: Sequence[_Column], width: int) -> list[list[int]]:
    """The columns of each part, the first in all of them; an interval stands beside the value that it belongs to."""
    widths, parts = _widths(columns), [[0]]
    starts = [place for place in range(1, len(columns)) if columns[place][0] != "interval" or place == 1]
    for start, end in pairwise([*starts, len(columns)]):
        added = [*range(start, end)]
        if len(parts[-1]) > 1 and _taken(widths, [*parts[-1], *added]) > width:
            parts.append([0])
        parts[-1] += added
    return parts


def _taken(widths: Sequence[int], part: Sequence[int]) -> int:
    return sum(widths[each] for each in part) + len(_GAP) * (len(part) - 1)


def _widths(columns: Sequence[_Column]) -> list[int]:
    """The width of each column: its widest cell or the longest word of its header."""
    return [max(map(_size, (*column[0].split(), *column[1:])), default=0) for column in columns]


def _lines(columns: Sequence[_Column], left: int) -> list[str]:
    """The lines of columns side by side, the first `left` of which are aligned to the left.

    The words of a header stand above each other where its column is narrow.
    """
    widths = _widths(columns)
    pairs = zip(columns, widths, strict=True)
    heads = [wrap(column[0], max(width, 1), break_long_words=False) for column, width in pairs]
    high = max(map(len, heads), default=0)
    stacked = [[""] * (high - len(head)) + head for head in heads]
    lines = []
    for row in (*zip(*stacked, strict=True), *zip(*(column[1:] for column in columns), strict=True)):
        cells = (_padded(cell, widths[place], left=place < left) for place, cell in enumerate(row))
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _padded(text: str, width: int, *, left: bool) -> str:
    space = " " * (width - _size(text))
    return text + space if left else space + text


def _size(text: str) -> int:
    """The columns of a terminal that a text takes: two for wide characters, none for those that join another."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
