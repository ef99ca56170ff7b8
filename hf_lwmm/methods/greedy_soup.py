"""Greedy soup: the average of the models that do not lower its score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Trials, register
from hf_lwmm.methods.schedule import LayerWeights


@register
@dataclass(frozen=True)
class GreedySoup(Method):
    """Average of a set S of models, chosen greedily on labelled images: merged = 1/|S| sum_{i in S} theta_i.

    S begins with the model that scores best. The others follow in the order of their scores, and each is added if the
    average with it does not score less than before. A single model is scored the way an average is, with its own
    tensors in the shared slots and the anchor's everywhere else, so that every score belongs to a network that the
    merge could write. S need not contain the anchor.

    Source: Wortsman et al. 2022, "Model soups" (Recipe 1). Needs labelled images, but no gradients. Cost: 2 M - 1
    evaluations.
    """

    name: ClassVar[str] = "greedy-soup"
    summary: ClassVar[str] = "only those models are averaged that did not lower the average's score on labelled images"
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
        notes = [f"{trials.names[first]} scores best alone, {100 * best:.2f}: included"]
        for model in others:
            score = trials.score(average([*soup, model]))
            kept = score >= best
            notes.append(
                f"{trials.names[model]} scores {100 * alone[model]:.2f} alone, {100 * score:.2f} averaged with those "
                f"already included: {'included' if kept else 'left out'}"
            )
            if kept:
                soup, best = [*soup, model], score
        return average(soup), tuple(notes)
