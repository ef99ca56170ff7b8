"""Choose the classes of a data set that are scored, and note which of them are in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.data.samples import LabelledImages
from hf_lwmm.errors import DatasetError
from hf_lwmm.labels import (
    FROM_ONE,
    FROM_ZERO,
    check_named_apart,
    is_label_file,
    label_sets,
    meaning,
    normalise,
    raw_label_set,
    read_label_set,
)

if TYPE_CHECKING:
    from hf_lwmm.evaluation.scoring_plan import ScoredModel
    from hf_lwmm.networks.loaded_model import LoadedModel

# Protocols of 16 and 13 of Cityscapes' 19 classes: labels that are scored by them still have the ids of all 19.
_PARTS_OF_CITYSCAPES = ("synthia16", "synthia13")


@dataclass(frozen=True)
class ScoredClasses:
    """The classes of a data set, and which of them are scored.

    `every` are the names of the classes with the ids 0, 1, ..., and `rows` the ids of those that are scored, in the
    order of the protocol. `protocol` is what reports call the choice. `ids` is the scheme of the ids in label files,
    None if nothing says how they are numbered.
    """

    every: tuple[str, ...] = field(repr=False)
    rows: tuple[int, ...] = field(repr=False)
    protocol: str = "all classes"
    ids: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the scored classes."""
        return tuple(self.every[row] for row in self.rows)

    def other_protocols(self) -> Mapping[str, tuple[int, ...]]:
        """Return the ids of Cityscapes' 19, 16 and 13 classes, where the data set has them and others are scored."""
        known = {normalise(name): row for row, name in enumerate(self.every)}
        found = {}
        for protocol in ("cityscapes19", *_PARTS_OF_CITYSCAPES):
            names = [normalise(name) for name in label_sets()[protocol].classes]
            rows = tuple(known[name] for name in names if name in known)
            if len(rows) == len(names) and rows != self.rows:
                found[protocol] = rows
        return found


def scored_classes(
    images: LabelledImages, models: Sequence[LoadedModel], protocol: str | None = None
) -> tuple[ScoredClasses, tuple[str, ...]]:
    """Return the classes that are scored, and notes on what was assumed.

    Args:
        images: the data set, which may name its classes or the scheme of its raw ids.
        models: all networks whose scores are compared; ids are taken for the classes of the first where nothing else
            names them.
        protocol: the label set whose classes are scored, a name or a file; all classes of the data set if None.

    Raises:
        DatasetError: if the protocol has a class that the data set lacks, or the networks' image processors number ids
            in different ways and nothing else says how they are numbered.
    """
    wanted, first = read_label_set(protocol) if protocol else None, models[0]
    notes, ids, raw = [*images.notes], images.ids, raw_label_set(images.ids)
    if raw is not None:
        every = raw.classes
    elif images.classes is not None:
        every = images.classes
    elif wanted is not None:
        every = label_sets()["cityscapes19"].classes if wanted.name in _PARTS_OF_CITYSCAPES else wanted.classes
    else:
        every = first.classes
        check_named_apart(every, first.label)
        notes.append(f"{images.name}: does not name its classes; its ids were taken for {first.label}'s (--protocol)")
    if ids is None and images.task == "semantic":
        ids, assumed = _numbering(images, models)
        notes += assumed
    if wanted is None:
        return ScoredClasses(every, tuple(range(len(every))), ids=ids), tuple(notes)
    rows = {normalise(name): row for row, name in enumerate(every)}
    if lacking := [name for name in wanted.classes if normalise(name) not in rows]:
        raise DatasetError(f"{images.name}: has no class {lacking[0]!r}, which the protocol {wanted.name} scores.")
    scored = tuple(rows[normalise(name)] for name in wanted.classes)
    return ScoredClasses(every, scored, _shown(str(protocol)), ids), tuple(notes)


def _shown(protocol: str) -> str:
    """The name of a protocol in reports, which are published: of a file without the folders that it lies in."""
    return Path(protocol).name if is_label_file(protocol) else protocol


def _numbering(images: LabelledImages, models: Sequence[LoadedModel]) -> tuple[str | None, list[str]]:
    """The scheme of ids by all image processors, None if they say nothing of use, and notes. Raises DatasetError."""
    reducing = [each for each in models if each.reduce_labels]
    if not reducing:
        return None, []

    def counts_from_one(model: LoadedModel) -> bool:
        return model.reduce_labels and (images.classes is None or len(images.classes) == len(model.classes))

    from_one = [each for each in models if counts_from_one(each)]
    where = f"{reducing[0].label}: its image processor takes 1 off every id of a label (do_reduce_labels)"
    if not from_one:
        return None, [
            f"{where}, but {images.name} names other classes; its ids were read as named (else --ids {FROM_ONE})"
        ]
    if others := [each for each in models if not counts_from_one(each)]:
        raise DatasetError(
            f"{images.name}: its ids would be read from 1 for {from_one[0].label}, whose image processor takes 1 off "
            f"every id of a label (do_reduce_labels), but from 0 for {others[0].label}. Say which is right for all: "
            f"--ids {FROM_ONE} or --ids {FROM_ZERO}."
        )
    return FROM_ONE, [f"{where}, and so were ids read: 1 is the first class, 0 is ignored (else --ids {FROM_ZERO})"]


def unknown_classes(models: Sequence[ScoredModel], classes: ScoredClasses) -> list[str]:
    """Return notes on scored classes that a model does not know at all, and that therefore score 0."""
    notes = []
    for model in models:
        known = {meaning(name) for member in model.members for name in member.classes}
        if lacking := [name for name in classes.names if meaning(name) not in known]:
            notes.append(f"{model.name}: has no class named {', '.join(lacking)}, so these score 0")
    return notes


def doubtful_ids(confusion: NDArray[np.int64] | None, ids: str | None) -> list[str]:
    """Return a note if so few classes occur in labels of raw ids that the ids may be those of another scheme.

    Args:
        confusion: (models, classes, classes + 1) pixels by true and predicted class, None if there are no class maps.
        ids: the scheme of raw ids by which labels were read, None for class ids.
    """
    if confusion is None or raw_label_set(ids) is None:
        return []
    occur, classes = int(confusion[0].any(axis=1).sum()), confusion.shape[1]
    if 2 * occur >= classes:
        return []
    return [
        f"only {occur} of {classes} classes occur in the labels, which were read as raw ids of {ids}; if they hold "
        "class ids or other raw ones, --ids is wrong"
    ]
