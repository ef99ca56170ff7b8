"""Write the benchmark's document: the paper's tables and figures for the models that `scripts.uda.train` trained.

    python -m scripts.uda.document --target CAMVID --out DIR           # on val, where all choices were made
    python -m scripts.uda.document --target CAMVID --out DIR --test    # also on the test split; once, at the very end

Scores are kept in DIR/scores, so a second call resumes where the first stopped. The document names missing runs.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers

from scripts.uda import gains, objects
from scripts.uda.candidates import FISHER_IMAGES, Bench
from scripts.uda.cells import CLAIM, FRAMES, NEW, STYLES, TARGETS, table
from scripts.uda.data import Frames, folder_of_images, joined, rendered
from scripts.uda.figures import figure2, figure3, figure5
from scripts.uda.real.films import blocks, read_split
from scripts.uda.specialists import specialists
from scripts.uda.tables import controls, on_test, seeds, table2, table3, table4, table5, table6, table9
from scripts.uda.train import read_runs

# Of CamVid, which has a frame a second: the split, every which frame is scored, and how many of these make a run.
FILMS = {"camvid": ("val", 2, 5), "camvid test": ("test", 4, 3)}
BENCH = Path(__file__).parent / "bench.yaml"
OBJECT_CROPS = 80  # crops of each class to score on
log = logging.getLogger("document")

INTRODUCTION = """# Layer-wise merging on models trained here

The paper's experiments (arXiv 2409.15813) at a size that a CPU trains, on rendered streets of five styles and CamVid
(11 classes). All models of a family part from one short pre-training on the styles {styles}. Then each learns one style
with labels, by one strategy, until it is good at that style; what the strategies adapt to without labels is CamVid.
BatchNorm keeps the statistics of the pre-training. Networks have less than 2 % of the published weights, and runs
hundreds of steps: figures can be compared with the paper's in sign and order, not in height. Runs and their knobs are
in `scripts/uda/bench.yaml`, what they logged in `uda-bench/train.log`.

mIoU in per cent over 11 classes. In brackets are 95 % intervals of the difference, paired, over images, for CamVid over
runs of 10 or 12 frames of the film; gains with an interval above 0 are bold. After ± is the standard deviation over
training seeds, which share the pre-training. The order of models, and with it the anchor, is that of their scores on
the val frames of a target, and tables show val; the last section has other frames, which no choice saw. Fisher
information is of {fisher} labelled frames of the three styles. "permutation" is weight matching, then isotropic
merging. The ensemble averages softmax outputs, at the cost of a forward pass a model.

Targets:

{targets}
"""

RUNS_NOTE = (
    "The pre-training of each family comes first; then `FAMILY-STYLE-STRATEGY`, and at the end models that learned all "
    "styles at once, in as many steps. `free` runs re-estimate BatchNorm statistics as they train, `frozen` ones are "
    "their controls; both are supervised on the source alone, as are all of the small SegFormer."
)
SPECIALISTS_NOTE = (
    "Networks that learned different styles, most without any adaptation, merged with the best of them on the val "
    "frames of the target as the anchor. The second table has the gain over the best parent; with several "
    "seeds, how many of the intervals are above or below 0."
)


def document(bench: Bench, pictures: Path, *, test: bool) -> str:
    """Return the whole document; its plots are written to the folder `pictures`."""
    parts: list[tuple[str, Callable[[], list[str]]]] = [
        ("runs", lambda: ["## The runs", "", RUNS_NOTE, "", *controls(bench)]),
        ("specialists", lambda: ["## Specialists", "", SPECIALISTS_NOTE, "", *specialists(bench, test=False)]),
        ("gains", lambda: gains.section(bench, read_runs(BENCH), pictures)),
    ]
    for on, what in TARGETS.items():
        tables: list[Callable[[str], list[str]]] = [
            lambda on, what=what: [f"## On {on}: {what}", ""],  # type: ignore[misc]
            *(partial(part, bench) for part in (table2, seeds, table4, table5)),
        ]
        if on != "camvid":
            tables.append(partial(table6, bench))
        if on == "mixed":
            tables += [partial(table3, bench), lambda on: figure3(bench, on, pictures)]
        if on == "new":
            tables.append(lambda on: figure5(bench, on, pictures))
        parts += [(on, partial(part, on)) for part in tables]
    parts += [
        ("table 9", lambda: ["## Elsewhere", "", *table9(bench)]),
        ("figure 2", lambda: figure2(bench, pictures)),
    ]
    if test:
        parts.append(("test", lambda: ["## On the test frames", "", *specialists(bench, test=True)]))
        parts += [("test", partial(on_test, bench, on)) for on in TARGETS]
    pictures.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for name, part in parts:
        log.info("%s", name)
        lines += part()
    introduction = INTRODUCTION.format(
        fisher=FISHER_IMAGES,
        styles=", ".join(STYLES),
        targets="\n".join(f"- {on}: {what};" for on, what in TARGETS.items()),
    )
    return "\n".join([*introduction.splitlines(), "", *in_short(lines), *lines]).rstrip() + "\n"


def in_short(lines: Sequence[str]) -> list[str]:
    """Return a table of all claims in the document, by target, with the titles of their sections."""
    section, title = "", ""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for line in lines:
        if line.startswith("## "):
            section = line.removeprefix("## On ").split(":")[0]
        elif line.startswith("### "):
            title = line.removeprefix("### ")
        elif line.startswith(CLAIM):
            text, _, cases = line.removeprefix(CLAIM).rpartition(": ")
            found.setdefault((title, text), {})[section if section in TARGETS else ""] = cases
    columns = (*TARGETS, "")
    rows = [(*claim, *(cases.get(column, "") for column in columns)) for claim, cases in found.items()]
    note = "In how many cases a claim holds. The paper has no permutation, and makes no claim of isotropic merging."
    head = ["part", "claim", *TARGETS, "elsewhere"]
    return ["## What holds here", "", note, "", *table(head, rows)]


def data_of(target: Path, cache: Path) -> Mapping[str, Callable[[], Frames]]:
    """Return functions that load the data sets that candidates are scored on, by name."""

    def styles(names: Sequence[str], first: int, count: int = FRAMES) -> Frames:
        return joined([rendered(cache, style, first, count) for style in names])

    def film(on: str) -> Frames:
        split, step, _ = FILMS[on]
        frames = folder_of_images(target / split, labelled=True)
        return Frames(frames.images[::step], None if frames.labels is None else frames.labels[::step])

    crops = -(-FISHER_IMAGES // len(objects.OBJECTS))
    return {
        "mixed": lambda: styles(STYLES, 100_000),
        "mixed test": lambda: styles(STYLES, 300_000),
        "new": lambda: styles(NEW, 100_000),
        "new test": lambda: styles(NEW, 300_000),
        "camvid": lambda: film("camvid"),
        "camvid test": lambda: film("camvid test"),
        "source": lambda: styles(STYLES, 400_000, -(-FISHER_IMAGES // len(STYLES))),
        "objects": lambda: objects.object_crops(rendered(cache, objects.TARGET, 100_000, 60), OBJECT_CROPS),
        "source objects": lambda: objects.object_crops(rendered(cache, objects.SOURCE, 400_000, FISHER_IMAGES), crops),
    }


def runs_of_films(target: Path) -> dict[str, list[int]]:
    """Return, for the data sets that are films, the numbers of the frames that begin a run; no run has two films."""
    found = {}
    for on, (split, step, length) in FILMS.items():
        runs = blocks(read_split(target / split).films[::step], length)
        found[on] = np.flatnonzero(np.diff(runs, prepend=-1)).tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=Path, required=True, help="folder with val/ and test/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained runs")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/hf-lwmm/uda").expanduser())
    parser.add_argument("--document", type=Path, default=Path("model_cards/uda-bench.md"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    bench = Bench(options.out, data_of(options.target, options.cache), runs=runs_of_films(options.target))
    text = document(bench, options.document.with_suffix(""), test=options.test)
    options.document.parent.mkdir(parents=True, exist_ok=True)
    options.document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
