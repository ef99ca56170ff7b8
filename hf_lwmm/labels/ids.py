"""The ids that label files hold, and the classes that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.errors import DatasetError
from hf_lwmm.files.documents import shortened
from hf_lwmm.labels.sets import IGNORE, LabelSet, label_sets, normalise

FROM_ZERO, FROM_ONE, BINARY = "from-0", "from-1", "binary"
# Ways of numbering any classes; all other schemes are raw ids of a data set, and belong to a label set.
NUMBERINGS = (FROM_ZERO, FROM_ONE, BINARY)

LEFT_OUT = -(2**15)  # in labels that were read, for an id that is to be ignored; no file has it
_NO_CLASS = -1
# Names for pixels of no class.
_VOID = frozenset({
    "void", "ignore", "ignored", "ignore label", "unlabeled", "unlabelled", "not labeled", "not labelled", "unknown",
    "undefined", "invalid", "none", "no class", "boundary", "border", "don't care", "dont care", "out of roi",
})  # fmt: skip
_SHOWN = 5  # unknown ids in a message
_MOST = 0.5  # part of a label's pixels that tells that it has the raw ids of a data set
_SIXTEEN_BITS = 65535  # what 16-bit files hold for -1


def raw_label_set(scheme: str | None) -> LabelSet | None:
    """Return the label set that has the raw ids `scheme`, None for a numbering of any classes and for None.

    Raises:
        DatasetError: if there is no such scheme.
    """
    if scheme is None or scheme in NUMBERINGS:
        return None
    for labels in label_sets().values():
        if scheme in labels.ids:
            return labels
    raise DatasetError(f"--ids {scheme} is not one of {', '.join(id_schemes())}.")


def id_schemes() -> tuple[str, ...]:
    """Return the names of all schemes of raw ids, and of the numberings of any classes."""
    return (*(name for labels in label_sets().values() for name in labels.ids), *NUMBERINGS)


def without_ignored(numbers: Mapping[int, str], where: str) -> dict[int, str]:
    """Return the names of the ids of class maps without those of 0 and 255, if they are named for what is ignored.

    If there are only two, each may be a class, as in masks of 0 and 255. `where` is what messages call the names.

    Raises:
        DatasetError: if 255 has the name of a class although there are others.
    """
    name = numbers.get(IGNORE)
    if name is not None and normalise(name) not in _VOID and len(numbers) > 2:
        raise DatasetError(
            f"{where}: names the id {IGNORE} {shortened(name)}, but {IGNORE} stands for pixels of no class. Take the "
            "name away to ignore them, or give the class another id."
        )
    ends = {IGNORE, 0} if len(numbers) > 2 else {IGNORE}
    return {number: each for number, each in numbers.items() if number not in ends or normalise(each) not in _VOID}


@dataclass(frozen=True)
class LabelIds:
    """The ids that label files hold for the classes 0, 1, ..., `classes` of them.

    `scheme` is a data set's raw ids, or a numbering: `from-0`, in which ids are those of the classes and 255 is
    ignored; `from-1`, in which they are one more, and 0 is ignored too; or `binary`, in which 0 is the first of two
    classes, and 1 or 255 the second, of which a label has only one.

    Raises:
        DatasetError: if there is no such scheme, or it does not fit as many classes.
    """

    classes: int
    scheme: str = FROM_ZERO

    def __post_init__(self) -> None:
        raw_label_set(self.scheme)
        if self.scheme == BINARY and self.classes != 2:
            raise DatasetError(f"--ids {BINARY} is for two classes, but there are {self.classes}.")

    def class_ids(self, label: NDArray[Any], where: str, beside: Sequence[NDArray[Any]] = ()) -> NDArray[Any]:
        """Return the class of each id of a label, `IGNORE` where it has none or is `LEFT_OUT`; of any shape, integers.

        Args:
            label: the ids.
            where: what messages call the label.
            beside: other labels of the data set, which help to tell what would fit.

        Raises:
            DatasetError: if an id stands for nothing, or two stand for one class of two.
        """
        if self.scheme == FROM_ZERO and label.dtype == np.uint8 and not self._outside(label).any():
            return label  # as most files are: without a copy
        if (left := label == LEFT_OUT).any():
            classes = np.full(label.shape, IGNORE, np.uint8)
            classes[~left] = self.class_ids(label[~left], where, beside)
            return classes
        if self.scheme == BINARY and (label == 1).any() and (label == IGNORE).any():
            raise DatasetError(
                f"{where} has the ids 1 and {IGNORE}, and --ids {BINARY} takes each for the second class. "
                f"--ids {FROM_ZERO} ignores {IGNORE}."
            )
        beyond = (label < 0) | (label > 255)
        found: NDArray[Any] = self._table()[np.where(beyond, IGNORE, label)]
        if raw_label_set(self.scheme) is None:
            unknown = beyond | (found == _NO_CLASS)
        else:  # ids of no class are ignored; those that no 8-bit file has tell files of another kind
            unknown = beyond & (label != -1) & (label != _SIXTEEN_BITS)
            found = np.where(beyond, IGNORE, found)
        if unknown.any():
            seen = np.concatenate([each.ravel() for each in (label, *beside)])
            seen = seen[seen != LEFT_OUT]
            raise DatasetError(f"{where} {self._unfit(seen, np.unique(label[unknown]).tolist())}")
        return found.astype(np.uint8)

    def _unfit(self, seen: NDArray[Any], unknown: Sequence[int]) -> str:
        """The fault of a label that has unknown ids, and the options that would help; `seen` are the ids looked at."""
        some = ", ".join(map(str, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
        wrong = f"has the id{'s' if len(unknown) > 1 else ''} {some}, but {self._known()}."
        ignored = (
            f" If it stands for no class, --ignore-index {unknown[0]} leaves it out."
            if len(unknown) == 1 and unknown[0] >= 0
            else ""
        )
        fitting = self._fitting(seen)
        if from_one := FROM_ONE in fitting and (seen == 0).any():  # each class would be scored as the one before it
            fitting.remove(FROM_ONE)
        doubtful = f" Only if 0 stands for no class, --ids {FROM_ONE}, which takes 1 for the first." if from_one else ""
        if fitting:
            return f"{wrong} --ids {' or --ids '.join(fitting)} would fit.{ignored}{doubtful}"
        return (
            f"{wrong} --protocol names the data set's classes, --ids its raw ids, or how they are numbered "
            f"({', '.join(NUMBERINGS)}).{ignored}{doubtful}"
        )

    def _fitting(self, seen: NDArray[Any]) -> list[str]:
        """The schemes that ids fit, the likeliest first.

        These are numberings that know all of them, and raw ids that know most pixels. Raw ids of which far fewer occur
        than of the likeliest ones fit by chance.
        """
        if ((seen < 0) | (seen > IGNORE)).any():
            return []
        found, ids = list[str](), np.unique(seen)
        for scheme in NUMBERINGS[: 3 if self.classes == 2 else 2]:
            if not (LabelIds(self.classes, scheme)._table()[ids] == _NO_CLASS).any():
                found.append(scheme)
        occurring = dict[str, float]()
        for labels in label_sets().values():
            for scheme in labels.ids if len(labels.classes) == self.classes else ():
                named = labels.table(scheme) != IGNORE
                if named[seen].mean() > _MOST:
                    occurring[scheme] = float(named[ids].sum() / named.sum())
        most = max(occurring.values(), default=0.0)
        likely = sorted((scheme for scheme, part in occurring.items() if 2 * part > most), key=lambda s: -occurring[s])
        return [*found, *(scheme for scheme in likely if scheme not in found)]

    def _outside(self, label: NDArray[np.uint8]) -> NDArray[np.bool_]:
        outside: NDArray[np.bool_] = (label >= self.classes) & (label != IGNORE)
        return outside

    def _table(self) -> NDArray[np.int16]:
        """The class of each id 0..255, `IGNORE` for what is ignored, and `_NO_CLASS`."""
        if labels := raw_label_set(self.scheme):
            return labels.table(self.scheme).astype(np.int16)
        table = np.full(256, _NO_CLASS, np.int16)
        table[IGNORE] = 1 if self.scheme == BINARY else IGNORE
        first = 1 if self.scheme == FROM_ONE else 0
        table[:first] = IGNORE
        table[first : first + self.classes] = np.arange(min(self.classes, 256 - first))
        return table

    def _known(self) -> str:
        if raw_label_set(self.scheme):
            return f"raw ids of {self.scheme} end at 255"
        if self.scheme == BINARY:
            return "masks of two classes hold 0, and 1 or 255"
        first = ", the first with the id 1, and 0 and" if self.scheme == FROM_ONE else " and"
        return f"there are {self.classes} classes{first} {IGNORE} for what is ignored"
