"""What merges gain over the best parent, against what can be known of a pair beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from hf_lwmm.plots.style import colour, legend_above, picture
from scripts.uda import real_gains
from scripts.uda.candidates import Bench
from scripts.uda.cells import NEW, STYLES, TARGETS, alone, table, to_best
from scripts.uda.specialists import METHODS, merge_of
from scripts.uda.tables import CNN, HRDA
from scripts.uda.train import QUARTERS, run_of

SPECIALISTS = tuple(f"segformer-{style}" for style in STYLES)
SHARING = "segformer-all"  # which saw a third of its data together with each specialist
BATCHNORM = (("segformer-gta-free", "segformer-night-free"), ("cnn-gta-frozen", "cnn-night-frozen"),
             ("cnn-gta-free", "cnn-night-free"))  # fmt: skip
PREDICTORS = {
    "overlap": "overlap of the labelled training data",
    "relative": "relative L2 distance",
    "cosine": "1 - cosine of the weights",
    "agreement": "cosine of the changes",
    "steps": "steps since the start",
    "gap": "gap of the parents",
}
OWN = "own"  # the style of one of the two models


@dataclass(frozen=True)
class Gain:
    """What the merge of two models gains over the better one on a target, in points of the score."""

    bench: str
    models: tuple[str, str]
    overlap: float  # labelled training images that both saw, as a share of those that either saw
    relative: float  # L2 distance of the weights, relative to the first model's norm
    cosine: float  # 1 - cosine of the weights
    agreement: float | None  # cosine of the two models' changes from their start
    steps: int  # of each model since the start
    frozen: bool  # BatchNorm statistics
    target: str
    gap: float  # of the two models' scores on the target
    method: str
    gain: float
    low: float
    high: float


def pairs(seeds: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of models: of different, of shared and of the same data, of several lengths and strategies."""
    last = QUARTERS
    for seed in seeds:
        own = [run if seed == 1 else f"{run}@{seed}" for run in SPECIALISTS]
        yield from ((f"{a}/{last}", f"{b}/{last}") for a, b in combinations(own, 2))
    yield from ((f"{run}/{last}", f"{run}@{seed}/{last}") for run in SPECIALISTS for seed in seeds[1:])
    yield from ((f"{run}/{last}", f"{SHARING}/{last}") for run in SPECIALISTS)
    yield from ((f"{a}/{last}", f"{b}/{last}") for a, b in BATCHNORM)
    yield from ((f"segformer-gta/{quarter}", f"segformer-night/{quarter}") for quarter in range(1, last))
    for family in (CNN, HRDA):
        yield from ((f"{a}/{last}", f"{b}/{last}") for a, b in combinations(family, 2))


def measured(bench: Bench, runs: Mapping[str, Mapping[str, Any]]) -> list[Gain]:
    """Return the gains of all pairs whose models were trained; `runs` are those of bench.yaml."""
    found = []
    for models in pairs(bench.seeds):
        if bench.missing(*models):
            continue
        first, second = (run_of(dict(runs), model.split("/")[0]) for model in models)
        ours, theirs = set(first["sources"]), set(second["sources"])
        facts = {
            "bench": f"rendered, {models[0].split('-')[0].replace('mic', 'hrda').replace('pipa', 'hrda')}",
            "models": models,
            "overlap": len(ours & theirs) / len(ours | theirs),
            "steps": int(models[0].split("/")[1]) * first["steps"] // QUARTERS,
            "frozen": bool(first["frozen"]),
            **distances(*(bench.folder(model) for model in (*models, f"{first['start']}/{QUARTERS}"))),
        }
        for method in METHODS:
            own = tuple(ours) if len(ours) == 1 else ()
            for on in (*TARGETS, *NEW, *own):
                gain = to_best(bench, merge_of(bench, models, method, on), models, on)
                scores = [alone(bench, model, on).mean for model in models]
                where = {"target": OWN if on in own else on, "gap": abs(scores[0] - scores[1])}
                found.append(Gain(**facts, **where, method=method, gain=gain[0], low=gain[1], high=gain[2]))
    return found


def distances(first: Path, second: Path, start: Path) -> dict[str, float | None]:
    """Return how far two models are apart over all weights that they and their start share, without statistics."""
    stored = [load_file(folder / "model.safetensors") for folder in (first, second, start)]
    names = [name for name, tensor in stored[0].items() if _learned(name, tensor)]
    shared = [
        name for name in names if all(name in each and each[name].shape == stored[0][name].shape for each in stored)
    ]
    a, b, origin = (np.concatenate([each[name].ravel() for name in shared]).astype(np.float64) for each in stored)
    return {
        "relative": float(np.linalg.norm(a - b) / np.linalg.norm(a)),
        "cosine": float(1 - _cosine(a, b)),
        "agreement": float(_cosine(a - origin, b - origin)),
    }


def _learned(name: str, tensor: np.ndarray) -> bool:
    return tensor.dtype.kind == "f" and not name.endswith(("running_mean", "running_var"))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def section(bench: Bench, runs: Mapping[str, Mapping[str, Any]], pictures: Path) -> list[str]:
    """Return the section on what predicts a gain; its rows and its figure are written to `pictures`."""
    rows = measured(bench, runs)
    lines = ",\n".join(json.dumps(_rounded(asdict(row))) for row in rows)
    (pictures / "gains.json").write_text(f"[\n{lines}\n]\n")
    rows += [Gain(**row) for row in real_gains.rows(pictures / "real") if row["method"] in METHODS]
    if not rows:
        return []
    draw(rows, pictures / "gains.png")
    targets = list(dict.fromkeys(row.target for row in rows))
    cells = []
    for method in METHODS:
        for target in targets:
            chosen = [row for row in rows if (row.target, row.method) == (target, method)]
            clear = sum(row.low > 0 for row in chosen), sum(row.high < 0 for row in chosen)
            by = [_rank_correlation(chosen, predictor) for predictor in PREDICTORS]
            cells.append((method, target, str(len(chosen)), f"{clear[0]} / {clear[1]}", *by))
    return [
        "## What predicts a gain",
        "",
        f"![Gain over the best parent against what is known of a pair]({pictures.name}/gains.png)",
        "",
        "Each point is the isotropic merge of two models. The table has, for both methods, how many pairs gain or lose "
        "beyond the interval, and Spearman's rank correlation of the gain with each quantity; where it is near 0, the "
        "quantity does not tell. The gap is that of the two models' own scores on the target, which takes labels; all "
        f"else is known beforehand. On `{OWN}` the target is what one of the models was trained on. The rendered rows "
        f"are in [gains.json]({pictures.name}/gains.json).",
        "",
        *table(["method", "target", "pairs", "gain / lose", *PREDICTORS.values()], cells),
    ]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


def _rank_correlation(rows: Sequence[Gain], predictor: str) -> str:
    known = [(value, row.gain) for row in rows if (value := getattr(row, predictor)) is not None]
    if len({value for value, _ in known}) < 2:
        return ""
    return f"{spearmanr(*zip(*known, strict=True)).statistic:+.2f}"


def draw(rows: Sequence[Gain], path: Path) -> None:
    """Draw the gain of isotropic merges against each predictor, a row of panels for each target."""
    rows = [row for row in rows if row.method == "isotropic"]
    targets = [target for target in (*TARGETS, OWN) if any(row.target == target for row in rows)]
    benches = list(dict.fromkeys(row.bench for row in rows))
    with picture(path, 0.4 + 1.5 * len(targets)) as figure:
        grid = figure.subplots(len(targets), len(PREDICTORS), squeeze=False, sharey="row", sharex="col")
        for axes_of_target, target in zip(grid, targets, strict=True):
            axes_of_target[0].set_ylabel(f"gain on {target}", fontsize=7)
            for axes, predictor in zip(axes_of_target, PREDICTORS, strict=True):
                axes.axhline(0, color="black", linewidth=0.6)
                for index, name in enumerate(benches):
                    own = [row for row in rows if (row.bench, row.target) == (name, target)]
                    known = [row for row in own if getattr(row, predictor) is not None]
                    values = [getattr(row, predictor) for row in known]
                    gains = [row.gain for row in known]
                    faces = [colour(index) if row.frozen else "none" for row in known]
                    axes.scatter(values, gains, s=9, c=faces, edgecolors=colour(index), linewidths=0.7, label=name)
                axes.locator_params(axis="x", nbins=3)
                axes.tick_params(labelsize=6)
        for axes, label in zip(grid[-1], PREDICTORS.values(), strict=True):
            axes.set_xlabel(label, fontsize=7)
        legend_above(figure, grid[0][0], benches)
