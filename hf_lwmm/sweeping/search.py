"""Search layerwise's options instead of trying a grid: seeded TPE, whose trials are candidates like any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hf_lwmm.errors import naming_extras
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.planning.knobs import Knobs
from hf_lwmm.sweeping.grid import Candidate
from hf_lwmm.sweeping.run_options import SweepRun

_RAMPS = ("linear", "cosine", "step", "power")


class Search:
    """A search of start, alpha and ramp of the layerwise merge of all models, anchored at the first.

    The first trial is the paper's choice; the others are asked of Optuna's tree-structured Parzen estimator (Bergstra
    et al. 2011). With the same seed and scores it asks for the same, so that a search goes on where it stopped once it
    has been given the known scores again.

    Args:
        models: the number of models.
        fixed: the knobs of every trial.
        run: the number of trials and the seed. `run.jobs` trials are asked for before their scores are given back, and
            the course of the search depends on it.

    Raises:
        ExtraError: if Optuna is not installed.
    """

    def __init__(self, models: int, fixed: Knobs, run: SweepRun) -> None:
        with naming_extras("--search"):
            import optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._models, self._fixed, self._trials, self._at_once = models, fixed, run.search, run.jobs or 1
        self._failed = optuna.trial.TrialState.FAIL
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=run.seed))
        self._study.enqueue_trial({"start": 0.0, "alpha": 1 / models, "ramp": "linear"})

    def run(self, score: Callable[[Sequence[Candidate]], Sequence[float | None]]) -> None:
        """Try candidates to raise the score; `score` returns those of several, None for one that cannot be scored."""
        for first in range(0, self._trials, self._at_once):
            asked = [self._study.ask() for _ in range(min(self._at_once, self._trials - first))]
            candidates = [self._candidate(trial) for trial in asked]
            for trial, found in zip(asked, score(candidates), strict=True):
                if found is None:
                    self._study.tell(trial, state=self._failed)
                else:
                    self._study.tell(trial, found)

    def _candidate(self, trial: Any) -> Candidate:
        start = trial.suggest_float("start", 0.0, 0.95, step=0.01)
        alpha: float | None = trial.suggest_float("alpha", 1 / self._models, 1.0)
        ramp = trial.suggest_categorical("ramp", _RAMPS)
        if ramp == "power":
            ramp = f"power:{trial.suggest_float('power', 0.25, 4.0, log=True):.4f}"
        if alpha == 1 / self._models:
            alpha = None
        knobs = replace(self._fixed, method=Layerwise(start=round(start, 2), alpha=alpha, ramp=ramp))
        return Candidate("merge", tuple(range(self._models)), 0, knobs, trial.number)
