"""Report progress of long operations: a bar in terminals and notebooks, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from hf_lwmm.text import one_line

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, and how much there is


def silent(what: str, done: int, total: int) -> None:
    """Report nothing; the default wherever a `progress` may be given."""


def is_watched() -> bool:
    """Return True where a terminal or a notebook shows how far work is."""
    return "ipykernel" in str(type(sys.stderr)) or sys.stderr.isatty()  # a notebook's streams are no terminal's


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Return a context whose value is for `progress=` and shows how far the work is.

    It stays quiet where neither a notebook nor a terminal shows it.
    """
    if not is_watched():
        yield silent
        return
    from tqdm.auto import tqdm

    with tqdm(desc="Starting", leave=False, bar_format="{desc}: {percentage:3.0f}% |{bar}| {remaining}") as bar:

        def show(what: str, done: int, total: int) -> None:
            shown = one_line(what)
            if (shown, total) != (bar.desc, bar.total):
                bar.desc = shown
                bar.reset(total)
            bar.update(done - bar.n)

        yield show
