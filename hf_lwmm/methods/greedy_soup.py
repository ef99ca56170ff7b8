"""Greedy soup: average those models that do not harm the average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Trials, register
from hf_lwmm.methods.schedule import LayerWeights


@register
@dataclass(frozen=True)
class GreedySoup(Method):
    """merged = 1/|S| sum_{i in S} theta_i on every shared slot; S is chosen greedily on held-out images.

    The models are sorted by their scores; the best is in S, and each other is taken in if the average with it does not
    score less. A model is scored, as an average is, in the anchor's place: shared slots are its own, all else is the
    anchor's, so that every score is of a network that the merge could write. The anchor may stay outside S. Source:
    Wortsman et al. 2022, "Model soups" (Recipe 1). Needs labelled images, and no gradients. Cost: 2 M - 1 evaluations
    on them.
    """

    name: ClassVar[str] = "greedy-soup"
    summary: ClassVar[str] = "those models are averaged that did not harm the average's score on labelled images"
    reference: ClassVar[str] = "Wortsman et al. 2022, arXiv 2203.05482"
    linear: ClassVar[bool] = True
    convex: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    data: ClassVar[str] = "labelled images (--tune-data)"

    def decide(self, trials: Trials) -> tuple[LayerWeights, tuple[str, ...]]:
        def average(models: list[int]) -> LayerWeights:
            row = np.isin(np.arange(len(trials.names)), models) / len(models)
            return np.tile(row, (trials.positions, 1))

        alone = [trials.score(average([model])) for model in range(len(trials.names))]
        first, *others = sorted(range(len(alone)), key=lambda model: -alone[model])
        soup, best = [first], alone[first]
        notes = [f"{trials.names[first]} scores {100 * best:.2f} alone, the most: it is in"]
        for model in others:
            score = trials.score(average([*soup, model]))
            kept = score >= best
            notes.append(
                f"{trials.names[model]} scores {100 * alone[model]:.2f} alone, with those before {100 * score:.2f}: "
                f"it is {'in' if kept else 'left out'}"
            )
            if kept:
                soup, best = [*soup, model], score
        return average(soup), tuple(notes)
