"""Spans against sets of single bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hf_lwmm.hub.ranges import Span, align, coalesce, cut, subtract, total, union

SIZE = 100
SPANS = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=8)


def bytes_of(spans: list[Span]) -> set[int]:
    return {byte for start, end in spans for byte in range(start, end)}


def is_tidy(spans: list[Span]) -> bool:
    inside = all(start < end for start, end in spans)
    return inside and all(end < start for (_, end), (start, _) in pairwise(spans))


@given(SPANS, SPANS)
def test_spans_are_joined_and_taken_away_byte_by_byte(spans: list[Span], taken: list[Span]) -> None:
    joined, rest = union(spans), subtract(spans, taken)
    assert bytes_of(joined) == bytes_of(spans) and is_tidy(joined) and total(joined) == len(bytes_of(spans))
    assert bytes_of(rest) == bytes_of(spans) - bytes_of(taken) and is_tidy(rest)


@given(SPANS, st.integers(1, 30))
def test_aligned_spans_are_the_blocks_that_are_touched(spans: list[Span], block: int) -> None:
    touched = {byte // block for byte in bytes_of(spans)}
    assert bytes_of(align(spans, block, SIZE)) == {byte for byte in range(SIZE) if byte // block in touched}


@given(SPANS, st.integers(0, 30))
def test_the_smallest_gaps_are_read_along(spans: list[Span], allowance: int) -> None:
    joined = coalesce(spans, allowance)
    along = bytes_of(joined) - bytes_of(spans)
    assert bytes_of(spans) <= bytes_of(joined) and is_tidy(joined) and len(along) <= allowance
    gaps = [start - end for (_, end), (start, _) in pairwise(joined)]
    assert all(len(along) + gap > allowance for gap in gaps)


@given(SPANS, st.integers(1, 30))
def test_pieces_are_no_longer_than_asked_for(spans: list[Span], most: int) -> None:
    pieces = list(cut(union(spans), most))
    assert bytes_of(pieces) == bytes_of(spans) and all(0 < end - start <= most for start, end in pieces)
