"""Find out how the ids in a data set's labels are numbered, where nothing says so."""

from __future__ import annotations

import numpy as np

from hf_lwmm.data.loading import LabelledImages
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
    return ids, notes


def _guessed(images: LabelledImages, classes: ScoredClasses) -> tuple[LabelIds, tuple[str, ...]]:
    """The ids that the labels seem to have, and a note on what was assumed.

    Masks of 0 and 255 are labels of two classes to those who draw them, but look like labels in which all but the first
    class is ignored. Labels are read until one holds another id, which is the first as a rule.

    Raises:
        DatasetError: if labels hold nothing but 0 and 255 although there are not two classes, or nothing but 255; or
            one does not fit its image.
    """
    count = len(classes.every)
    if images.task != "semantic" or classes.ids is not None:
        return LabelIds(count, classes.ids or FROM_ZERO), ()
    first, last = False, False
    for sample in images:
        sample.check_size(images.name)
        label = np.asarray(sample.label)
        if sample.segments is not None or ((label != 0) & (label != IGNORE) & (label != LEFT_OUT)).any():
            return LabelIds(count), ()
        first, last = first or bool((label == 0).any()), last or bool((label == IGNORE).any())
    if not first:
        raise DatasetError(f"{images.name}: has no labelled pixel: all ids are {IGNORE}, which stands for no class.")
    if not last:
        return LabelIds(count), ()
    found = f"{images.name}: its labels hold only 0 and {IGNORE}"
    if count == 2:
        return LabelIds(count, BINARY), (f"{found}, which was read as {classes.every[1]} (--ids from-0 ignores it)",)
    raise DatasetError(
        f"{found}, and {IGNORE} stands for no class, so that only {classes.every[0]} would be scored. If {IGNORE} is "
        f"the second of two classes, name both with --protocol; --ids {FROM_ZERO} ignores it."
    )
