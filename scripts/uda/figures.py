"""The paper's figures: discrepancy of models, merged checkpoints of one run, and the knobs of the ramp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import gt
from pathlib import Path
from typing import Any

import numpy as np

import hf_lwmm
from scripts.uda.candidates import Bench, Candidate, Scored
from scripts.uda.cells import (
    MERGES,
    METHODS,
    alone,
    change,
    claim,
    growing,
    last,
    merged,
    not_seeded,
    not_trained,
    of_seeds,
    over_seeds,
    quarters,
    spread,
    table,
)

STARTS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TAU = 10.0


def figure2(bench: Bench, pictures: Path) -> list[str]:
    """Return Figure 2: the discrepancy between checkpoints of a run and between two runs."""
    lines = ["### Figure 2: where models differ", ""]
    *later, first = quarters("cnn-night-minent")
    pairs = [(first, model) for model in reversed(later)] + [(last("cnn-night-minent"), last("cnn-gta-fada"))]
    if missing := not_trained(bench, *(model for pair in pairs for model in pair)):
        return [*lines, *missing]
    for name, pair in ((f"figure2-{index}", pair) for index, pair in enumerate(pairs, 1)):
        found = hf_lwmm.diff(*map(bench.folder, pair), taus=(TAU,))
        found = replace(found, models=pair, pretraining=replace(found.pretraining, models=pair))
        hf_lwmm.plot_discrepancy(found, pictures / f"{name}.png")
        lines += [picture(pictures, name, " and ".join(pair)), "", found.to_markdown()]
    return lines


def figure3(bench: Bench, on: str, pictures: Path) -> list[str]:
    """Return Figure 3: merges of the checkpoints of a run."""
    runs = ("cnn-night-minent",)
    wanted = [model for run in runs for model in quarters(run)]
    lines = ["### Figure 3: checkpoints of one run", "", *not_seeded(bench, *wanted)]
    rows, drawn = [], []
    above, best = [], []
    for run in runs:
        trained = of_seeds(bench, *quarters(run))
        if not trained:
            continue
        lone = [alone(bench, models[0], on) for models in trained]
        points = [_point(lone[0], trained[0][:1], None)]
        rows.append((run, "1 (last)", spread([each.mean for each in lone]), *[""] * len(METHODS)))
        for subsets in zip(*map(growing, trained), strict=True):
            found = [merged(bench, subset, on) for subset in subsets]
            above += map(gt, over_seeds(found, "layerwise"), (each.mean for each in lone))
            best += [each["layerwise"].mean >= max(each[method].mean for method in MERGES) for each in found]
            points += [_point(scored, subsets[0], method) for method, scored in found[0].items()]
            rows.append((run, str(len(subsets[0])), "", *(spread(over_seeds(found, method)) for method in METHODS)))
        hf_lwmm.plot_subsets(points, pictures / f"figure3-{run}.png")
        drawn.append(picture(pictures, f"figure3-{run}", f"Checkpoints of {run}"))
    if not rows:
        return lines
    note = "Pictures are of the first seed, the table has mean and standard deviation over seeds."
    lines += [*drawn, "", note, "", *table(["run", "checkpoints", "alone", *METHODS], rows)]
    lines += claim("every run, number of checkpoints and seed: layer-wise is above the last checkpoint", above)
    return lines + claim("and at least as good as the other merges", best)


def figure5(bench: Bench, on: str, pictures: Path) -> list[str]:
    """Return Figure 5: the layer weights, and scores over `start` and `alpha`."""
    names = (last("cnn-gta-fada"), last("cnn-night-minent"))
    lines = [
        "### Figure 5: where the ramp starts, and from which weight",
        "",
        *not_seeded(bench, *names),
    ]
    pairs = of_seeds(bench, *names)
    if not pairs:
        return lines
    weights = []
    for start in (0.0, 0.2, 0.5, 0.8):
        method = hf_lwmm.Layerwise(start=start)
        decided = hf_lwmm.plan([*map(bench.folder, pairs[0])], knobs=hf_lwmm.Knobs(method=method))
        hf_lwmm.plot_layer_weights(decided, pictures / f"figure5a-{start:g}.png")
        weights.append(picture(pictures, f"figure5a-{start:g}", f"Weights from start {start:g}"))
    lines += [f"The weights of {names[0]}, the anchor, and {names[1]} over depth:", ""]
    lines += table([f"start {start:g}" for start in (0.0, 0.2)], [weights[:2]])
    lines += table([f"start {start:g}" for start in (0.5, 0.8)], [weights[2:]])
    lines += ["mIoU of the first value, then what others change; pictures are of the first seed.", ""]
    for knob, values in (("start", STARTS), ("alpha", ALPHAS)):
        rows, drawn, best = [], [], []
        for name, split in (("target", on), ("source", "source")):
            scores = [
                [bench.score(Candidate(tuple(pair), "layerwise", ((knob, value),)), split) for pair in pairs]
                for value in values
            ]
            points = [
                _point(each[0], pairs[0], "layerwise", **{knob: value})
                for each, value in zip(scores, values, strict=True)
            ]
            hf_lwmm.plot_knob(points, knob, pictures / f"figure5-{knob}-{name}.png")
            drawn.append(picture(pictures, f"figure5-{knob}-{name}", f"mIoU on the {name} over {knob}"))
            first, *others = [[scored.mean for scored in each] for each in scores]
            rows.append((name, spread(first), *(change(means, first) for means in others)))
            if name == "target":
                best = [values[place] for place in np.argmax([first, *others], axis=0)]
        lines += table([knob, *(f"{value:g}" for value in values)], rows)
        lines += table(["target", "source"], [drawn])
        lines += claim(f"{values[0]:g} is the best {knob} on the target", (value == values[0] for value in best))
    return lines


def picture(pictures: Path, name: str, what: str) -> str:
    """Return the Markdown of a picture in the folder beside the document."""
    return f"![{what}]({pictures.name}/{name}.png)"


def _point(scored: Scored, models: Sequence[str], method: str | None, **knobs: float) -> dict[str, Any]:
    """Return a candidate as a row for plots, in the column of the merges with the same first model."""
    return {"models": models, "anchor": models[0], "method": method, "score": scored.mean / 100, **knobs}
