"""Say in one sentence which model to use, as far as paired intervals tell the models apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.metrics.bootstrap import interval


@dataclass(frozen=True)
class Contender:
    """A scored model: its mean over the classes, the means on bootstrap resamples, and whether it is a merge."""

    name: str
    mean: float
    resamples: NDArray[np.float64]
    merged: bool


@dataclass(frozen=True)
class Verdict:
    """The model to use, by its name, and the sentence that says so; `merged` is True if it is a merge."""

    model: str
    merged: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"model": self.model, "merged": self.merged, "sentence": self.sentence}


FEWEST = 6  # images all in favour of one of two models happen by chance in 1 of 32 cases, five in 1 of 16


def decide(contenders: Sequence[Contender], units: int, drawn: str) -> Verdict | None:
    """Return the verdict on models that were scored on the same images; None if there is nothing to choose.

    A merge is taken if its whole interval lies above the best parent, the model with the highest score that is no
    merge. Without merges, or without parents, the best model is held against the next. Fewer than `FEWEST` images show
    no difference, however large it is on them: their intervals are too narrow.

    Args:
        contenders: the models; one without a score counts as absent.
        units: how many images, or groups of them, the intervals are over.
        drawn: these in words, such as "12 images".
    """
    known = sorted((each for each in contenders if not np.isnan(each.mean)), key=lambda each: -each.mean)
    parents, merges = ([each for each in known if each.merged is merged] for merged in (False, True))
    if len(known) < 2:
        return None
    if not parents or not merges:
        return _best_of(known[0], known[1], units, drawn)
    parent, merge = parents[0], merges[0]
    lead, spread, above = _lead(merge, parent)
    if above and units >= FEWEST:
        return Verdict(merge.name, True, f"Take {merge.name}: {lead} ({spread}) over {parent.name}.")
    if above:
        few = _too_few(units, drawn)
        return Verdict(parent.name, False, f"Keep {parent.name}: {merge.name} leads it by {lead} ({spread}), {few}.")
    beats = "beats it" if merge.mean <= parent.mean else f"is shown to beat it by {_these(units, drawn)}"
    closest = f"closest {merge.name}, " if len(merges) > 1 else "closest "
    return Verdict(parent.name, False, f"Keep {parent.name}: no merge {beats} ({closest}{lead}, {spread}).")


def _best_of(best: Contender, second: Contender, units: int, drawn: str) -> Verdict:
    lead, spread, above = _lead(best, second)
    if above and units >= FEWEST:
        sentence = f"Take {best.name}: {lead} ({spread}) over the next, {second.name}."
    elif above:
        few = _too_few(units, drawn)
        sentence = f"Take {best.name} or {second.name}: the first leads by {lead} ({spread}), {few}."
    else:
        sentence = (
            f"Take {best.name} or {second.name}: no difference is shown by {_these(units, drawn)} ({lead}, {spread})."
        )
    return Verdict(best.name, best.merged, sentence)


def _lead(first: Contender, second: Contender) -> tuple[str, str, bool]:
    """The lead of a model over another and its interval, in points, and True if the whole interval lies above 0.

    The numbers have two decimals where one would show a difference as none.
    """
    spread = interval(first.resamples - second.resamples)
    values = [100 * value for value in (first.mean - second.mean, *spread)]
    digits = 1 if all(value == 0 or abs(value) >= 0.05 for value in values) else 2
    lead, low, high = (round(value, digits) + 0.0 for value in values)  # no -0.0
    return f"{lead:+.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}", spread.low > 0


def _these(units: int, drawn: str) -> str:
    these = f"these {drawn}" if units > 1 else "this one image"
    return these if units >= FEWEST else f"{these}, too few to tell"


def _too_few(units: int, drawn: str) -> str:
    """The clause that takes a lead back."""
    return f"but on {drawn if units > 1 else 'one image'} alone; it takes at least {FEWEST} to tell"
