"""A search of layerwise's knobs instead of a grid: seeded TPE, whose trials are candidates like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.sweeping.executor import SweepError
from hf_lwmm.sweeping.grid import Candidate, merge_knobs

_RAMPS = ("linear", "cosine", "step", "power")


def search(
    score: Callable[[Sequence[Candidate]], Sequence[float | None]],
    models: int,
    trials: int,
    *,
    seed: int,
    fixed: Mapping[str, Any],
    at_once: int = 1,
) -> None:
    """Try start, alpha and ramp of all models' layerwise merge, anchored at the first, so as to raise the score.

    The first trial is the paper's choice. Tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna. With the
    same seed and scores it asks the same, so that a search goes on by being told again what is known already.

    Args:
        score: scores of candidates, None for one that cannot be.
        at_once: how many trials are asked for before their scores are told; the course depends on it.

    Raises:
        SweepError: if Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise SweepError("--search needs Optuna: pip install 'hf-lwmm[optuna]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({"start": 0.0, "alpha": 1 / models, "ramp": "linear"})
    for first in range(0, trials, at_once):
        asked = [study.ask() for _ in range(min(at_once, trials - first))]
        candidates = [_candidate(trial, models, fixed) for trial in asked]
        for trial, found in zip(asked, score(candidates), strict=True):
            if found is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, found)


def _candidate(trial: Any, models: int, fixed: Mapping[str, Any]) -> Candidate:
    start = trial.suggest_float("start", 0.0, 0.95, step=0.01)
    alpha = trial.suggest_float("alpha", 1 / models, 1.0)
    ramp = trial.suggest_categorical("ramp", _RAMPS)
    if ramp == "power":
        ramp = f"power:{trial.suggest_float('power', 0.25, 4.0, log=True):.4f}"
    knobs = merge_knobs(
        Layerwise.name, {"start": round(start, 2), "alpha": None if alpha == 1 / models else alpha, "ramp": ramp}, fixed
    )
    return Candidate("merge", tuple(range(models)), 0, knobs, trial.number)
