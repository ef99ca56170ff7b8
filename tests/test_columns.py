"""Tables in terminals: no word is broken, no line is wider than the terminal, and nothing is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hf_lwmm.text import drawn_table

HEADER = ("rank", "candidate", "mIoU", "interval", "to the best model", "interval", "to its anchor", "interval")
NAMES = ("layerwise of local/streets-gta*, local/streets-night, start=0.75", "local/streets-gta@26dc82c")
ROW = ("30.57", "27.85 to 32.87", "+3.87", "+1.93 to +5.79", "+3.87", "+1.93 to +5.79")


def rows(count: int = 2) -> list[tuple[str, ...]]:
    return [(f"{rank + 1}{' =' * (rank > 0)}", NAMES[rank % 2], *ROW) for rank in range(count)]


def test_a_table_that_fits_is_one_line_a_row() -> None:
    lines = drawn_table(("model", "mIoU"), [("a", "1.00"), ("two words", "20.00")], 80)
    assert lines == ["model       mIoU", "a           1.00", "two words  20.00"]
    wide = drawn_table(HEADER, rows(), 160, text=1)
    assert wide[-2].startswith(f"1     {NAMES[0]}") and wide[-2].endswith(ROW[5]) and wide[-1].startswith("2 =   local")


def test_names_that_do_not_fit_stand_above_a_table_of_their_numbers() -> None:
    lines = drawn_table(HEADER, rows(), 80, text=1)
    assert lines[:3] == [f"1    {NAMES[0]}", f"2 =  {NAMES[1]}", ""]
    assert lines[-2].split("  ")[-1].strip() == ROW[5] and lines[-2].strip().startswith("1     30.57  27.85 to 32.87")
    assert all(len(line) <= 80 for line in lines)


def test_columns_that_do_not_fit_follow_below_an_interval_with_its_value() -> None:
    lines = drawn_table(HEADER, rows(), 40, text=1)
    parts = "\n".join(lines[2:]).strip("\n").split("\n\n")
    assert len(parts) > 1 and all(part.splitlines()[-1].startswith("2 =") for part in parts)
    assert all(len(line) <= 40 for part in parts for line in part.splitlines())
    assert [part.split().count("interval") for part in parts] == [1, 1, 1]


@given(
    cells=st.lists(st.tuples(*[st.sampled_from(["", "1.00", "+1.93 to +5.79", "a b"])] * 4), max_size=4),
    width=st.integers(40, 90),
)
def test_every_cell_is_there_whole_and_within_the_width(cells: list[tuple[str, ...]], width: int) -> None:
    header = ("model", "mIoU", "to the anchor", "interval")
    lines = drawn_table(header, cells, width)
    text = "\n".join(lines)
    for row in cells:
        assert all(cell in text for cell in row)
    tabled = lines[lines.index("") :] if "" in lines else lines
    assert all(len(line) <= width for line in tabled)


def test_what_names_hold_is_not_obeyed() -> None:
    (_, line) = drawn_table(("model",), [("a\nb\x1b[2J",)], 80)
    assert line == "a b\\u001b[2J"


def test_names_in_a_header_are_numbered_where_they_do_not_fit() -> None:
    header, cells = ("IoU", *NAMES), [("a class", "1.0", "2.0 (+1.0)")]
    lines = drawn_table(header, cells, 40, named=True)
    assert lines == [f"1  {NAMES[0]}", f"2  {NAMES[1]}", "", "IoU        1           2", "a class  1.0  2.0 (+1.0)"]
    assert drawn_table(header, cells, 160, named=True)[-1].startswith("a class ")
