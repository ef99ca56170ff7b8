"""Find out how the ids in a data set's labels are numbered, where nothing says so."""

from __future__ import annotations

from hf_lwmm.data.loading import LabelledImages, Sample
from hf_lwmm.errors import DatasetError
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.labels import BINARY, FROM_ZERO, IGNORE, LabelIds


def label_ids(images: LabelledImages, classes: ScoredClasses) -> tuple[LabelIds, tuple[str, ...]]:
    """Return the ids in the labels of a data set, and a note on what was assumed.

    Masks of 0 and 255 are labels of two classes to those who draw them, but look like labels in which all but the first
    class is ignored. Labels are read until one holds another id, which is the first as a rule.

    Raises:
        DatasetError: if labels hold nothing but 0 and 255 although there are not two classes, or nothing but 255; or one
            does not fit its image.
    """
    count = len(classes.every)
    if images.task != "semantic" or classes.ids is not None:
        return LabelIds(count, classes.ids or FROM_ZERO), ()
    first, last = False, False
    for sample in images:
        check_size(sample, f"{images.name}, {sample.name}")
        if sample.segments is not None or ((sample.label != 0) & (sample.label != IGNORE)).any():
            return LabelIds(count), ()
        first, last = first or bool((sample.label == 0).any()), last or bool((sample.label == IGNORE).any())
    if not first:
        raise DatasetError(f"{images.name}: has no labelled pixel: all ids are {IGNORE}, which stands for no class.")
    if not last:
        return LabelIds(count), ()
    found = f"{images.name}: its labels hold only 0 and {IGNORE}"
    if count == 2:
        return LabelIds(count, BINARY), (f"{found}, which was read as {classes.every[1]} (--ids from-0 ignores it)",)
    raise DatasetError(
        f"{found}, and {IGNORE} stands for no class, so that only {classes.every[0]} would be scored. If {IGNORE} is the "
        f"second of two classes, name both with --protocol; --ids {FROM_ZERO} ignores it."
    )


def check_size(sample: Sample, where: str) -> None:
    """Refuse a label that is neither as large as its image nor larger or smaller by a whole factor.

    Raises:
        DatasetError: naming both sizes.
    """
    mine = sample.segments.runs.shape if sample.segments is not None else sample.label.shape
    image = (sample.image.height, sample.image.width)
    larger, smaller = max(mine, image), min(mine, image)
    if larger[0] * smaller[1] != larger[1] * smaller[0] or larger[0] % smaller[0]:
        hint = " Images are turned as their EXIF says, and labels never." if mine == image[::-1] else ""
        raise DatasetError(f"{where}: the label is {mine[1]}x{mine[0]}, but the image {image[1]}x{image[0]}.{hint}")
