"""Show a model card as a page of its own."""

from __future__ import annotations

from html import escape
from pathlib import Path

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ max-width: 54rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; color: #1b1f24 }}
img {{ max-width: 100% }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ border: 1px solid #d0d7de; padding: .3rem .6rem; text-align: left }}
pre {{ background: #f6f8fa; padding: .8rem; overflow-x: auto }}
code {{ font-size: .9em }}
</style>
{body}
</html>
"""


def write_page(card: Path, title: str) -> Path:
    """Write a card of this package as index.html beside it, where its pictures are, and return the page's path.

    The card's HTML stands in the page as it is: only cards that this package wrote belong here.
    """
    from markdown_it import MarkdownIt

    text = card.read_text(encoding="utf-8")
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    body = MarkdownIt("commonmark").enable("table").render(text)
    page = card.with_name("index.html")
    page.write_text(_PAGE.format(title=escape(title), body=body), encoding="utf-8")
    return page
