"""Fractions, and means of them; a class that does not occur is nan and does not count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer] | Values
Classes = Sequence[int]  # the indices of the classes that a protocol scores


def ratio(part: Counts, whole: Counts) -> Values:
    """Return part / whole, nan where whole is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(whole == 0, np.nan, part / whole), dtype=np.float64)


def mean(values: Values) -> Values:
    """Return the mean over the last axis of the values that are not nan; nan if there are none."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def chosen(counts: Counts, classes: Classes | None) -> Counts:
    """Return the rows of some classes of (..., C, K) counts; all rows if None."""
    return counts if classes is None else counts[..., list(classes), :]
