"""Arithmetic with spans: half-open pieces `(start, end)` of a file, in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

Span = tuple[int, int]


def total(spans: Iterable[Span]) -> int:
    """Return the number of bytes in spans that do not overlap."""
    return sum(end - start for start, end in spans)


def union(spans: Iterable[Span]) -> list[Span]:
    """Return the bytes of spans as sorted spans that neither overlap nor touch; empty ones are left out."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def align(spans: Iterable[Span], block: int, size: int) -> list[Span]:
    """Return the union of the blocks that spans touch; blocks have `block` bytes, and the last one ends at `size`."""
    return union((start // block * block, min(-(-end // block) * block, size)) for start, end in spans if start < end)


def subtract(spans: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """Return the bytes of `spans` that are not in `taken`, as sorted spans that neither overlap nor touch."""
    rest: list[Span] = []
    holes, first = union(taken), 0
    for start, end in union(spans):
        while first < len(holes) and holes[first][1] <= start:
            first += 1
        at = first
        while at < len(holes) and holes[at][0] < end:
            if start < holes[at][0]:
                rest.append((start, holes[at][0]))
            start, at = holes[at][1], at + 1
        if start < end:
            rest.append((start, end))
    return rest


def coalesce(spans: Iterable[Span], allowance: int) -> list[Span]:
    """Join spans over the smallest gaps between them, as long as these gaps have no more than `allowance` bytes."""
    apart = union(spans)
    gaps = sorted(((end, start) for (_, end), (start, _) in pairwise(apart)), key=lambda gap: gap[1] - gap[0])
    filled: list[Span] = []
    for start, end in gaps:
        allowance -= end - start
        if allowance < 0:
            break
        filled.append((start, end))
    return union([*apart, *filled])


def cut(spans: Iterable[Span], most: int) -> Iterator[Span]:
    """Yield spans in pieces of at most `most` bytes."""
    for start, end in spans:
        for first in range(start, end, most):
            yield first, min(first + most, end)
