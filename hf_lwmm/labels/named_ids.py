"""Read class names by id, as `id2label` of a config.json and the id2label.json of a data set have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hf_lwmm.errors import DocumentError
from hf_lwmm.files.documents import as_mapping, is_texts, shortened

_ID = re.compile(r"0|-?[1-9][0-9]{0,8}")
_WRITTEN = re.compile(r"\s*[+-]?[0-9]{1,20}\s*")  # an id, in whatever way


def check_ids_once(content: Mapping[str, Any], where: str) -> None:
    """Refuse an id that is there twice, as "0" and "00", since either name could be the one that is meant.

    Raises:
        DocumentError: naming both.
    """
    known: dict[int, str] = {}
    for key in filter(_WRITTEN.fullmatch, content):
        if (first := known.setdefault(int(key), key)) != key:
            raise DocumentError(f"{where}: has the id {int(key)} twice, as {first!r} and {key!r}. Keep the right one.")


def named_ids(content: Any, where: str) -> dict[int, str]:
    """Return class names by id, in the order of the ids; `where` is what messages call the content.

    Raises:
        DocumentError: if it is no object of whole numbers and names, or has an id twice.
    """
    check_ids_once(as_mapping(content, where), where)
    labels: dict[int, str] = {}
    for key, name in as_mapping(content, where).items():
        if not _ID.fullmatch(key):
            raise DocumentError(f"{where}: {shortened(key)} is no id; ids are whole numbers such as 0.")
        if not isinstance(name, str) or not name.strip():
            raise DocumentError(f"{where}: the name of the id {key} is {shortened(name)}, not a text.")
        labels[int(key)] = name
    return dict(sorted(labels.items()))


def class_names(content: Any, where: str) -> tuple[str, ...]:
    """Return the class names of a classifier's rows, the ids 0, 1, 2, ...; or those of a list of names.

    Raises:
        DocumentError: if it is neither, or an id is missing.
    """
    if isinstance(content, list) and is_texts(content):
        if not all(map(str.strip, content)):
            raise DocumentError(f"{where}: has a class without a name.")
        return tuple(content)
    labels = named_ids(content, where)
    if lacking := [row for row, number in enumerate(labels) if row != number]:
        raise DocumentError(f"{where}: has the ids {_few(labels)}, not 0, 1, 2, ... in turn; {lacking[0]} is missing.")
    return tuple(labels.values())


def _few(labels: dict[int, str]) -> str:
    return ", ".join(map(str, [*labels][:4])) + (", ..." if len(labels) > 4 else "")
