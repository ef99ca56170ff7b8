"""Read what cards and configs say of a model, for lists and pages; what cannot be read says nothing."""

from __future__ import annotations

import contextlib
import json
import math
from functools import lru_cache
from typing import Any

from hf_lwmm.errors import DocumentError
from hf_lwmm.files.documents import as_mapping, parse_json, parse_yaml
from hf_lwmm.localhub.contents import Contents
from hf_lwmm.localhub.records import Commit, DamagedError, File

_LONGEST_CONFIG = 2**20
_LONGEST_HEAD = 2**18  # bytes, which take up to a second


def card_data(content: bytes) -> dict[str, Any]:
    """Return the YAML at the head of a card as JSON has it, empty if there is none. Raises DocumentError."""
    text = content.decode(errors="replace")
    if not text.startswith("---"):
        return {}
    head, *rest = text.split("\n---", 1)
    if not rest:
        return {}
    if len(head) > _LONGEST_HEAD:
        raise DocumentError(f"The card's head: is longer than {_LONGEST_HEAD:,} characters.")
    data = parse_yaml(head.removeprefix("---"), "The card's head") or {}
    if not isinstance(data, dict):
        return {}
    plain: dict[str, Any] = _plain(data)
    try:
        json.dumps(plain, ensure_ascii=False).encode()
    except ValueError as error:  # YAML has half letters, JSON does not
        raise DocumentError(f"The card's head: cannot be written as JSON: {error}.") from None
    return plain


def _plain(value: Any) -> Any:
    """The value in JSON's terms: dates, nan and others that YAML alone has are texts or nothing."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def read_card(contents: Contents, commit: Commit) -> dict[str, Any]:
    """Return what a repository's card says in its head."""
    file = commit.files.get("README.md")
    with contextlib.suppress(DamagedError):
        return _known_card(contents, file) if file else {}
    return {}


@lru_cache(maxsize=256)
def _known_card(contents: Contents, file: File) -> dict[str, Any]:
    """The head of a card, which lists read again and again."""
    from huggingface_hub import ModelCardData

    start = contents.start(file, 4 * _LONGEST_HEAD)
    try:
        card = card_data(start)
        ModelCardData(**card, ignore_metadata_errors=True)
    except Exception:  # the stock client fails at entries of other types, and with them at the list that has them
        return {}
    return card


def card_body(text: str) -> str:
    """Return a card without the YAML at its head."""
    if not text.startswith("---"):
        return text
    rest = text.split("\n---", 1)[1:]
    return rest[0].partition("\n")[2] if rest else text


def read_config(contents: Contents, commit: Commit) -> dict[str, Any]:
    """Return the entries of a model's config.json that the Hub shows."""
    file = commit.files.get("config.json")
    if file is None or file.size > _LONGEST_CONFIG:
        return {}
    try:
        config = as_mapping(parse_json(contents.start(file, file.size), "config.json"), "config.json")
    except (DocumentError, DamagedError):
        return {}
    names = config.get("architectures")
    shown: dict[str, Any] = {}
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        shown["architectures"] = names
    if isinstance(config.get("model_type"), str):
        shown["model_type"] = config["model_type"]
    return shown


def tags(card: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Return a model's tags: those of the card, and those that follow from it and from the config."""
    listed = card.get("tags") or []
    found = list(map(str, listed)) if isinstance(listed, list) else [str(listed)]
    found += [str(card[key]) for key in ("pipeline_tag", "library_name") if card.get(key)]
    found += [config["model_type"]] if config.get("model_type") else []
    return found + ([f"license:{card['license']}"] if card.get("license") else [])
