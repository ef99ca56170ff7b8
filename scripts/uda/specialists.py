"""Models that learned one style each from one short pre-training, their merges, and what these gain over the best."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.uda.candidates import Bench, Candidate, Scored
from scripts.uda.cells import (
    NEW,
    STYLES,
    TARGETS,
    alone,
    last,
    not_trained,
    of_seeds,
    on_part,
    spread,
    table,
    to_best,
    whole_of,
    with_interval,
)

METHODS = ("isotropic", "layerwise")
# Models of one seed that are merged, by what tells them apart; the last are models of one style that differ in seed.
MERGES = {
    "different data": (
        ("segformer-gta", "segformer-night"),
        ("segformer-synthia", "segformer-night"),
        ("segformer-gta", "segformer-synthia"),
        ("segformer-gta", "segformer-synthia", "segformer-night"),
        ("cnn-gta-fada", "cnn-night-minent"),
        ("cnn-gta-frozen", "cnn-night-frozen"),
    ),
    "a third of the data shared": (("segformer-gta", "segformer-all"),),
    "the same data": (
        ("segformer-gta", "segformer-gta@2"),
        ("segformer-night", "segformer-night@2"),
        ("segformer-synthia", "segformer-synthia@2"),
        ("cnn-gta-fada", "cnn-gta-adaptsegnet"),
        ("cnn-night-minent", "cnn-night-maxsquare"),
    ),
    "different data, BatchNorm not frozen": (
        ("segformer-gta-free", "segformer-night-free"),
        ("cnn-gta-free", "cnn-night-free"),
    ),
}
COLUMNS = (*STYLES, *NEW, *TARGETS)
TESTED = "different data"  # on test frames
JOINT = ("segformer-all", "cnn-all")


def merge_of(bench: Bench, models: Sequence[str], method: str, on: str) -> Scored:
    """Score a merge on a target or a style of it; the anchor is the best model on the whole target's val frames."""
    return on_part(bench.score(Candidate(anchor_first(bench, models, on), method), whole_of(on)), on)


def anchor_first(bench: Bench, models: Sequence[str], on: str) -> tuple[str, ...]:
    """Return the models, in descending order of their score on the val frames of a target."""
    val = whole_of(on).removesuffix(" test")
    return tuple(sorted(models, key=lambda model: -alone(bench, model, val).mean))


def specialists(bench: Bench, *, test: bool) -> list[str]:
    """Return the section on merges of specialists: their scores, and their gains over the best of the parents."""
    suffix = " test" if test else ""
    groups = {
        what: [tuple(map(last, runs)) for runs in merges]
        for what, merges in MERGES.items()
        if not test or what == TESTED
    }
    wanted = [model for merges in groups.values() for models in merges for model in models]
    missing = not_trained(bench, *dict.fromkeys([*wanted, *map(last, JOINT)]))
    rows, gains = [], []
    for model in dict.fromkeys(model for model in [*wanted, *map(last, JOINT)] if "@" not in model):
        if found := of_seeds(bench, model):
            rows.append((f"`{model}`", "", *_scores(bench, found, None, suffix)))
    for what, merges in groups.items():
        for models in merges:
            trained = [] if bench.missing(*models) else [list(models)]
            if not any("@" in model for model in models):
                trained = of_seeds(bench, *models)
            if not trained:
                continue
            name = " + ".join(f"`{model.split('/')[0]}`" for model in models)
            for method in METHODS:
                rows.append((name, method, *_scores(bench, trained, method, suffix)))
                gains.append((what, name, method, str(len(trained)), *_gains(bench, trained, method, suffix)))
    if not rows:
        return missing
    return [
        *table(["models", "merge", *COLUMNS], rows),
        *table(["models with", "merge of", "method", "seeds", *COLUMNS], gains),
        *missing,
    ]


def _scores(bench: Bench, trained: Sequence[Sequence[str]], method: str | None, suffix: str) -> list[str]:
    """Return the cells with the scores by style and by target."""

    def scored(models: Sequence[str], on: str) -> Scored:
        return alone(bench, models[0], on) if method is None else merge_of(bench, models, method, on)

    return [spread([scored(models, f"{on}{suffix}").mean for models in trained]) for on in COLUMNS]


def _gains(bench: Bench, trained: Sequence[Sequence[str]], method: str, suffix: str) -> list[str]:
    """Return the gain over the best parent on each target: of the one seed, or over seeds with how many are clear."""
    cells = []
    for on in (f"{column}{suffix}" for column in COLUMNS):
        found = [to_best(bench, merge_of(bench, models, method, on), models, on) for models in trained]
        if len(found) == 1:
            cells.append(with_interval(found[0]))
        else:
            above, below = sum(low > 0 for _, low, _ in found), sum(high < 0 for _, _, high in found)
            clear = f"{above} above 0, {below} below" if above or below else "none clear"
            cells.append(f"{spread([gain for gain, _, _ in found], '+.1f')} ({clear})")
    return cells
