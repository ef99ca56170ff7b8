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


def search(
    score: Callable[[Sequence[Candidate]], Sequence[float | None]], models: int, fixed: Knobs, run: SweepRun
) -> None:
    """Try start, alpha and ramp of the layerwise merge of all models, anchored at the first, to raise its score.

    The first trial is the paper's choice; the others are asked of Optuna's tree-structured Parzen estimator (Bergstra
    et al. 2011). With the same seed and scores it asks for the same, so that a search goes on where it stopped once it
    is told again what is known already.

    Args:
        score: returns the scores of candidates, None for one that cannot be merged.
        models: the number of models.
        fixed: the knobs of every trial.
        run: the number of trials and the seed. `run.jobs` trials are asked for before their scores are told, and the
            course of the search depends on it.

    Raises:
        ExtraError: if Optuna is not installed.
    """
    with naming_extras("--search"):
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=run.seed))
    study.enqueue_trial({"start": 0.0, "alpha": 1 / models, "ramp": "linear"})
    at_once = run.jobs or 1
    for first in range(0, run.search, at_once):
        asked = [study.ask() for _ in range(min(at_once, run.search - first))]
        candidates = [_candidate(trial, models, fixed) for trial in asked]
        for trial, found in zip(asked, score(candidates), strict=True):
            if found is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, found)


def _candidate(trial: Any, models: int, fixed: Knobs) -> Candidate:
    start = trial.suggest_float("start", 0.0, 0.95, step=0.01)
    alpha = trial.suggest_float("alpha", 1 / models, 1.0)
    ramp = trial.suggest_categorical("ramp", _RAMPS)
    if ramp == "power":
        ramp = f"power:{trial.suggest_float('power', 0.25, 4.0, log=True):.4f}"
    method = Layerwise(start=round(start, 2), alpha=None if alpha == 1 / models else alpha, ramp=ramp)
    return Candidate("merge", tuple(range(models)), 0, replace(fixed, method=method), trial.number)
