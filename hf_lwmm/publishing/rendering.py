"""Render the templates of cards: whatever is put into one is text, unless it is `Markdown`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from hf_lwmm.errors import CardError
from hf_lwmm.files.documents import to_yaml
from hf_lwmm.text import Markdown, as_markdown, code, fenced, target

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData
    from jinja2 import Template


def render(name: str, metadata: ModelCardData, **values: object) -> str:
    """Return a card as Markdown with YAML metadata, from the template of this name.

    Every value that a template prints passes `as_markdown`. The filters `code`, `fenced` and `target` are for values
    that stand in code, in blocks of code and in links.

    Raises:
        CardError: if the metadata is not what the Hub accepts.
    """
    from huggingface_hub import ModelCard

    try:
        card = _template(name).render(card_data=_yaml(metadata), **values)
        ModelCard(card)
    except (ValueError, TypeError) as error:
        raise CardError(f"The model card's metadata cannot be written: {error}") from error
    return card


@cache
def _template(name: str) -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(finalize=as_markdown, undefined=StrictUndefined, keep_trailing_newline=False)
    environment.filters |= {"code": code, "fenced": fenced, "target": target}
    text = files("hf_lwmm.publishing").joinpath(f"templates/{name}.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)


def _yaml(metadata: ModelCardData) -> Markdown:
    """The metadata as YAML, in ASCII if it has characters that do not print."""
    text = metadata.to_yaml()
    if not all(line.isprintable() for line in text.split("\n")):
        content = metadata.to_dict()  # type: ignore[no-untyped-call]
        text = to_yaml(content, ascii_only=True).rstrip("\n")
    return Markdown(text)
