"""What the document of the benchmark is made of: models by run and seed, their scores, and Markdown that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from scripts.uda.candidates import Bench, Candidate, Scored
from scripts.uda.train import QUARTERS

MERGES = ("isotropic", "fisher", "permutation")
METHODS = (*MERGES, "ensemble", "layerwise")
CLAIM = "Claim: "


def quarters(run: str) -> list[str]:
    """A run's checkpoints, the last one first."""
    return [f"{run}/{quarter}" for quarter in range(QUARTERS, 0, -1)]


def last(run: str) -> str:
    return quarters(run)[0]


def seeded(name: str, seed: int) -> str:
    """The run, or the model, that another seed of the same training left."""
    run = name.split("/")[0].split(" ")[0]
    return name if seed == 1 else f"{run}@{seed}{name.removeprefix(run)}"


def of_seeds(bench: Bench, *models: str) -> list[list[str]]:
    """These models of every seed for which all of them were trained."""
    found = [[seeded(model, seed) for model in models] for seed in bench.seeds]
    return [each for each in found if not bench.missing(*each)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *rows)]
    return [f"| {line} |" for line in lines] + [""]


def number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.1f}"


def gained(scored: Scored, over: Scored) -> str:
    gain, low, high = scored.gain(over)
    return f"{gain:+.1f} ({low:+.1f} to {high:+.1f})"


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and standard deviation over seeds."""
    mean = f"{np.mean(values):{form}}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def change(values: Sequence[float], over: Sequence[float]) -> str:
    """Mean and standard deviation over seeds of what is gained within a seed."""
    return spread([value - before for value, before in zip(values, over, strict=True)], "+.1f")


def over_seeds(found: Sequence[Mapping[str, Scored]], method: str) -> list[float]:
    return [each[method].mean for each in found]


def claim(text: str, holds: Iterable[bool]) -> list[str]:
    """What the paper says, and in how many cases it holds here; `document` gathers these lines."""
    cases = list(holds)
    return [f"{CLAIM}{text}: **{sum(cases)} of {len(cases)}**", ""] if cases else []


def not_trained(bench: Bench, *models: str) -> list[str]:
    """A line that names the runs that are missing, if any are."""
    missing = ", ".join(f"`{run}`" for run in bench.missing(*models))
    return [f"Not trained: {missing}.", ""] if missing else []


def not_seeded(bench: Bench, *models: str) -> list[str]:
    """A line that names the runs that are missing of any seed, if any are."""
    return not_trained(bench, *(seeded(model, seed) for model in models for seed in bench.seeds))


def alone(bench: Bench, model: str, on: str) -> Scored:
    return bench.score(Candidate((model,)), on)


def merged(bench: Bench, models: Sequence[str], on: str, task: str = "semantic") -> dict[str, Scored]:
    """What each method makes of models, the anchor first; panoptic networks have no ensemble."""
    methods = (method for method in METHODS if task != "panoptic" or method != "ensemble")
    return {method: bench.score(Candidate(tuple(models), method), on, task) for method in methods}


def numbers(found: Mapping[str, Scored]) -> list[str]:
    return [number(found[method].mean) for method in METHODS]


def best_first(bench: Bench, runs: Sequence[str]) -> list[str]:
    """The last checkpoints of the runs that exist, by their score on val."""
    there = [last(run) for run in runs if not bench.missing(last(run))]
    return sorted(there, key=lambda model: -alone(bench, model, "val").mean)


def growing(models: Sequence[str]) -> list[tuple[str, ...]]:
    """The first two models, the first three, ..., all."""
    return [tuple(models[:count]) for count in range(2, len(models) + 1)]
