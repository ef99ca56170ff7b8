"""Write the benchmark's document: the paper's tables and figures on the models that `scripts.uda.train` left.

    python -m scripts.uda.tables --target CAMVID --out DIR              # chosen and shown on val
    python -m scripts.uda.tables --target CAMVID --out DIR --test       # also the test split; once, at the very end

What was scored is remembered in DIR/scores, so a second call goes on where the first stopped. Runs that do not exist
yet are named in the document.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml

import hf_lwmm
from hf_lwmm.plots import plot_discrepancy, plot_knob, plot_layer_weights, plot_subsets
from scripts.uda import objects
from scripts.uda.candidates import FISHER_IMAGES, Bench, Candidate, Scored, panoptic_means
from scripts.uda.data import Frames, rendered
from scripts.uda.train import QUARTERS, scored_frames

MERGES = ("isotropic", "fisher", "permutation")
METHODS = (*MERGES, "ensemble", "layerwise")
CNN = ("cnn-gta-fada", "cnn-gta-maxsquare", "cnn-gta-minent", "cnn-gta-advent", "cnn-gta-adaptsegnet")
HRDA = ("mic-gta", "pipa-gta", "hrda-gta", "hrda-gta@2", "mic-gta@2")
# Runs, with the source-only runs that they are compared with: the first that exists.
FAMILIES = {
    ("mit-unseen", "daformer-gta-source"): (
        "mit-unseen", "daformer-gta-source", "mit", "daformer-both-source", "daformer-both", "daformer-gta",
        "hrda-gta", "mic-gta", "pipa-gta",
    ),
    ("cnn-unseen", "cnn-gta-source"): ("cnn-unseen", "cnn-gta-source", "cnn", *CNN),
}  # fmt: skip
SEEDS = (1, 2, 3)
STARTS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TAU = 10.0
OBJECT_CROPS = 80  # of each class, to score on
UNLABELLED = " without sign+fence"  # the classes that the style synthia leaves unlabelled
PAPER: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text())
log = logging.getLogger("tables")


def quarters(run: str) -> list[str]:
    """A run's checkpoints, the last one first."""
    return [f"{run}/{quarter}" for quarter in range(QUARTERS, 0, -1)]


def last(run: str) -> str:
    return quarters(run)[0]


def seeded(run: str, seed: int) -> str:
    return run if seed == 1 else f"{run}@{seed}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *rows)]
    return [f"| {line} |" for line in lines] + [""]


def number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.1f}"


def gained(scored: Scored, over: Scored) -> str:
    gain, low, high = scored.gain(over)
    return f"{gain:+.1f} ({low:+.1f} to {high:+.1f})"


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else number(values[0])


def not_trained(bench: Bench, *models: str) -> list[str]:
    """A line that names the runs that are missing, if any are."""
    missing = ", ".join(f"`{run}`" for run in bench.missing(*models))
    return [f"Not trained: {missing}.", ""] if missing else []


def alone(bench: Bench, model: str, on: str) -> Scored:
    return bench.score(Candidate((model,)), on)


def merged(bench: Bench, models: Sequence[str], on: str) -> dict[str, Scored]:
    """What each method makes of models, the anchor first."""
    return {method: bench.score(Candidate(tuple(models), method), on) for method in METHODS}


def numbers(found: Mapping[str, Scored]) -> list[str]:
    return [number(found[method].mean) for method in METHODS]


def best_first(bench: Bench, runs: Sequence[str]) -> list[str]:
    """The last checkpoints of the runs that exist, by their score on val."""
    there = [last(run) for run in runs if not bench.missing(last(run))]
    return sorted(there, key=lambda model: -alone(bench, model, "val").mean)


def growing(models: Sequence[str]) -> list[tuple[str, ...]]:
    """The first two models, the first three, ..., all."""
    return [tuple(models[:count]) for count in range(2, len(models) + 1)]


def controls(bench: Bench, on: str) -> list[str]:
    """What the runs themselves reach."""
    rows = []
    for references, runs in FAMILIES.items():
        reference = next((run for run in references if not bench.missing(last(run))), None)
        for run in runs:
            if bench.missing(last(run)):
                continue
            own, gain = alone(bench, last(run), on), ""
            if reference is not None and run not in references:
                gain = gained(own, alone(bench, last(reference), on))
            rows.append((f"`{run}`", number(own.mean), gain))
    missing = not_trained(bench, *(last(run) for runs in FAMILIES.values() for run in runs))
    return [*table(["run", "mIoU", "to source-only"], rows), *missing]


def table2(bench: Bench, on: str) -> list[str]:
    lines = ["### Table 2: more and more models, best first", ""]
    for family, runs in (("transformer", HRDA), ("cnn", CNN)):
        models, printed = best_first(bench, runs), PAPER["table2"][family]
        lines += [f"**{family}**", "", *not_trained(bench, *map(last, runs))]
        if len(models) < 2:
            continue
        anchor = alone(bench, models[0], on)
        rows = [(f"`{models[0]}`", number(anchor.mean), *[""] * len(METHODS), "", number(printed["individual"][0]))]
        above = best = 0
        for subset in growing(models):
            found, count = merged(bench, subset, on), len(subset)
            ours = found["layerwise"]
            above += ours.mean > anchor.mean
            best += ours.mean >= max(found[method].mean for method in MERGES)
            theirs = (printed[m][count - 1] for m in ("individual", "isotropic", "fisher", "ensemble", "layerwise"))
            cells = (number(alone(bench, subset[-1], on).mean), *numbers(found), gained(ours, anchor))
            rows.append((f"+ `{subset[-1]}`", *cells, " / ".join(map(number, theirs))))
        head = ["model", "alone", *METHODS, "layer-wise to the anchor"]
        lines += table([*head, "paper: alone / isotropic / Fisher / ensemble / layer-wise"], rows)
        lines += [
            f"Layer-wise is above the anchor for {above} of {len(models) - 1} numbers of models (paper: for all), and "
            f"at least as good as the other merges for {best} (paper: for all, as isotropic and Fisher merges).",
            "",
        ]
    return lines


def table3(bench: Bench, on: str) -> list[str]:
    lines = ["### Table 3: all subsets and anchors", "", *not_trained(bench, *map(last, CNN))]
    models = best_first(bench, CNN)
    others = [method for method in METHODS if method != "layerwise"]
    rows, wins, above, anchors = [], dict.fromkeys(others, 0), 0, 0
    for subset in (subset for count in range(2, len(models) + 1) for subset in combinations(models, count)):
        found = merged(bench, subset, on)
        for method in others:
            wins[method] += found["layerwise"].mean >= found[method].mean
        by_anchor = []
        for anchor in subset:
            order = (anchor, *(model for model in subset if model != anchor))
            own, single = bench.score(Candidate(order, "layerwise"), on).mean, alone(bench, anchor, on).mean
            above += own > single
            anchors += 1
            by_anchor.append(f"{own:.1f} ({own - single:+.1f})")
        rows.append((", ".join(map(_short, subset)), *numbers(found), "; ".join(by_anchor)))
    if not rows:
        return lines
    singles = ", ".join(f"{_short(model)} {alone(bench, model, on).mean:.1f}" for model in models)
    beaten = ", ".join(f"{method} in {count}" for method, count in wins.items())
    return [
        *lines,
        f"Alone: {singles}. The first of a row is the anchor; the last column has layer-wise merges with each model of "
        "the row as the anchor, and what that adds to it.",
        "",
        *table(["models", *METHODS, "layer-wise by anchor"], rows),
        f"Layer-wise is at least as good as {beaten} of {len(rows)} subsets (paper: as isotropic and Fisher in all 21 "
        f"that it prints, as the ensemble in 20). It is above its anchor in {above} of {anchors} cases (paper: with "
        "any anchor, but its table has one figure for a subset).",
        "",
    ]


def _short(model: str) -> str:
    return model.split("/")[0].replace("cnn-gta-", "")


def table4(bench: Bench, on: str) -> list[str]:
    lines = []
    for part, what, *models in (
        ("4a", "other classes", "hrda-gta/4", f"hrda-synthia{UNLABELLED}/4"),
        ("4b", "other heads", "hrda-gta/4", "daformer-gta/4"),
    ):
        lines += [f"### Table {part}: {what}", "", *not_trained(bench, *models)]
        if bench.missing(*models):
            continue
        printed = PAPER[f"table{part}"]
        singles = [alone(bench, model, on) for model in models]
        rows = [
            (f"`{model}`", number(single.mean), "", number(theirs))
            for model, single, theirs in zip(models, singles, printed["individual"], strict=True)
        ]
        found = merged(bench, models, on)
        rows += [(m, number(s.mean), gained(s, singles[0]), number(printed.get(m))) for m, s in found.items()]
        lines += table(["", "mIoU", "to the anchor", "paper"], rows)
        above = ", ".join(method for method in METHODS if found[method].mean > singles[0].mean) or "nothing"
        lines += [
            f"Above the anchor: {above} (paper: layer-wise alone; its isotropic and Fisher merges are below 13). In "
            "all our merges the tensors that models do not share stay the anchor's."
            + (" Classes that a model lacks count as 0 for it alone." if UNLABELLED in models[1] else ""),
            "",
        ]
    return lines


def table5(bench: Bench, on: str) -> list[str]:
    lines = ["### Table 5: a large model into a small one", ""]
    small, large = "daformer-gta/4", "hrda-gta/4"
    if bench.missing(small, large):
        return [*lines, *not_trained(bench, small, large)]
    seconds = dict(zip((small, large), bench.seconds((small, large), on), strict=True))
    rows, found = [], []
    for models, (backbones, head, *theirs) in zip(
        [(small,), (large,), (small, large), (large, small)], PAPER["table5"], strict=True
    ):
        found.append(bench.score(Candidate(models, "layerwise" if len(models) > 1 else None), on))
        time = f"{seconds[models[0]] / seconds[small]:.2f}"
        rows.append((backbones, head, number(found[-1].mean), time, number(theirs[0]), f"{theirs[1]:.2f}"))
    return [
        *lines,
        *table(["backbones", "head", "mIoU", "time", "paper: mIoU", "paper: time"], rows),
        f"The small model changes by {gained(found[2], found[0])} (paper: +4.7) at its own cost. Times are of one "
        "image on a CPU.",
        "",
    ]


def table6(bench: Bench) -> list[str]:
    anchor, other = "edaps-night/4", "hrda-night/4"
    lines = ["### Table 6: a semantic model into a panoptic one", ""]
    if bench.missing(anchor, other):
        return [*lines, *not_trained(bench, anchor, other)]
    single = bench.score(Candidate((anchor,)), "night", "panoptic")
    rows = [("EDAPS", *map(number, panoptic_means(single)), "", " / ".join(map(number, PAPER["table6"]["single"])))]
    for method in ("isotropic", "layerwise"):
        scored = bench.score(Candidate((anchor, other), method), "night", "panoptic")
        theirs = " / ".join(map(number, PAPER["table6"].get(method, [])))
        rows.append((f"with HRDA, {method}", *map(number, panoptic_means(scored)), gained(scored, single), theirs))
    return [*lines, *table(["", "mSQ", "mRQ", "mPQ", "mPQ to EDAPS", "paper: mSQ / mRQ / mPQ"], rows)]


def table9(bench: Bench) -> list[str]:
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
    lines += not_trained(bench, *(last(f"objects-{strategy}@{seed}") for strategy in strategies for seed in SEEDS))
    for strategy in strategies:
        runs = [f"objects-{strategy}@{seed}" for seed in SEEDS]
        runs = [run for run in runs if not bench.missing(*quarters(run))]
        candidates = {
            "last": [Candidate((last(run),)) for run in runs],
            "isotropic": [Candidate(tuple(quarters(run)), "isotropic") for run in runs],
            "layer-wise": [Candidate(tuple(quarters(run)), "layerwise") for run in runs],
        }
        means = {
            name: [bench.score(c, "objects", "classification").mean for c in cs] for name, cs in candidates.items()
        }
        if runs:
            rows.append((strategy, str(len(runs)), *map(spread, means.values())))
    if not rows:
        return lines
    paper = "; ".join(f"{name} {before} to {after}" for name, (before, after) in PAPER["table9"].items())
    return [*lines, *table(["strategy", "seeds", "last", "isotropic", "layer-wise"], rows), f"Paper: {paper}.", ""]


def seeds(bench: Bench, on: str) -> list[str]:
    """Table 2's convolutional rows over seeds, each with its own order of the models that all seeds have."""
    runs = [run for run in CNN if not bench.missing(*(last(seeded(run, seed)) for seed in SEEDS))]
    lines = ["### Seeds", "", *not_trained(bench, *(last(seeded(run, seed)) for run in CNN for seed in SEEDS))]
    if len(runs) < 2:
        return lines
    orders = [best_first(bench, [seeded(run, seed) for run in runs]) for seed in SEEDS]
    rows = [
        ("1", f"{spread([alone(bench, models[0], on).mean for models in orders])} (alone)", *[""] * len(METHODS[1:]))
    ]
    for subsets in zip(*map(growing, orders), strict=True):
        found = [merged(bench, subset, on) for subset in subsets]
        rows.append((str(len(subsets[0])), *(spread([each[method].mean for each in found]) for method in METHODS)))
    names = ", ".join(_short(last(run)) for run in runs)
    return [
        *lines,
        f"Table 2's convolutional part with {names}, mean and standard deviation over {len(SEEDS)} seeds of the "
        "adaptation; the pre-training is one.",
        "",
        *table(["models", *METHODS], rows),
    ]


def figure2(bench: Bench, pictures: Path) -> list[str]:
    lines = ["### Figure 2: where models differ", ""]
    *later, first = quarters("cnn-gta-minent")
    pairs = [(first, model) for model in reversed(later)] + [(last("cnn-gta-minent"), last("cnn-gta-fada"))]
    if missing := not_trained(bench, *(model for pair in pairs for model in pair)):
        return [*lines, *missing]
    for name, pair in ((f"figure2-{index}", pair) for index, pair in enumerate(pairs, 1)):
        found = hf_lwmm.diff(*map(bench.folder, pair), taus=(TAU,))
        found = replace(found, models=pair, pretraining=replace(found.pretraining, models=pair))
        plot_discrepancy(found, pictures / f"{name}.png")
        lines += [picture(pictures, name, " and ".join(pair)), "", found.to_markdown()]
    return lines


def figure3(bench: Bench, on: str, pictures: Path) -> list[str]:
    runs = ("cnn-gta-minent", "cnn-gta-advent", "cnn-gta-fada")
    lines = ["### Figure 3: checkpoints of one run", "", *not_trained(bench, *(m for r in runs for m in quarters(r)))]
    rows, drawn = [], []
    for run in runs:
        models = quarters(run)
        if bench.missing(*models):
            continue
        points = [_point(alone(bench, models[0], on), models[:1], None)]
        rows.append((run, "1 (last)", number(alone(bench, models[0], on).mean), *[""] * len(METHODS)))
        for subset in growing(models):
            found = merged(bench, subset, on)
            points += [_point(scored, subset, method) for method, scored in found.items()]
            rows.append((run, str(len(subset)), "", *numbers(found)))
        plot_subsets(points, pictures / f"figure3-{run}.png")
        drawn.append(picture(pictures, f"figure3-{run}", f"Checkpoints of {run}"))
    return [*lines, *drawn, "", *table(["run", "checkpoints", "alone", *METHODS], rows)] if rows else lines


def figure5(bench: Bench, on: str, pictures: Path) -> list[str]:
    lines = ["### Figure 5: where the ramp starts, and from which weight", ""]
    pair = (last("cnn-gta-fada"), last("cnn-gta-minent"))
    if bench.missing(*pair):
        return [*lines, *not_trained(bench, *pair)]
    weights = []
    for start in (0.0, 0.2, 0.5, 0.8):
        plot_layer_weights(hf_lwmm.plan([*map(bench.folder, pair)], start=start), pictures / f"figure5a-{start:g}.png")
        weights.append(picture(pictures, f"figure5a-{start:g}", f"Weights from start {start:g}"))
    lines += [f"The weights of {pair[0]}, the anchor, and {pair[1]} over depth:", ""]
    lines += table([f"start {start:g}" for start in (0.0, 0.2)], [weights[:2]])
    lines += table([f"start {start:g}" for start in (0.5, 0.8)], [weights[2:]])
    for knob, values, wanted in (
        ("start", STARTS, "the target loses from a later start, the source hardly changes"),
        ("alpha", ALPHAS, "0.5 on the target"),
    ):
        rows, drawn, best = [], [], 0.0
        for name, split in (("target", on), ("source", "source")):
            scores = [bench.score(Candidate(pair, "layerwise", ((knob, value),)), split) for value in values]
            points = [_point(s, pair, "layerwise", **{knob: value}) for s, value in zip(scores, values, strict=True)]
            plot_knob(points, knob, pictures / f"figure5-{knob}-{name}.png")
            drawn.append(picture(pictures, f"figure5-{knob}-{name}", f"mIoU on the {name} over {knob}"))
            rows.append((name, *(number(scored.mean) for scored in scores)))
            if name == "target":
                best = max(zip(scores, values, strict=True), key=lambda each: each[0].mean)[1]
        lines += table([knob, *(f"{value:g}" for value in values)], rows)
        lines += table(["target", "source"], [drawn])
        lines += [f"Best {knob} on the target: {best:g} (paper: {wanted}).", ""]
    return lines


def picture(pictures: Path, name: str, what: str) -> str:
    """The Markdown of a picture in the folder beside the document."""
    return f"![{what}]({pictures.name}/{name}.png)"


def _point(scored: Scored, models: Sequence[str], method: str | None, **knobs: float) -> dict[str, Any]:
    """A candidate as `hf_lwmm.plots` takes it; an ensemble stands beside the merges with the same first model."""
    return {"models": models, "anchor": models[0], "method": method, "score": scored.mean / 100, **knobs}


def on_test(bench: Bench) -> list[str]:
    """The runs, and Table 2's layer-wise merges as val ranks them, on images that decided nothing."""
    lines = ["## On the test split", "", *controls(bench, "test")]
    rows = []
    for models in (best_first(bench, runs) for runs in (HRDA, CNN)):
        for subset in growing(models):
            anchor, found = alone(bench, subset[0], "test"), merged(bench, subset, "test")
            gain = gained(found["layerwise"], anchor)
            rows.append((", ".join(map(_short, subset)), number(anchor.mean), *numbers(found), gain))
    return [*lines, *table(["models", "anchor", *METHODS, "layer-wise to the anchor"], rows)] if rows else lines


INTRODUCTION = """# Layer-wise merging on models trained here

The paper's experiments (arXiv 2409.15813) at a size that a CPU trains: sources are rendered streets of the styles gta
and synthia; the target is CamVid (367 unlabelled training images, 101 of val; 11 classes), for Tables 6 and 9 rendered
streets of the style night. Networks have less than 2 % of the published weights, and runs hundreds of steps: figures
can be compared with the paper's in sign and order, not in height. Runs and their knobs are in `scripts/uda/bench.yaml`.

All choices were made on val, and the tables show val. mIoU in per cent over 11 classes; in brackets 95 % intervals over
images of the difference, paired. Fisher information is of {fisher} labelled images of the source. "permutation" is
weight matching, then isotropic merging. The ensemble averages softmax outputs, at the cost of a forward pass a model.
"""

CONTROLS_NOTE = (
    "`mit-unseen`, `cnn-unseen` and the `-gta-source` runs that start from them never see an image of the target. "
    "`mit` and `cnn` are the same pre-training with the colour statistics of target images on half of the source "
    "images; the adapted runs start from them, and so does `daformer-both-source`, which goes on like `daformer-both` "
    "but without pseudo-labels. The last column compares with `-unseen`."
)


def document(bench: Bench, pictures: Path, *, test: bool) -> str:
    """The whole document; plots go to `pictures`, beside it."""
    parts: list[tuple[str, Callable[[], list[str]]]] = [
        ("runs", lambda: ["## The runs", "", CONTROLS_NOTE, "", *controls(bench, "val")]),
        ("table 2", lambda: ["## Tables", "", *table2(bench, "val")]),
        ("seeds", lambda: seeds(bench, "val")),
        ("table 4", lambda: table4(bench, "val")),
        ("table 5", lambda: table5(bench, "val")),
        ("table 6", lambda: table6(bench)),
        ("table 9", lambda: table9(bench)),
        ("figure 2", lambda: figure2(bench, pictures)),
        ("figure 3", lambda: figure3(bench, "val", pictures)),
        ("figure 5", lambda: figure5(bench, "val", pictures)),
        ("table 3", lambda: table3(bench, "val")),
    ]
    if test:
        parts.append(("test", lambda: on_test(bench)))
    pictures.mkdir(parents=True, exist_ok=True)
    lines = [*INTRODUCTION.format(fisher=FISHER_IMAGES).splitlines(), ""]
    for name, part in parts:
        log.info("%s", name)
        lines += part()
    return "\n".join(lines).rstrip() + "\n"


def data_of(target: Path, cache: Path) -> Mapping[str, Callable[[], Frames]]:
    """What candidates are scored on."""
    return {
        "val": lambda: scored_frames({"target": "folder"}, target / "val", cache),
        "test": lambda: scored_frames({"target": "folder"}, target / "test", cache),
        "source": lambda: rendered(cache, "gta", 100_000, FISHER_IMAGES),
        "night": lambda: scored_frames({"target": "night"}, target, cache),
        "objects": lambda: objects.object_crops(scored_frames({"target": objects.TARGET}, target, cache), OBJECT_CROPS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=Path, required=True, help="folder with val/ and test/")
    parser.add_argument("--out", type=Path, required=True, help="where the trained runs are")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/hf-lwmm/uda").expanduser())
    parser.add_argument("--document", type=Path, default=Path("model_cards/uda-bench.md"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    bench = Bench(options.out, data_of(options.target, options.cache))
    text = document(bench, options.document.with_suffix(""), test=options.test)
    options.document.parent.mkdir(parents=True, exist_ok=True)
    options.document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
