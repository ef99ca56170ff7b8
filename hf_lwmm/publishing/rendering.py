"""Render the templates of cards: whatever is put into one is text, unless it is `Markdown`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hf_lwmm.errors import CardError, DocumentError
from hf_lwmm.files.documents import parse_yaml, to_yaml
from hf_lwmm.text import Markdown, as_markdown, code, fenced, target

if TYPE_CHECKING:
    from jinja2 import Template


def render(name: str, metadata: Mapping[str, Any], **values: object) -> str:
    """Return a card as Markdown with YAML metadata, from the template of this name.

    Entries of the metadata that are None are left out. Every value that a template prints passes `as_markdown`. The
    filters `code`, `fenced` and `target` are for values that stand in code, in blocks of code and in links.

    Raises:
        CardError: if the metadata cannot be written as YAML.
    """
    stated = {key: value for key, value in metadata.items() if value is not None}
    return template(name).render(card_data=_yaml(stated), **values)


@cache
def template(name: str) -> Template:
    """Return the template of this name, which takes a moment when it is asked for first."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(finalize=as_markdown, undefined=StrictUndefined, keep_trailing_newline=False)
    environment.filters |= {"code": code, "fenced": fenced, "target": target}
    text = files("hf_lwmm.publishing").joinpath(f"templates/{name}.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)


def _yaml(metadata: Mapping[str, Any]) -> Markdown:
    """The metadata as YAML."""
    try:
        text = to_yaml(metadata)
        parse_yaml(text, "it")
    except (ValueError, DocumentError) as error:
        raise CardError(f"The model card's metadata cannot be written: {error}") from error
    return Markdown(text.rstrip("\n"))
