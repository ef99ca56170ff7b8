"""A candidate's place among all of a sweep, and the row that the sweep's file has of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_lwmm.evaluation.report import ends
from hf_lwmm.methods import Method
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.metrics.bootstrap import Interval
from hf_lwmm.metrics.ratios import Values
from hf_lwmm.sweeping.grid import Candidate


@dataclass(frozen=True)
class SweepRow:
    """A candidate's place in the table; scores are fractions, intervals 95 % over images.

    `difference` is to the best single model, `to_anchor` to the candidate's own anchor and `behind` to the best
    candidate; their intervals are paired. They are None where a candidate would be compared with itself, `to_anchor`
    for an ensemble, and the first two where no single model was scored. `repeats` is True for a merge that is equal to
    one above but for its anchor, on which it does not depend; they share a rank, and tables list them once.
    `ties_with_best` is True if other images could as well have put the candidate first.
    """

    rank: int
    name: str
    candidate: Candidate
    score: float
    interval: Interval
    difference: float | None
    difference_interval: Interval | None
    to_anchor: float | None
    to_anchor_interval: Interval | None
    behind: float | None
    behind_interval: Interval | None
    by_class: Values = field(repr=False)
    seconds: float = 0.0
    repeats: bool = False
    ties_with_best: bool = True

    def record(self, labels: Sequence[str], metric: str) -> dict[str, Any]:
        """Return plain data; see the table in `hf_lwmm.sweeping`.

        Args:
            labels: the models' names, in the order that candidates count them.
            metric: the name of the scores.
        """
        candidate, knobs = self.candidate, self.candidate.knobs
        layerwise = knobs.method if knobs is not None and isinstance(knobs.method, Layerwise) else None
        return {
            "rank": self.rank,
            "candidate": self.name,
            "kind": candidate.kind,
            "models": [labels[model] for model in candidate.models],
            "anchor": None if candidate.kind == "ensemble" else labels[candidate.anchor],
            "method": candidate.method,
            "start": layerwise and layerwise.start,
            "alpha": layerwise and (1 / len(candidate.models) if layerwise.alpha is None else layerwise.alpha),
            "ramp": layerwise and layerwise.ramp,
            "bn_stats": knobs and knobs.bn_stats,
            "options": knobs and _options(knobs.method),
            "trial": candidate.trial,
            "metric": metric,
            "score": self.score,
            **ends("", self.interval),
            "difference": self.difference,
            **ends("difference_", self.difference_interval),
            "to_anchor": self.to_anchor,
            **ends("to_anchor_", self.to_anchor_interval),
            "behind": self.behind,
            **ends("behind_", self.behind_interval),
            "by_class": self.by_class.tolist(),
        }


def _options(method: Method) -> dict[str, float]:
    """A method's options; those of layerwise have columns of their own."""
    if isinstance(method, Layerwise):
        return {}
    return {name: float(value) for name, value in method.options.items() if value is not None}
