"""Fractions and means of them in which a class that does not occur is nan and does not count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer] | Values
Classes = Sequence[int]  # a protocol: the indices of the classes that are scored


def ratio(part: Counts, whole: Counts) -> Values:
    """part / whole, nan where whole is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(whole == 0, np.nan, part / whole), dtype=np.float64)


def mean(values: Values) -> Values:
    """The mean over the last axis of what is not nan; nan if nothing is left."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def chosen(counts: Counts, classes: Classes | None) -> Counts:
    """The classes' rows of (..., C, K) counts."""
    return counts if classes is None else counts[..., list(classes), :]
