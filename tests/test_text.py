"""Text of others: terminals obey none of it, and Markdown has the structure that it has with any other text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_lwmm.text import Markdown, code, fenced, joined, link, near_one, one_line, plain, printable, table, target

ATTACKS = [
    "## Owned",
    "x\n\n## Owned",
    "x\r\n===",
    "---",
    "===",
    "- x",
    "1. x",
    "+ x",
    "> x",
    "***",
    "___",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "[click](javascript:alert(3))",
    "![x](http://x)",
    "[x]: http://x",
    "<http://x.y>",
    "```\n---\nlicense: mit",
    "~~~",
    "`` ` ``",
    "a`b",
    "`",
    "\\",
    "a\\|b",
    "|",
    "| - |\n| --- |",
    "&lt;b&gt;",
    "**x**",
    "__x__",
    "*x*",
    "{{ 7 * 7 }}",
    "{% for x in [1] %}",
    "$$x$$",
    "\x1b]0;title\x07\x1b[31m",
    "\u202eevil",
    "\u2028# x",
    "x\x85",
    "    code",
    "\tcode",
    ") [x](y",
    "]( x",
    "www.evil.example",
    "(http://evil.example/a_b)",
    "HTTPS://x.y",
    "ftp://x.y",
    "x@y.z",
    "org/model@v1.0:",
    "mailto:x@y.z",
    "@somebody",
    "#123",
    ":+1:",
    "`www.x.y`|x@y.z",
]
texts = st.one_of(
    st.sampled_from(ATTACKS),
    st.text("`*_[]()<>#+-.!|~&:=\\\n\r\t $x1", min_size=1, max_size=12),
    st.text(min_size=1, max_size=20),
    st.tuples(st.sampled_from(ATTACKS), st.sampled_from(ATTACKS)).map("".join),
).filter(lambda text: bool(one_line(text)))


def structure(text: str) -> list[str]:
    """Return the elements of a Markdown text in order, without its words."""
    found: list[str] = []
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text):
        for each in token.children if token.children is not None else [token]:
            if each.type not in ("text", "code_inline"):
                found.append(each.type)
    return found


def words(text: str) -> str:
    """Return what readers see of a Markdown text on one line."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return "".join(each.content for token in tokens for each in token.children or () if each.type != "softbreak")


def bare_text(text: str) -> list[str]:
    """Return what stands in a Markdown text outside of links and code, in which readers look for addresses."""
    found, in_link = [""], False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        found.append("")
        for each in token.children or ():
            in_link = each.type == "link_open" or (in_link and each.type != "link_close")
            if each.type == "code_inline":
                found.append("")
            elif not in_link:
                found[-1] += each.content or " "
    return found


# As GitHub's extension of Markdown finds addresses, and its pages users, issues and emoji, in text without escapes.
LINKED = re.compile(
    r"www\.[\w-]|(https?|ftp)://[\w-]|[\w.+-]+@[\w-]+\.\w|(mailto|xmpp):\w|(?<![\w/])@\w|#\d|:(\+1|\w+):", re.IGNORECASE
)


PLACES: dict[str, Callable[[str], str]] = {
    "paragraph": lambda text: f"{plain(text)}\n",
    "after a line": lambda text: f"First\n{plain(text)}\n",
    "heading": lambda text: f"# {plain(text)}\n",
    "item": lambda text: f"- {plain(text)}\n- y\n",
    "quote": lambda text: f"> {plain(text)}\n\nx\n",
    "sentence": lambda text: f"Of {plain(text)}, {code(text)} and {link(text, 'https://x.y/' + text)}.\n",
    "cell": lambda text: table((text, "b"), [(text, code(text)), (link(text, text), Markdown("**x**"))]) + "\n",
    "block": lambda text: f"{fenced(text, 'sh')}\n",
    "picture": lambda text: f"![x]({target(text)})\n",
}


@pytest.mark.parametrize("place", PLACES)
@given(text=texts)
def test_text_makes_no_structure_of_its_own(place: str, text: str) -> None:
    assert structure(PLACES[place](text)) == structure(PLACES[place]("word"))


@pytest.mark.parametrize("place", PLACES)
@given(text=texts)
@example(text=":100:")
def test_no_reader_finds_addresses_or_names_to_link_in_text(place: str, text: str) -> None:
    assert not [part for part in bare_text(PLACES[place](text)) if LINKED.search(part)]


def test_addresses_are_code_and_the_marks_around_them_text() -> None:
    assert plain("see (www.x.y), a_b") == "see (`www.x.y`), a_b" and plain("org/a@v1.0: mit") == "`org/a@v1.0`: mit"
    assert plain("org/a@0123456") == "org/a@0123456" and plain("a|@b") == "a&#124;`@b`"


@given(text=texts)
def test_text_and_code_show_what_they_are_given(text: str) -> None:
    assert words(f"{plain(text)}\n") == words(f"{code(text)}\n") == one_line(text)


@given(text=st.one_of(texts, st.text()))
def test_what_is_printed_has_no_character_that_acts_on_a_terminal(text: str) -> None:
    shown = printable(text)
    assert all(character == "\n" or character.isprintable() for character in shown)
    assert shown.count("\n") == text.count("\n") and one_line(text).isprintable()
    assert json.loads(printable(json.dumps({text: text}, ensure_ascii=False))) == {text: text}


@pytest.mark.parametrize(
    "name",
    ["org/mit-b5", "road", "traffic light", "dark_zurich", "0.500", "-3.2 to 1", "one*, two", "Größe", "a/b.pth:1"],
)
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert plain(name) == printable(name) == name and code(name) == f"`{name}`"


def test_links_lead_where_they_say() -> None:
    assert link("org/a", "https://huggingface.co/org/a") == "[org/a](https://huggingface.co/org/a)"
    assert target("plots/01_a b(c).png") == "plots/01_a%20b%28c%29.png"
    assert re.match("[a-z]+:", target("javascript:alert(1)")) is None
    assert joined([Markdown("**a**"), "[b]"]) == r"**a**, \[b\]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93, "0.9300"),
        (-0.5, "-0.5000"),
        (0.9999, "0.99990"),
        (0.99987, "0.99987"),
        (1.0, "1.0000"),
        (1 - 3e-9, "1 - 3.0e-09"),
    ],
)
def test_cosines_near_one_keep_two_digits_of_their_difference(value: float, text: str) -> None:
    assert near_one(value) == text
