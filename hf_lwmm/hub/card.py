"""Read the metadata of a model's README: what it says of licence, data sets and task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_lwmm.errors import DocumentError
from hf_lwmm.files.documents import as_mapping, is_texts, parse_yaml, read_text, shortened

README = "README.md"
_METADATA = re.compile(r"\A\s*---\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_TEXTS = ("license", "license_name", "license_link", "pipeline_tag")
_LISTS = ("license", "datasets")  # a text or a list of texts


@dataclass(frozen=True)
class CardMetadata:
    """The metadata of a README, without the entries that cannot be used, which `notes` name."""

    content: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_card(path: Path, where: str) -> CardMetadata:
    """Return the metadata of a README that may be missing; `where` is what notes call it."""
    if not path.is_file():
        return CardMetadata()
    try:
        found = _METADATA.match(read_text(path, where))
        content = parse_yaml(found[1], where) if found else None
        return CardMetadata() if content is None else card_metadata(as_mapping(content, where), where)
    except DocumentError as error:
        return CardMetadata(notes=(f"{error} So its licence and data sets count as not stated.",))


def card_metadata(content: Mapping[str, Any], where: str) -> CardMetadata:
    """Return metadata without the entries that are not of their type; `where` is what notes call the README."""
    notes, kept = [], dict(content)
    for name in dict.fromkeys((*_TEXTS, *_LISTS)):
        value = kept.get(name)
        if value is None or (isinstance(value, str) and value) or (name in _LISTS and value and is_texts(value)):
            continue
        del kept[name]
        if value not in ("", []):
            wanted = "a text or a list of texts" if name in _LISTS else "a text"
            notes.append(f"{where}: {name} is {shortened(value)}, not {wanted}, and counts as not stated.")
    return CardMetadata(kept, tuple(notes))
