"""Label sets: which class names stand behind the rows of a classifier. The table itself is `label_sets.yaml`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hf_lwmm.errors import DatasetError, PlanError

# Names that data sets give to the same thing, and the one that stands for all of them here.
_SYNONYMS = {
    "pedestrian": "person",
    "motorbike": "motorcycle",
    "minibike": "motorcycle",
    "bike": "bicycle",
    "pavement": "sidewalk",
    "tree": "vegetation",
    "sign symbol": "traffic sign",
    "traffic sign (front)": "traffic sign",
    "on rails": "train",
    "aeroplane": "airplane",
}


@dataclass(frozen=True)
class LabelSet:
    """Class names in the order of their ids. `things` are the countable ones; `colours` are (red, green, blue).

    `ids` are, by data set, the raw ids of each class in its label files.
    """

    name: str
    classes: tuple[str, ...] = field(repr=False)
    things: tuple[str, ...] = field(default=(), repr=False)
    colours: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)
    ids: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict, repr=False)

    def table(self, scheme: str) -> NDArray[np.uint8]:
        """From the raw ids 0..255 of a data set to class ids, 255 for what is ignored: (256,)."""
        table = np.full(256, 255, np.uint8)
        for index, raw in enumerate(self.ids[scheme]):
            table[list(raw)] = index
        return table


@cache
def label_sets() -> Mapping[str, LabelSet]:
    """The label sets that are known by name."""
    content = yaml.safe_load(files(__package__).joinpath("label_sets.yaml").read_text(encoding="utf-8"))
    return {
        name: LabelSet(
            name,
            tuple(map(str, entry["classes"])),
            tuple(entry.get("things", ())),
            tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in entry.get("colours", ())),
            {scheme: _raw_ids(ids) for scheme, ids in entry.get("ids", {}).items()},
        )
        for name, entry in content.items()
    }


def _raw_ids(ids: str | Sequence[int | Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """One group of raw ids a class, from a list, or from the first and last of ids that follow each other."""
    if isinstance(ids, str):
        first, last = map(int, ids.split("-"))
        ids = range(first, last + 1)
    return tuple((raw,) if isinstance(raw, int) else tuple(raw) for raw in ids)


def label_set_of_ids(scheme: str) -> LabelSet:
    """The label set that a data set's raw ids lead to.

    Raises:
        DatasetError: if no label set knows the scheme.
    """
    for labels in label_sets().values():
        if scheme in labels.ids:
            return labels
    known = ", ".join(name for labels in label_sets().values() for name in labels.ids)
    raise DatasetError(f"--ids {scheme} is none of {known}.")


def read_label_set(name: str | Path | Sequence[str]) -> LabelSet:
    """A label set by its name, from a file, or as class names, in a list or with commas between.

    A file has one class a line, or is a JSON or YAML list, or a config.json with `id2label`.

    Raises:
        PlanError: if there is no such set or file, or the file lists no classes.
    """
    if not isinstance(name, str | Path):
        return LabelSet(f"of {len(name)}", _checked(tuple(map(str, name)), "The list of classes"))
    if str(name) in label_sets():
        return label_sets()[str(name)]
    if "," in str(name):
        return read_label_set([part.strip() for part in str(name).split(",")])
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(label_sets())
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise PlanError(f"{name} is no label set ({known}), and cannot be read as a file: {reason}.") from None
    return LabelSet(Path(name).name, _checked(_classes_in(text), str(name)))


def normalise(name: str) -> str:
    """A class name as it compares: `Traffic-Light`, `traffic_light` and `traffic light` are the same."""
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def meaning(name: str) -> str:
    """What a class name stands for, in one data set's words where data sets call one thing by several names."""
    return _SYNONYMS.get(normalise(name), normalise(name))


def match_classes(model: Sequence[str], data: Sequence[str], model_name: str, data_name: str) -> NDArray[np.uint8]:
    """For each of a model's classes the data set's class of the same name or meaning, 255 where it has none: (256,).

    Raises:
        DatasetError: if fewer than a quarter of the classes of the smaller set are found in the other.
    """
    if max(len(model), len(data)) > 255:
        larger, count = (model_name, len(model)) if len(model) > 255 else (data_name, len(data))
        raise DatasetError(f"{larger}: has {count} classes; up to 255 can be scored.")
    rows = {meaning(name): index for index, name in enumerate(data)}
    rows |= {normalise(name): index for index, name in enumerate(data)}
    table = np.full(256, 255, np.uint8)
    for index, name in enumerate(model):
        table[index] = rows.get(normalise(name), rows.get(meaning(name), 255))
    shared = [data[row] for row in np.unique(table[table != 255])]
    if 4 * len(shared) < min(len(model), len(data)) or not shared:
        only = f"only {' and '.join(shared)} as class names" if shared else "no class name"
        raise DatasetError(
            f"{model_name} ({', '.join(model[:4])}, ...) and {data_name} ({', '.join(data[:4])}, ...) share {only}. "
            "--labels names a model's classes, --protocol the data set's."
        )
    return table


def labels_of_rows(rows: int, label_sets: Iterable[LabelSet]) -> tuple[str, ...] | None:
    """The classes of the first label set that has as many as a classifier has rows."""
    return next((labels.classes for labels in label_sets if len(labels.classes) == rows), None)


def _checked(classes: tuple[str, ...], where: str) -> tuple[str, ...]:
    if not classes or len(set(map(normalise, classes))) != len(classes):
        fault = "names a class twice" if classes else "lists no classes"
        raise PlanError(f"{where} {fault}. Write one class a line, or give a config.json with id2label.")
    return classes


def _classes_in(text: str) -> tuple[str, ...]:
    try:
        content: Any = json.loads(text)
    except ValueError:
        return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if isinstance(content, dict):
        labels = content.get("id2label", content)
        try:
            content = [labels[key] for key in sorted(labels, key=int)] if isinstance(labels, dict) else labels
        except ValueError:
            return ()
    return tuple(map(str, content)) if isinstance(content, list) else ()
