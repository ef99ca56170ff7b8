"""The paper's tables, the scores of the runs themselves, and those on the test split."""

from __future__ import annotations

from itertools import combinations
from operator import gt, lt
from pathlib import Path
from typing import Any

import yaml

from scripts.uda import objects
from scripts.uda.candidates import Bench, Candidate, panoptic_means
from scripts.uda.cells import (
    MERGES,
    METHODS,
    NEW,
    STYLES,
    TARGETS,
    alone,
    best_first,
    change,
    claim,
    gained,
    growing,
    last,
    merged,
    not_seeded,
    not_trained,
    number,
    numbers,
    of_seeds,
    over_seeds,
    quarters,
    seeded,
    spread,
    table,
    to_best,
    with_interval,
)

CNN = ("cnn-gta-fada", "cnn-synthia-advent", "cnn-night-minent", "cnn-gta-adaptsegnet", "cnn-night-maxsquare")
HRDA = ("hrda-gta", "mic-synthia", "pipa-night")
# Runs of each family, by their pre-training.
FAMILIES = {
    "segformer": ("segformer-gta", "segformer-synthia", "segformer-night", "segformer-all"),
    "cnn": (*CNN, "cnn-gta-frozen", "cnn-night-frozen", "cnn-gta-free", "cnn-night-free", "cnn-all"),
    "mit": (*HRDA, "daformer-night", "daformer-all"),
}  # fmt: skip
UNLABELLED = " without sign+fence"  # classes that the style synthia leaves unlabelled
PAPER: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text())


def controls(bench: Bench) -> list[str]:
    """Return the section on the scores of the runs themselves, by style and by target."""
    rows, runs = [], [run for start, others in FAMILIES.items() for run in (start, *others)]
    for run in runs:
        if bench.missing(last(run)):
            continue
        rows.append((f"`{run}`", *(number(alone(bench, last(run), on).mean) for on in (*STYLES, *NEW, *TARGETS))))
    missing = not_trained(bench, *map(last, runs))
    return [*table(["run", *STYLES, *NEW, *TARGETS], rows), *missing] if rows else missing


def table2(bench: Bench, on: str) -> list[str]:
    """Return Table 2: merges of more and more models."""
    lines = ["### Table 2: more and more models, best first", ""]
    for family, runs in (("transformer", HRDA), ("cnn", CNN)):
        models, printed = best_first(bench, runs, on), PAPER["table2"][family]
        lines += [f"**{family}**", "", *not_trained(bench, *map(last, runs))]
        if len(models) < 2:
            continue
        anchor = alone(bench, models[0], on)
        empty = [""] * (len(METHODS) + 2)
        rows = [(f"`{models[0]}`", number(anchor.mean), *empty, number(printed["individual"][0]))]
        above, best, gains = [], [], []
        for subset in growing(models):
            found, count = merged(bench, subset, on), len(subset)
            ours = found["layerwise"]
            above.append(ours.mean > anchor.mean)
            gains.append(found["isotropic"].mean > anchor.mean)
            best.append(ours.mean >= max(found[method].mean for method in MERGES))
            theirs = (printed[m][count - 1] for m in ("individual", "isotropic", "fisher", "ensemble", "layerwise"))
            to_anchor = (gained(found[method], anchor) for method in ("isotropic", "layerwise"))
            cells = (number(alone(bench, subset[-1], on).mean), *numbers(found), *to_anchor)
            rows.append((f"+ `{subset[-1]}`", *cells, " / ".join(map(number, theirs))))
        head = ["model", "alone", *METHODS, "isotropic to the best", "layer-wise to the best"]
        lines += table([*head, "paper: alone / isotropic / Fisher / ensemble / layer-wise"], rows)
        lines += claim(f"{family}, however many models: layer-wise is above the best of them", above)
        lines += claim(f"{family}, however many models: isotropic is above the best of them", gains)
        lines += claim(f"{family}, however many models: layer-wise is at least as good as the other merges", best)
    return lines


def table3(bench: Bench, on: str) -> list[str]:
    """Return Table 3: merges of all subsets of the first seed's models with all anchors."""
    lines = ["### Table 3: all subsets and anchors", "", *not_trained(bench, *map(last, CNN))]
    models = best_first(bench, CNN, on)
    if len(models) < 2:
        return lines
    others = [method for method in METHODS if method != "layerwise"]
    wins: dict[str, list[bool]] = {method: [] for method in others}
    above: list[bool] = []
    rows = []
    for subset in (subset for count in range(2, len(models) + 1) for subset in combinations(models, count)):
        found = merged(bench, subset, on)
        for method in others:
            wins[method].append(found["layerwise"].mean >= found[method].mean)
        by_anchor = []
        for anchor in subset:
            order = (anchor, *(model for model in subset if model != anchor))
            own, single = bench.score(Candidate(order, "layerwise"), on).mean, alone(bench, anchor, on).mean
            above.append(own > single)
            by_anchor.append(f"{own:.1f} ({own - single:+.1f})")
        rows.append((", ".join(map(_short, subset)), *numbers(found), "; ".join(by_anchor)))
    singles = ", ".join(f"{_short(model)} {alone(bench, model, on).mean:.1f}" for model in models)
    lines += [
        f"Seed {bench.seeds[0]}. Alone: {singles}. The first of a row is the anchor; the last column has layer-wise "
        "merges with each model of the row as the anchor, and what that adds to it.",
        "",
        *table(["models", *METHODS, "layer-wise by anchor"], rows),
        "The paper prints 21 subsets with one figure each: layer-wise is at least as good as isotropic and Fisher "
        "merging in all, as the ensemble in 20. It has no permutation.",
        "",
    ]
    for method, holds in wins.items():
        lines += claim(f"every subset: layer-wise is at least as good as {method}", holds)
    return lines + claim("every subset and anchor: layer-wise is above its anchor", above)


def _short(model: str) -> str:
    return model.split("/")[0].removeprefix("cnn-")


def table4(bench: Bench, on: str) -> list[str]:
    """Return Table 4: merges of models with other classes or other heads."""
    lines = []
    for part, what, *models in (
        ("4a", "other classes", "hrda-gta/4", f"mic-synthia{UNLABELLED}/4"),
        ("4b", "other heads", "hrda-gta/4", "daformer-night/4"),
    ):
        lines += [f"### Table {part}: {what}", "", *not_seeded(bench, *models)]
        pairs = of_seeds(bench, *models)
        if not pairs:
            continue
        printed = PAPER[f"table{part}"]
        singles = [[alone(bench, model, on).mean for model in column] for column in zip(*pairs, strict=True)]
        rows = [
            (f"`{model}`", spread(single), "", number(theirs))
            for model, single, theirs in zip(models, singles, printed["individual"], strict=True)
        ]
        found = [merged(bench, pair, on) for pair in pairs]
        scores = {method: over_seeds(found, method) for method in METHODS}
        rows += [(m, spread(own), change(own, singles[0]), number(printed.get(m))) for m, own in scores.items()]
        lines += table(["", "mIoU", "to the anchor", "paper"], rows)
        lines += [
            "In all our merges the tensors that models do not share stay the anchor's; the paper's isotropic and "
            "Fisher merges are below 13."
            + (" Classes that a model lacks count as 0 for it alone." if UNLABELLED in models[1] else ""),
            "",
        ]
        lines += claim("layer-wise is above its anchor", map(gt, scores["layerwise"], singles[0]))
        for method in ("isotropic", "fisher", "ensemble"):
            lines += claim(f"{method} is below the anchor", map(lt, scores[method], singles[0]))
    return lines


def table5(bench: Bench, on: str) -> list[str]:
    """Return Table 5: merges of a large and a small model."""
    small, large = "daformer-night/4", "hrda-gta/4"
    lines = ["### Table 5: a large model into a small one", "", *not_seeded(bench, small, large)]
    pairs = of_seeds(bench, small, large)
    if not pairs:
        return lines
    seconds = bench.seconds(pairs[0], on)
    rows, found = [], []
    for order, head, (backbones, decoder, *theirs) in zip(
        [(0,), (1,), (0, 1), (1, 0)], (0, 1, 0, 1), PAPER["table5"], strict=True
    ):
        method = "layerwise" if len(order) > 1 else None
        candidates = [Candidate(tuple(pair[model] for model in order), method) for pair in pairs]
        found.append([bench.score(candidate, on).mean for candidate in candidates])
        time = f"{seconds[head] / seconds[0]:.2f}"
        rows.append((backbones, decoder, spread(found[-1]), time, number(theirs[0]), f"{theirs[1]:.2f}"))
    return [
        *lines,
        *table(["backbones", "head", "mIoU", "time", "paper: mIoU", "paper: time"], rows),
        f"The small model changes by {change(found[2], found[0])} (paper: +4.7) at its own cost. Times are of one "
        "image on a CPU.",
        "",
        *claim("the large model's backbone improves the small one", map(gt, found[2], found[0])),
        *claim("and the small one's the large one", map(gt, found[3], found[1])),
    ]


def table6(bench: Bench, on: str) -> list[str]:
    """Return Table 6: merges of a semantic and a panoptic model."""
    anchor, other = "edaps-gta/4", "pipa-night/4"
    lines = [
        "### Table 6: a semantic model into a panoptic one",
        "",
        *not_seeded(bench, anchor, other),
    ]
    pairs = of_seeds(bench, anchor, other)
    if not pairs:
        return lines
    singles = [bench.score(Candidate((pair[0],)), on, "panoptic") for pair in pairs]
    found = [merged(bench, pair, on, "panoptic") for pair in pairs]
    before = [single.mean for single in singles]
    rows = []
    for method in (None, *found[0]):
        scored = singles if method is None else [each[method] for each in found]
        means = (spread(values) for values in zip(*map(panoptic_means, scored), strict=True))
        gain = "" if method is None else change([each.mean for each in scored], before)
        theirs = " / ".join(map(number, PAPER["table6"].get(method or "single", [])))
        rows.append((f"with HRDA, {method}" if method else "EDAPS", *means, gain, theirs))
    lines += table(["", "mSQ", "mRQ", "mPQ", "mPQ to EDAPS", "paper: mSQ / mRQ / mPQ"], rows)
    return lines + claim(
        "layer-wise has a higher mPQ than EDAPS alone", map(gt, over_seeds(found, "layerwise"), before)
    )


def table9(bench: Bench) -> list[str]:
    """Return Table 9: merges of the checkpoints of classifiers."""
    lines = [
        "### Table 9: other tasks",
        "",
        f"Classification of crops of rendered objects ({', '.join(objects.OBJECTS)}), {objects.SOURCE} to "
        f"{objects.TARGET}, without the source's crops during adaptation; the four checkpoints of one adaptation are "
        "merged, the last one is the anchor. Average accuracy, mean and standard deviation over seeds. Detection is "
        "left out: no detector is trained here.",
        "",
    ]
    rows, strategies = [], ("source", *objects.STRATEGIES)
    above: list[bool] = []
    lines += not_trained(
        bench, *(last(f"objects-{strategy}@{seed}") for strategy in strategies for seed in bench.seeds)
    )
    for strategy in strategies:
        runs = [f"objects-{strategy}@{seed}" for seed in bench.seeds]
        runs = [run for run in runs if not bench.missing(*quarters(run))]
        if not runs:
            continue
        lone = [bench.score(Candidate((last(run),)), "objects", "classification").mean for run in runs]
        found = [merged(bench, quarters(run), "objects", "classification") for run in runs]
        above += map(gt, over_seeds(found, "layerwise"), lone)
        rows.append((strategy, str(len(runs)), spread(lone), *(spread(over_seeds(found, m)) for m in METHODS)))
    if not rows:
        return lines
    paper = "; ".join(f"{name} {before} to {after}" for name, (before, after) in PAPER["table9"].items())
    lines += [*table(["strategy", "seeds", "last", *METHODS], rows), f"Paper: {paper}.", ""]
    return lines + claim("merging a run's checkpoints layer by layer is above the last one", above)


def seeds(bench: Bench, on: str) -> list[str]:
    """Return Table 2 over seeds; each seed has its own order of the models that exist with all seeds."""
    lines = [
        "### Seeds",
        "",
        f"Table 2 with models of one seed each, mean and standard deviation over {len(bench.seeds)} seeds of the "
        "adaptation; the pre-training is one. The last column has the gain within a seed.",
        "",
    ]
    for family, runs in (("transformer", HRDA), ("cnn", CNN)):
        there = [run for run in runs if not bench.missing(*(last(seeded(run, seed)) for seed in bench.seeds))]
        lines += [f"**{family}**", "", *not_seeded(bench, *map(last, runs))]
        if len(there) < 2:
            continue
        orders = [best_first(bench, [seeded(run, seed) for run in there], on) for seed in bench.seeds]
        anchors = [alone(bench, models[0], on).mean for models in orders]
        rows = [("1", f"{spread(anchors)} (alone)", *[""] * len(METHODS))]
        best = []
        for subsets in zip(*map(growing, orders), strict=True):
            found = [merged(bench, subset, on) for subset in subsets]
            best += [each["layerwise"].mean >= max(each[method].mean for method in MERGES) for each in found]
            cells = (spread(over_seeds(found, method)) for method in METHODS)
            rows.append((str(len(subsets[0])), *cells, change(over_seeds(found, "layerwise"), anchors)))
        names = ", ".join(_short(last(run)) for run in there)
        lines += [f"Of {names}:", "", *table(["models", *METHODS, "layer-wise to the anchor"], rows)]
        lines += claim(f"{family}, every seed: layer-wise is at least as good as the other merges", best)
    return lines


def on_test(bench: Bench, on: str) -> list[str]:
    """Return Table 2, in the order of val, on the test frames of a target, on which no choice was made."""
    rows, test = [], f"{on} test"
    for models in (best_first(bench, runs, on) for runs in (HRDA, CNN)):
        for subset in growing(models):
            found = {method: bench.score(Candidate(subset, method), test) for method in ("isotropic", "layerwise")}
            best = max(alone(bench, model, test).mean for model in subset)
            gains = (with_interval(to_best(bench, scored, subset, test)) for scored in found.values())
            rows.append(
                (", ".join(map(_short, subset)), *(number(s.mean) for s in found.values()), number(best), *gains)
            )
    head = ["models", "isotropic", "layer-wise", "best parent", "isotropic to the best", "layer-wise to the best"]
    return [f"### Table 2 on test frames: {on}", "", *table(head, rows)] if rows else []
