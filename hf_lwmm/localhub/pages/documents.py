"""Make of a file what a page shows of it: a card in HTML that does nothing but look right, a text, or a picture."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

from hf_lwmm.localhub.cards import card_body
from hf_lwmm.localhub.contents import Contents
from hf_lwmm.localhub.pictures import media_type
from hf_lwmm.localhub.records import File

_LONGEST, _LONGEST_CARD = 2**18, 2**16  # bytes of a text that is shown, and of one that is rendered, which takes longer
_MARKDOWN = (".md", ".markdown")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_LISTED = ("p", "div", *_HEADINGS)


@dataclass(frozen=True)
class Shown:
    """The part of a file that a page shows: one of `rendered`, `text` and `picture`, or else `why` nothing is shown.

    With `odd`, the file is no UTF-8, and what could not be read is marked in the text.
    """

    rendered: Markup | None = None
    text: str | None = None
    picture: bool = False
    why: str = ""
    odd: bool = False


@dataclass(frozen=True)
class Place:
    """Where a file is: the path of its repository's page, the revision, as in an address, and its own path."""

    web: str
    revision: str
    path: str

    def address(self, verb: str, target: str) -> str:
        """Return the address of what a relative reference in the file leads to; itself if that is elsewhere."""
        parts = urlsplit(target)
        if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
            return target
        found = posixpath.normpath(posixpath.join(posixpath.dirname(self.path), unquote(parts.path)))
        if found.startswith(".."):
            return target
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        return f"{self.web}/{verb}/{self.revision}/{quote(found)}{fragment}"


def shown(contents: Contents, file: File, place: Place) -> Shown:
    """Return what a page shows of a file. Raises DamagedError."""
    if media_type(place.path):
        return Shown(picture=True)
    if file.size > _LONGEST:
        return Shown(why="too large to be shown")
    content = contents.start(file, _LONGEST)
    if b"\0" in content:
        return Shown(why="not text")
    text = content.decode(errors="replace")
    odd = text.encode() != content
    if place.path.lower().endswith(_MARKDOWN) and file.size <= _LONGEST_CARD:
        return Shown(rendered=rendered(card_body(text), place), odd=odd)
    return Shown(text=text, odd=odd)


@lru_cache(maxsize=64)
def rendered(markdown: str, place: Place) -> Markup:
    """Return Markdown as HTML without anything that acts: no scripts, styles, forms, frames or events."""

    def attribute(tag: str, name: str, value: str) -> str | None:
        if (tag, name) == ("img", "src"):
            return place.address("resolve", value)
        return place.address("blob", value) if (tag, name) == ("a", "href") else value

    attributes = {tag: set(names) for tag, names in nh3.ALLOWED_ATTRIBUTES.items()}
    attributes["details"] = {"open"}
    for tag in _LISTED:
        attributes.setdefault(tag, set()).add("align")
    for tag in _HEADINGS:
        attributes[tag].add("id")
    return Markup(
        nh3.clean(
            _parser().render(markdown),
            attributes=attributes,
            attribute_filter=attribute,
            url_schemes={"http", "https", "mailto"},
            link_rel="noopener noreferrer nofollow",
        )
    )


def _parser() -> MarkdownIt:
    """A parser of what cards are written in: CommonMark with tables and strikethrough, and HTML."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for cell in ("th_open", "td_open"):
        parser.add_render_rule(cell, _cell)
    parser.add_render_rule("heading_open", _heading)
    return parser


def _cell(self: RendererHTML, tokens: list[Token], index: int, options: Any, environment: Any) -> str:
    """A cell's beginning, aligned by an attribute, as the pages have no styles of their own."""
    style = str(tokens[index].attrs.pop("style", ""))
    if style:
        tokens[index].attrs["align"] = style.removeprefix("text-align:")
    return self.renderToken(tokens, index, options, environment)


def _heading(self: RendererHTML, tokens: list[Token], index: int, options: Any, environment: Any) -> str:
    """A heading's beginning, with the name by which links lead to it, as the Hub forms it from the text."""
    words = re.findall(r"[\w-]+", tokens[index + 1].content.lower())
    tokens[index].attrs["id"] = "-".join(words)
    return self.renderToken(tokens, index, options, environment)
