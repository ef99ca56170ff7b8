"""Label sets: the class names of a classifier's rows. The known sets are in `label_sets.yaml`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.errors import DatasetError, DocumentError, PlanError
from hf_lwmm.files.documents import parse_yaml, read_text
from hf_lwmm.labels.class_files import REMEDY, classes_in

IGNORE = 255  # the class id of pixels that have no class
Colour = tuple[int, int, int]

# Different names that data sets give to the same thing, and the name used here for all of them.
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
    """Class names in the order of their ids.

    `things` are the countable classes. `colours` has a (red, green, blue) triple, 0 to 255, for each class, or none;
    `void_colours` are those of pixels that have no class. `ids` has, for each data set, the raw ids of every class in
    that data set's label files, which may also be pictures in these colours if the data set is one of `coloured`. Those
    of `indexed` are palette pictures, with each colour at the id of its class.
    """

    name: str
    classes: tuple[str, ...] = field(repr=False)
    things: tuple[str, ...] = field(default=(), repr=False)
    colours: tuple[Colour, ...] = field(default=(), repr=False)
    void_colours: tuple[Colour, ...] = field(default=(), repr=False)
    ids: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict, repr=False)
    coloured: tuple[str, ...] = field(default=(), repr=False)
    indexed: tuple[str, ...] = field(default=(), repr=False)

    def table(self, scheme: str) -> NDArray[np.uint8]:
        """Return the class id of each raw id 0..255 of the data set `scheme`, 255 for ignored ones: (256,) uint8."""
        table = np.full(256, IGNORE, np.uint8)
        for index, raw in enumerate(self.ids[scheme]):
            table[list(raw)] = index
        return table


@cache
def label_sets() -> Mapping[str, LabelSet]:
    """Return the known label sets by name."""
    content = parse_yaml(files(__package__).joinpath("label_sets.yaml").read_bytes(), "label_sets.yaml")
    return {
        name: LabelSet(
            name,
            tuple(map(str, entry["classes"])),
            tuple(entry.get("things", ())),
            tuple(map(_colour, entry.get("colours", ()))),
            tuple(map(_colour, entry.get("void_colours", ()))),
            {scheme: _raw_ids(ids) for scheme, ids in entry.get("ids", {}).items()},
            tuple(entry.get("coloured", ())),
            tuple(entry.get("indexed", ())),
        )
        for name, entry in content.items()
    }


def _raw_ids(ids: str | Sequence[int | Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return the raw ids of each class, from a list, or from a range such as `1-150` with one id a class."""
    if isinstance(ids, str):
        first, last = map(int, ids.split("-"))
        ids = range(first, last + 1)
    return tuple((raw,) if isinstance(raw, int) else tuple(raw) for raw in ids)


def _colour(text: str) -> Colour:
    return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)


def colours_of_ids(scheme: str | None) -> Mapping[Colour, int] | None:
    """Return the raw id that each colour stands for in label files that are pictures, none if `scheme` has no such.

    None in, None out: nothing says what the ids are.
    """
    if scheme is None:
        return None
    for labels in label_sets().values():
        if scheme in labels.coloured:
            raw = labels.ids.get(scheme) or [(index,) for index in range(len(labels.classes))]
            found = {colour: ids[0] for colour, ids in zip(labels.colours, raw, strict=True)}
            return found | dict.fromkeys(labels.void_colours, IGNORE)
    return {}


def indexed_schemes() -> tuple[str, ...]:
    """Return the schemes of raw ids whose label files are palette pictures in known colours."""
    return tuple(scheme for labels in label_sets().values() for scheme in labels.indexed)


def coloured_schemes() -> tuple[str, ...]:
    """Return the schemes of raw ids whose label files may be pictures in known colours."""
    return tuple(scheme for labels in label_sets().values() for scheme in labels.coloured)


def read_label_set(name: str | Path | Sequence[str]) -> LabelSet:
    """Return a label set.

    Args:
        name: a known set's name; a file of classes, as `classes_in` reads them; or class names, in a sequence, as a
            JSON list or separated by commas. What is a file is read as one.

    Raises:
        PlanError: if there is no such set or file, no class is listed, or one is listed twice.
    """
    if not isinstance(name, str | Path):
        return LabelSet(f"of {len(name)}", _checked(tuple(map(str, name)), "The list of classes"))
    if str(name) in label_sets():
        return label_sets()[str(name)]
    if str(name).lstrip().startswith("["):
        return read_label_set(classes_in(str(name), "The list of classes"))
    is_file = os.path.isfile(name)  # noqa: PTH113  (pathlib's has no answer for a text that is too long)
    if "," in str(name) and not is_file:
        _check_no_path(str(name))
        return read_label_set([part.strip() for part in str(name).split(",")])
    if not is_file:
        known = ", ".join(label_sets())
        raise PlanError(f"{name} is not a label set ({known}), and cannot be read as a file: no such file.")
    try:
        text = read_text(Path(name), str(name))
    except DocumentError as error:
        raise PlanError(f"{name} is not a label set, and cannot be read as a file of classes: {error}") from None
    return LabelSet(Path(name).name, _checked(classes_in(text, str(name)), str(name)))


_PATH = re.compile(r"(/|~|\.\.?[\\/]|[A-Za-z]:[\\/]|\\\\).*|.*[\\/].*\.(txt|json|ya?ml|csv)", re.DOTALL | re.IGNORECASE)


def _check_no_path(name: str) -> None:
    """Refuse the name of a file that is not there and has a comma in it: its parts would be taken for classes."""
    if _PATH.fullmatch(name.strip()):
        raise PlanError(
            f'{name}: no such file. If these are names of classes, give them as a JSON list: \'["first", "second"]\'.'
        )


def is_label_file(name: str | Sequence[str]) -> bool:
    """Return True if `read_label_set` reads a file of this name."""
    plain = isinstance(name, str) and name not in label_sets() and not name.lstrip().startswith("[")
    return plain and os.path.isfile(str(name))  # noqa: PTH113  (as above)


def check_label_set(name: object, where: str) -> None:
    """Refuse a label set that is neither a known one's name nor a list of classes; `where` begins the message.

    Files that come from somebody else name label sets so: a path would read a file of whoever uses them.

    Raises:
        PlanError: naming the known sets.
    """
    if not isinstance(name, list | tuple) and str(name) not in label_sets():
        known = ", ".join(label_sets())
        raise PlanError(
            f"{where}: {name!r} is not a label set ({known}). List the classes, or use --labels for a file."
        )


def normalise(name: str) -> str:
    """Return a class name as it is compared: `Traffic-Light`, `traffic_light` and `traffic light` are the same."""
    return re.sub(r"[\s_-]+", " ", name.lower()).strip()


def meaning(name: str) -> str:
    """Return the name used here for what a class name means, such as `person` for `Pedestrian`."""
    return _SYNONYMS.get(normalise(name), normalise(name))


def matching_rows(names: Sequence[str], others: Sequence[str]) -> tuple[int, ...]:
    """Return the place among `others` of each of the class names, -1 for those that they lack.

    A name meets the same name, or else one that means the same; no two names meet one of the others.
    """
    rows = [-1] * len(names)
    free = dict.fromkeys(range(len(others)))
    for reading in (normalise, meaning):
        places: dict[str, list[int]] = {}
        for place in free:
            places.setdefault(reading(others[place]), []).append(place)
        for row, name in enumerate(names):
            if rows[row] < 0 and places.get(reading(name)):
                rows[row] = places[reading(name)].pop(0)
        free = {place: None for place in free if place not in rows}
    return tuple(rows)


def check_named_apart(classes: Sequence[str], owner: str) -> None:
    """Refuse classes of which two have one name; `owner` is whose they are. Raises DatasetError."""
    spelt = [*map(normalise, classes)]
    if twice := [name for place, name in enumerate(classes) if spelt.index(spelt[place]) < place]:
        raise DatasetError(
            f"{owner}: has two classes named {twice[0]!r}, so that neither can be matched by name. Give each a name "
            "of its own: of a data set in id2label.json or with --protocol, of a model in config.json."
        )


def match_classes(model: Sequence[str], data: Sequence[str], model_name: str, data_name: str) -> NDArray[np.uint8]:
    """Match a model's classes to a data set's by name, or else by meaning; several may be one class of the data set.

    Args:
        model: the model's class names.
        data: the data set's class names.
        model_name, data_name: what messages call the two.

    Returns:
        (256,) uint8: the data set's class id for each of the model's, 255 for those that it lacks.

    Raises:
        DatasetError: if either has more than 255 classes, the data set has one twice, or they share less than a quarter
            of the smaller set.
    """
    if max(len(model), len(data)) > 255:
        larger, count = (model_name, len(model)) if len(model) > 255 else (data_name, len(data))
        raise DatasetError(f"{larger}: has {count} classes; up to 255 can be scored.")
    check_named_apart(data, data_name)
    rows = {meaning(name): index for index, name in enumerate(data)}
    rows |= {normalise(name): index for index, name in enumerate(data)}
    table = np.full(256, IGNORE, np.uint8)
    for index, name in enumerate(model):
        table[index] = rows.get(normalise(name), rows.get(meaning(name), IGNORE))
    shared = [data[row] for row in np.unique(table[table != IGNORE])]
    if 4 * len(shared) < min(len(model), len(data)) or not shared:
        only = f"only {' and '.join(shared)} as class names" if shared else "no class name"
        raise DatasetError(
            f"{model_name} ({', '.join(model[:4])}, ...) and {data_name} ({', '.join(data[:4])}, ...) share {only}. "
            "--labels names a model's classes, --protocol the data set's."
        )
    return table


def labels_of_rows(rows: int, label_sets: Iterable[LabelSet]) -> tuple[str, ...] | None:
    """Return the classes of the first label set that has as many as a classifier has `rows`; None if there is none."""
    return next((labels.classes for labels in label_sets if len(labels.classes) == rows), None)


def _checked(classes: tuple[str, ...], where: str) -> tuple[str, ...]:
    if not classes or len(set(map(normalise, classes))) != len(classes):
        fault = "names a class twice" if classes else "lists no classes"
        raise PlanError(f"{where} {fault}. {REMEDY}")
    return classes
