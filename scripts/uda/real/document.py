"""Write model_cards/real-bench.md from the counts that `scripts.uda.real.cells` wrote.

python -m scripts.uda.real.document --results model_cards/uda-bench/real
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.uda.candidates import Scored
from scripts.uda.cells import gained, number, spread, table
from scripts.uda.real.cells import ENSEMBLE, START, Candidate, pair
from scripts.uda.real.train import SETTINGS

PAIRS: Mapping[str, Any] = SETTINGS["pairs"]
GOAL = 1.5  # mIoU over the best parent
CLOSE = 1.0  # mIoU
CLAIMED = ("isotropic", "layerwise", "wise")

INTRODUCTION = """# Merging real fine-tunes

ESPNetv2 (s = 1, published by its authors, trained on Cityscapes) is fine-tuned on films of CamVid, from one start,
and the fine-tunes are merged. film-a is 0001TP (62 frames), film-b 0006R0 (101) and film-c 0016E5 (204). Test has 62
other frames of film-a and 171 of Seq05VD, a film that no model has seen; val is from film-c. The targets are "known"
(other frames of what the anchor, the first model, was trained on), "mixed" (all 233 test frames) and "new" (Seq05VD
alone).

Steps are of {batch} frames, at a constant rate; "frozen" means that BatchNorm's running statistics stay those of the
start while training, and "updated" that they do not. Numbers are mIoU in per cent over 11 classes; the network's 19
outputs for Cityscapes are grouped to these.

"best parent" is the best of the merged models on that very target, which nobody knows beforehand. "joint" is one
model trained on all three films for as many steps. "wise" is half way between the start and the isotropic merge. The
ensemble averages softmax outputs, at the cost of a forward pass a model. All methods have their default options, and
merges are scored as `hf-lwmm merge` writes them. In brackets are 95 % intervals of the paired difference over runs of
{block} neighbouring frames, which look alike; gains with an interval above 0 are bold. After ± are standard deviations
over training seeds, and means are over the seeds that were scored.

Where the anchor is of film-c, as with its halves, "known" is val: 26 frames in 3 runs, whose intervals tell little.
The pairs of one film are of its seeds 1 and 2, 2 and 3, 3 and 1, which share models.

Settings are in `scripts/uda/real/real.yaml`, losses in `uda-bench/real/train.log`. Only the rate was chosen, on val,
with a single model. The pair of film-c and film-b was added after the first pair had been scored on test, for a target
of which neither model knows anything. Every merge that was scored is here; the last section lists what was not run.
"""

HOLDS = f"""In how many cases, over steps and seeds. "By {GOAL}, clear" is a gain of at least {GOAL} mIoU over the best
parent whose interval is above 0."""

AGAIN = """## The same digits again

A run depends on its name alone, and a cell on its runs; on the same kind of processor, here AMD's EPYC of the Zen 4
generation, they give the same digits:

```sh
START=espnetv2_s_1.0_city_512x256.pth
python -m scripts.uda.real.train $START film-a/frozen/1 film-b/frozen/1 all/frozen/1 --steps 45 \\
    --camvid CAMVID --out RUNS
python -m scripts.uda.real.cells $START frozen 45 --seed 1 --pair "different films" \\
    --camvid CAMVID --out RUNS --results NEW
```
"""


@dataclass(frozen=True)
class Cell:
    """The results of all runs with one setting of BatchNorm and one number of steps."""

    bn: str
    steps: int
    blocks: Mapping[str, Sequence[str]]
    counts: Mapping[str, Mapping[str, Any]]
    distances: Mapping[str, Mapping[str, float]]

    @property
    def label(self) -> tuple[str, str]:
        """The first cells of a row."""
        return self.bn, str(self.steps)

    def has(self, *candidates: Candidate) -> bool:
        """Return True if all of these have been scored."""
        return all(each.name in self.counts for each in candidates)

    def scored(self, candidate: Candidate, target: str) -> Scored:
        """Return the counts of a candidate on a target, SPLIT or SPLIT/FILM, with a row for each run of frames."""
        split, _, film = target.partition("/")
        counts = np.asarray(self.counts[candidate.name][split])
        counts = counts[[film in ("", own) for own in self.blocks[split]]]
        return Scored(counts)


def read(results: Path) -> list[Cell]:
    """Read the cells that have been scored, in the order of the settings."""
    found = []
    for steps in SETTINGS["steps"]:
        for bn in SETTINGS["bn"]:
            if (path := results / f"{bn}-{steps}.json").exists():
                content = json.loads(path.read_text())
                found.append(Cell(bn, steps, *(content[key] for key in ("blocks", "counts", "distances"))))
    return found


@dataclass(frozen=True)
class Row:
    """A method on a pair of models and a target in a cell, with each seed that was scored."""

    cell: Cell
    pair: str
    target: str
    method: str

    @property
    def on(self) -> str:
        """The frames of the target."""
        return PAIRS[self.pair]["known"] if self.target == "known" else SETTINGS["targets"][self.target]

    @property
    def seeds(self) -> list[int]:
        return [s for s in SETTINGS["seeds"] if self.cell.has(self.candidate(s), *self.parents(s))]

    def candidate(self, seed: int) -> Candidate:
        return Candidate(pair(self.pair, seed), self.method)

    def parents(self, seed: int) -> list[Candidate]:
        return [Candidate((model,)) for model in pair(self.pair, seed)]

    def score(self, candidate: Candidate) -> Scored:
        return self.cell.scored(candidate, self.on)

    def best_parent(self, seed: int) -> Scored:
        return max((self.score(each) for each in self.parents(seed)), key=lambda scored: scored.mean)

    def gain(self, seed: int) -> tuple[float, float, float]:
        """The gain over the best parent, and its interval."""
        return self.score(self.candidate(seed)).gain(self.best_parent(seed))

    def over(self, other: str, seed: int) -> float | None:
        """The difference to a single model such as the start, None if that was not scored."""
        reference = Candidate((other,))
        return self.score(self.candidate(seed)).mean - self.score(reference).mean if self.cell.has(reference) else None

    def over_joint(self, seed: int) -> float | None:
        return self.over(f"{SETTINGS['joint']}/{seed}", seed)


def rows(cells: Sequence[Cell], name: str, *methods: str, targets: Sequence[str] = ()) -> Iterator[Row]:
    """Return the rows of a pair that have been scored with some seed."""
    wanted = methods or (*PAIRS[name]["methods"], ENSEMBLE)
    for cell in cells:
        for target in targets or ("known", *SETTINGS["targets"]):
            for method in wanted:
                if (row := Row(cell, name, target, method)).seeds:
                    yield row


def scores(cells: Sequence[Cell], name: str) -> list[str]:
    """Return the table of scores, means over seeds."""
    methods = [*PAIRS[name]["methods"], ENSEMBLE]
    lines = []
    for row in rows(cells, name, methods[0]):
        seeds = row.seeds
        parents = [[row.score(each).mean for each in row.parents(seed)] for seed in seeds]
        cells_of_row = [number(float(np.mean(own))) for own in zip(*parents, strict=True)]
        joint = [Candidate((f"{SETTINGS['joint']}/{seed}",)) for seed in seeds]
        singles = [Candidate((START,))], [each for each in joint if row.cell.has(each)]
        own = [_mean(row, [Row(row.cell, name, row.target, m).candidate(s) for s in seeds]) for m in methods]
        start, together = (_mean(row, each) for each in singles)
        lines.append((*row.cell.label, row.target, start, *cells_of_row, *own, together))
    head = ["BatchNorm", "steps", "target", START, *PAIRS[name]["models"], *methods, "joint"]
    return table(head, lines)


def _mean(row: Row, candidates: Sequence[Candidate]) -> str:
    there = [each for each in candidates if row.cell.has(each)]
    return number(float(np.mean([row.score(each).mean for each in there]))) if there else ""


def gains(cells: Sequence[Cell], name: str) -> list[str]:
    """Return the table of gains over the best parent, seed by seed, and over joint training and the start."""
    seeds: list[int] = SETTINGS["seeds"]
    lines = []
    for row in rows(cells, name):
        own = row.seeds
        each = [gained(row.score(row.candidate(s)), row.best_parent(s)) if s in own else "" for s in seeds]
        mean = spread([row.gain(seed)[0] for seed in own], "+.1f")
        joint = [value for seed in own if (value := row.over_joint(seed)) is not None]
        start = [value for seed in own if (value := row.over(START, seed)) is not None]
        others = [spread(values, "+.1f") if values else "" for values in (joint, start)]
        lines.append((*row.cell.label, row.target, row.method, *each, mean, *others))
    head = ["BatchNorm", "steps", "target", "method", *(f"seed {seed}" for seed in seeds)]
    return table([*head, "mean", "to joint", "to the start"], lines)


def claims(cells: Sequence[Cell]) -> list[str]:
    """Return the table of what holds for each pair, setting of BatchNorm and target, over steps and seeds."""
    lines = []
    for name in PAIRS:
        for bn in SETTINGS["bn"]:
            own = [cell for cell in cells if cell.bn == bn]
            for target in ("known", *SETTINGS["targets"]):
                found = {method: _gains(own, name, method, target) for method in CLAIMED}
                if not any(found.values()):
                    continue
                each = [
                    share
                    for gains in found.values()
                    for share in (
                        _share(gain > 0 for gain, _, _ in gains.values()),
                        _share(gain >= GOAL and low > 0 for gain, low, _ in gains.values()),
                    )
                ]
                both = found["isotropic"].keys() & found["layerwise"].keys()
                ahead = _share(found["isotropic"][key][0] >= found["layerwise"][key][0] for key in both)
                isotropic = rows(own, name, "isotropic", targets=[target])
                joint = [row.over_joint(seed) for row in isotropic for seed in row.seeds]
                close = _share(value >= -CLOSE for value in joint if value is not None)
                lines.append((name, bn, target, *each, ahead, close))
    methods = [head for method in CLAIMED for head in (f"{method} above the best parent", f"by {GOAL}, clear")]
    head = ["models", "BatchNorm", "target", *methods, "isotropic at least layerwise"]
    return table([*head, f"isotropic at most {CLOSE} below joint training"], lines)


def _share(holds: Iterable[bool]) -> str:
    cases = list(holds)
    return f"{sum(cases)} of {len(cases)}" if cases else ""


def _gains(cells: Sequence[Cell], name: str, method: str, target: str) -> dict[tuple[Any, ...], Any]:
    """The gains of a method over the best parent, with their intervals, by cell and seed."""
    found = ((row, seed) for row in rows(cells, name, method, targets=[target]) for seed in row.seeds)
    return {(*row.cell.label, seed): row.gain(seed) for row, seed in found}


def chosen(cells: Sequence[Cell], name: str) -> list[str]:
    """Return what the best merge on val, a film that neither model knows, gains on all test frames."""
    lines = []
    for row in rows(cells, name, "isotropic", targets=["mixed"]):
        for seed in row.seeds:
            methods = [m for m in PAIRS[name]["methods"] if row.cell.has(Candidate(pair(name, seed), m))]
            best = max(methods, key=lambda m: row.cell.scored(Candidate(pair(name, seed), m), "val").mean)
            own = Row(row.cell, name, "mixed", best)
            lines.append(
                (*row.cell.label, str(seed), best, gained(own.score(own.candidate(seed)), own.best_parent(seed)))
            )
    return table(["BatchNorm", "steps", "seed", "best on val", "on all test frames, to the best parent"], lines)


def predictors(cells: Sequence[Cell]) -> list[str]:
    """Return the table of distances beside the isotropic merge's gain on the new film."""
    lines = []
    for name in PAIRS:
        for row in rows(cells, name, "isotropic", targets=["new"]):
            for seed in row.seeds:
                if (found := row.cell.distances.get(f"{name}, seed {seed}")) is not None:
                    measured = (f"{found[key]:.4f}" for key in ("cosine", "relative L2", "from start"))
                    changes = f"{found['cosine of changes']:.2f}"
                    lines.append((name, *row.cell.label, str(seed), *measured, changes, f"{row.gain(seed)[0]:+.1f}"))
    head = ["models", "BatchNorm", "steps", "seed", "cosine", "relative L2", "anchor from the start"]
    return table([*head, "cosine of the changes", "isotropic on the new film, to the best parent"], lines)


def not_run(cells: Sequence[Cell]) -> list[str]:
    """Return the merges that the settings name and that have not been scored."""
    there = {cell.label: cell for cell in cells}
    lines = []
    for steps in SETTINGS["steps"]:
        for bn in SETTINGS["bn"]:
            cell = there.get((bn, str(steps)))
            for name in PAIRS:
                for method in (*PAIRS[name]["methods"], ENSEMBLE):
                    seeds = [s for s in SETTINGS["seeds"] if not (cell and s in Row(cell, name, "mixed", method).seeds)]
                    if seeds:
                        lines.append((name, bn, str(steps), method, ", ".join(map(str, seeds))))
    return table(["models", "BatchNorm", "steps", "method", "seeds"], lines) if lines else ["Nothing was left out.", ""]


def document(cells: Sequence[Cell]) -> str:
    """Return the whole page."""
    lines: list[str] = []
    for name in PAIRS:
        if not list(rows(cells, name)):
            continue
        models = " + ".join(PAIRS[name]["models"])
        lines += [f"## {name.capitalize()}: {models}", "", *scores(cells, name), "Gains over the best parent:", ""]
        lines += gains(cells, name)
        if "val" not in PAIRS[name]["known"] and "film-c" not in PAIRS[name]["models"]:
            lines += [
                "The merge that is best on val (a film that neither model knows), on test:",
                "",
                *chosen(cells, name),
            ]
    lines += ["## What distance tells", "", *predictors(cells), AGAIN, "## What was not run", "", *not_run(cells)]
    introduction = INTRODUCTION.format(batch=SETTINGS["batch"], block=SETTINGS["block"])
    return "\n".join([introduction, "## What holds", "", HOLDS, "", *claims(cells), *lines]).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--document", type=Path, default=Path("model_cards/real-bench.md"))
    options = parser.parse_args()
    options.document.write_text(document(read(options.results)), encoding="utf-8")


if __name__ == "__main__":
    main()
