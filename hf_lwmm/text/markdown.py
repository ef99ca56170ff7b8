"""Write Markdown: text of others is shown as it is, and makes no heading, link, code or HTML of its own.

A `Markdown` is Markdown already; any other text is escaped where it is put into one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from hf_lwmm.text.printable import one_line, printable

# Underscores within words, and the star after the name of an anchor, begin nothing.
_ACTIVE = re.compile(r"[\\`\[\]<>#~$&]|(?<![^\W_])_|_(?![^\W_])|\*(?!(?<=[^\W_]\*)(?:[\s,;)]|$))")
_ESCAPED = r"\\\g<0>"
# At the start of a line these begin a list, underline a heading or draw a rule.
_FIRST = re.compile(r"^(?:(\d+)(?=[.)](?:\s|$))|(?=[-+](?:[-\s]|$)|=+$))")
# What GitHub and many other readers make a link of wherever it stands in text, escaped or not: addresses of the web and
# of e-mail, names of users and numbers of issues; also names of emoji, of which they make pictures.
_LINKED = re.compile(r"://|www\.|(?:mailto|xmpp):|[\w.+-]@[\w-]+\.\w|(?<!\w)@\w|#\d|\bgh-\d|:[\w+-]+:", re.IGNORECASE)
_AROUND = re.compile(r"""([(\["'<]*)(.*?)([)\]"'>,;:.!?]*)""")  # a word, and the marks before and after it
_URL = "/:?#@!$&'+,;=%~"  # characters that stay in an address


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def as_markdown(value: object) -> Markdown:
    """Return Markdown as it is, and anything else as `plain` text."""
    return value if isinstance(value, Markdown) else plain(value)


def plain(value: object) -> Markdown:
    """Return a value's text, on one line, as Markdown that shows just this text.

    Words that readers of Markdown would make links of by themselves are code, in which they make none.

    Where it begins a line, no stop follows it: one after a number would make a list.
    """
    return Markdown(_FIRST.sub(r"\g<0>\\", _cell(value)))


def _cell(value: object) -> str:
    """A value's text as a part of a line, which may be a cell of a table."""
    return "".join(map(_piece, re.split("([ |])", one_line(str(value)))))


def _piece(text: str) -> str:
    """A word, a space or a vertical line as Markdown."""
    if text == "|":
        return "&#124;"
    if _LINKED.search(text) is None or (parts := _AROUND.fullmatch(text)) is None:
        return _ACTIVE.sub(_ESCAPED, text)
    before, word, after = parts.groups()
    return f"{_ACTIVE.sub(_ESCAPED, before)}{code(word)}{_ACTIVE.sub(_ESCAPED, after)}"


def code(value: object) -> Markdown:
    """Return a value's text, on one line, as code.

    A text with a vertical line, which not every reader of tables takes in code, is plain.
    """
    text = one_line(str(value))
    if not text or "|" in text:
        return plain(text)
    ticks = "`" * (_longest_run(text) + 1)
    space = " " if "`" in (text[0], text[-1]) else ""
    return Markdown(f"{ticks}{space}{text}{space}{ticks}")


def fenced(text: str, language: str) -> Markdown:
    """Return lines as a block of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markdown(f"{fence}{language}\n{printable(text)}\n{fence}")


def link(value: object, address: str) -> Markdown:
    """Return a link with a value's text, as `plain`, to a web address or a file of the same repository."""
    return Markdown(f"[{plain(value)}]({target(address)})")


def target(address: str) -> Markdown:
    """Return a web address or the name of a file as the target of a link or an image."""
    web = address.startswith(("http://", "https://"))
    return Markdown(quote(address, safe=_URL if web else "/", errors="replace").replace("&", "&amp;"))


def joined(values: Iterable[object], separator: str = ", ") -> Markdown:
    """Return values side by side, as `as_markdown`."""
    return Markdown(separator.join(map(as_markdown, values)))


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> Markdown:
    """Return a table; a cell that is no Markdown is text."""
    lines = [header, [Markdown("---")] * len(header), *rows]
    shown = ([cell if isinstance(cell, Markdown) else _cell(cell) for cell in cells] for cells in lines)
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in shown))


def _longest_run(text: str) -> int:
    """The length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
