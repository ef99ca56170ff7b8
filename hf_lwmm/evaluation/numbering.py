"""Find out how the ids in a data set's labels are numbered, where nothing says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.data.samples import LabelledImages
from hf_lwmm.errors import DatasetError
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.labels import BINARY, FROM_ZERO, IGNORE, LEFT_OUT, LabelIds

_CHECKED = 8  # labels that are looked at, from the first to the last, before a network runs


def label_ids(images: LabelledImages, classes: ScoredClasses) -> tuple[LabelIds, tuple[str, ...]]:
    """Return the ids in the labels of a data set, and a note on what was assumed.

    Some labels are checked, so that most mistakes are found before a network runs.

    Raises:
        DatasetError: if a label has an id that stands for nothing, or as `_guessed` does.
    """
    ids, notes = _guessed(images, classes)
    if images.task == "semantic":
        last = images.count - 1
        checked = {0} if images.streamed else {last * place // (_CHECKED - 1) for place in range(_CHECKED)}
        samples = (images.read(index) for index in sorted(checked))
        labels = {sample.label_place(images.name): np.asarray(sample.label) for sample in samples}
        for place, label in labels.items():
            ids.class_ids(label, place, [*labels.values()])
        if classes.ids is None and ids.scheme == FROM_ZERO and not notes:
            notes = _mixed(classes, labels)
    return ids, notes


def _mixed(classes: ScoredClasses, labels: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """A note if labels of two classes hold 1, and others 0 and 255, but none both: both may be the second class."""
    held = {place: {each for each in (0, 1, IGNORE) if (label == each).any()} for place, label in labels.items()}
    ones = [place for place, ids in held.items() if 1 in ids]
    doubtful = [place for place, ids in held.items() if ids == {0, IGNORE}]
    if len(classes.every) != 2 or not ones or not doubtful or any(IGNORE in held[place] for place in ones):
        return ()
    return (
        f"{doubtful[0]} holds only 0 and {IGNORE}, and {ones[0]} holds 1: {IGNORE} was ignored. If it is "
        f"{classes.every[1]}, as 1 is, --ids {BINARY} scores both",
    )


def _guessed(images: LabelledImages, classes: ScoredClasses) -> tuple[LabelIds, tuple[str, ...]]:
    """The ids that the labels seem to have, and a note on what was assumed.

    Masks of 0 and 255 are labels of two classes to those who draw them, but look like labels in which all but the first
    class is ignored. Labels are read until one holds another id, which is the first as a rule.

    Raises:
        DatasetError: if labels hold nothing but 0 and 255 although there are not two classes, or nothing but 255. The
            message is about a label that does not fit its image if there is one.
    """
    count = len(classes.every)
    if images.task != "semantic" or classes.ids is not None:
        return LabelIds(count, classes.ids or FROM_ZERO), ()
    first, last, both = False, False, dict[str, NDArray[Any]]()
    for sample in images:
        label = np.asarray(sample.label)
        if sample.segments is not None or ((label != 0) & (label != IGNORE) & (label != LEFT_OUT)).any():
            return LabelIds(count), _mixed(classes, {**both, sample.label_place(images.name): label})
        has_first, has_last = bool((label == 0).any()), bool((label == IGNORE).any())
        if has_first and has_last and not both:
            both[sample.label_place(images.name)] = label
        first, last = first or has_first, last or has_last
    found = f"{images.name}: its labels hold only 0 and {IGNORE}"
    if first and not last:
        return LabelIds(count), ()
    if first and count == 2:
        return LabelIds(count, BINARY), (f"{found}, which was read as {classes.every[1]} (--ids from-0 ignores it)",)
    for sample in images:  # a label that does not fit its image may be why; this decodes the pictures, too
        sample.check_size(images.name)
    if not first:
        raise DatasetError(f"{images.name}: has no labelled pixel: all ids are {IGNORE}, which stands for no class.")
    raise DatasetError(
        f"{found}, and {IGNORE} stands for no class, so that only {classes.every[0]} would be scored. If {IGNORE} is "
        f"the second of two classes, name both with --protocol; --ids {FROM_ZERO} ignores it."
    )
