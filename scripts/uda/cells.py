"""Parts of the benchmark's document: models by run and seed, their scores, and Markdown cells and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from scripts.uda.candidates import Bench, Candidate, Scored
from scripts.uda.train import QUARTERS

MERGES = ("isotropic", "fisher", "permutation")
METHODS = (*MERGES, "ensemble", "layerwise")
CLAIM = "Claim: "
STYLES = ("gta", "synthia", "night")  # that models are trained on
NEW = ("evening", "fog")  # that no model is trained on
FRAMES = 30  # of each style, to score on
TARGETS = {
    "mixed": "frames of the three styles that the models were trained on, each on one of them",
    "new": "frames of two styles, evening and fog, that no model was trained on",
    "camvid": "every second val frame of CamVid, seconds of one film; its 367 unlabelled training images are what the "
    "strategies adapt to",
}


def whole_of(on: str) -> str:
    """Return the target whose frames contain those of a style, or a target itself; with " test", of its test frames."""
    name, space, test = on.partition(" ")
    return ("mixed" if name in STYLES else "new" if name in NEW else name) + space + test


def on_part(scored: Scored, on: str) -> Scored:
    """Return what was scored on `whole_of(on)` on the frames of one style; a target has its frames style by style."""
    name = on.split(" ")[0]
    for styles in (STYLES, NEW):
        if name in styles:
            each = len(scored.counts) // len(styles)
            return scored.part(slice(styles.index(name) * each, (styles.index(name) + 1) * each))
    return scored


def quarters(run: str) -> list[str]:
    """Return the checkpoints of a run, the last one first."""
    return [f"{run}/{quarter}" for quarter in range(QUARTERS, 0, -1)]


def last(run: str) -> str:
    """Return the last checkpoint of a run."""
    return quarters(run)[0]


def seeded(name: str, seed: int) -> str:
    """Return the name of the same run or model with another seed."""
    run = name.split("/")[0].split(" ")[0]
    return name if seed == 1 else f"{run}@{seed}{name.removeprefix(run)}"


def of_seeds(bench: Bench, *models: str) -> list[list[str]]:
    """Return the models with each seed for which all of them have been trained."""
    found = [[seeded(model, seed) for model in models] for seed in bench.seeds]
    return [each for each in found if not bench.missing(*each)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, with an empty line after it."""
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *rows)]
    return [f"| {line} |" for line in lines] + [""]


def number(value: float | None) -> str:
    """Return a number with one decimal; empty for None and nan."""
    return "" if value is None or np.isnan(value) else f"{value:.1f}"


def gained(scored: Scored, over: Scored) -> str:
    """Return the gain of one candidate over another, with its 95 % interval over images."""
    return with_interval(scored.gain(over))


def with_interval(gain: tuple[float, float, float]) -> str:
    """Return a gain and the ends of its interval, in bold if the interval is above 0."""
    text = f"{gain[0]:+.1f} ({gain[1]:+.1f} to {gain[2]:+.1f})"
    return f"**{text}**" if gain[1] > 0 else text


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Return the mean and the standard deviation over seeds."""
    mean = f"{np.mean(values):{form}}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def change(values: Sequence[float], over: Sequence[float]) -> str:
    """Return the mean and the standard deviation, over seeds, of the gain within each seed."""
    return spread([value - before for value, before in zip(values, over, strict=True)], "+.1f")


def over_seeds(found: Sequence[Mapping[str, Scored]], method: str) -> list[float]:
    """Return the scores of a method with each seed, in per cent."""
    return [each[method].mean for each in found]


def claim(text: str, holds: Iterable[bool]) -> list[str]:
    """Return a line with a claim of the paper and the number of cases in which it holds; `in_short` collects them."""
    cases = list(holds)
    return [f"{CLAIM}{text}: **{sum(cases)} of {len(cases)}**", ""] if cases else []


def not_trained(bench: Bench, *models: str) -> list[str]:
    """Return a line that names missing runs, or nothing if none is missing."""
    missing = ", ".join(f"`{run}`" for run in bench.missing(*models))
    return [f"Not trained: {missing}.", ""] if missing else []


def not_seeded(bench: Bench, *models: str) -> list[str]:
    """Return a line that names missing runs with any of the seeds, or nothing if none is missing."""
    return not_trained(bench, *(seeded(model, seed) for model in models for seed in bench.seeds))


def alone(bench: Bench, model: str, on: str) -> Scored:
    """Score a single model on a target, or on the frames of a style of it."""
    return on_part(bench.score(Candidate((model,)), whole_of(on)), on)


def merged(bench: Bench, models: Sequence[str], on: str, task: str = "semantic") -> dict[str, Scored]:
    """Score the merge of models by each method, with the first as the anchor; panoptic networks have no ensemble."""
    methods = (method for method in METHODS if task != "panoptic" or method != "ensemble")
    return {method: bench.score(Candidate(tuple(models), method), on, task) for method in methods}


def numbers(found: Mapping[str, Scored]) -> list[str]:
    """Return the cells of a row with the score of each method."""
    return [number(found[method].mean) for method in METHODS]


def best_first(bench: Bench, runs: Sequence[str], on: str) -> list[str]:
    """Return the last checkpoints of the runs that exist, in descending order of their score."""
    there = [last(run) for run in runs if not bench.missing(last(run))]
    return sorted(there, key=lambda model: -alone(bench, model, on).mean)


def to_best(bench: Bench, scored: Scored, models: Sequence[str], on: str) -> tuple[float, float, float]:
    """Return the gain of a merge over the best of its parents on the same images, with its interval."""
    return scored.gain(max((alone(bench, model, on) for model in models), key=lambda single: single.mean))


def growing(models: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the first two models, the first three, and so on up to all."""
    return [tuple(models[:count]) for count in range(2, len(models) + 1)]
