"""Write the benchmark's document: the paper's tables and figures for the models that `scripts.uda.train` trained.

    python -m scripts.uda.document --target CAMVID --out DIR           # on val, where all choices were made
    python -m scripts.uda.document --target CAMVID --out DIR --test    # also on the test split; once, at the very end

Scores are kept in DIR/scores, so a second call resumes where the first stopped. The document names missing runs.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import transformers

from scripts.uda import objects
from scripts.uda.candidates import FISHER_IMAGES, Bench
from scripts.uda.cells import CLAIM, table
from scripts.uda.data import Frames, rendered
from scripts.uda.figures import figure2, figure3, figure5
from scripts.uda.tables import controls, on_test, seeds, table2, table3, table4, table5, table6, table9
from scripts.uda.train import scored_frames

OBJECT_CROPS = 80  # crops of each class to score on
log = logging.getLogger("document")

INTRODUCTION = """# Layer-wise merging on models trained here

The paper's experiments (arXiv 2409.15813) at a size that a CPU trains: sources are rendered streets of the styles gta
and synthia; the target is CamVid (367 unlabelled training images, 101 of val; 11 classes), for Tables 6 and 9 rendered
streets of the style night. Networks have less than 2 % of the published weights, and runs hundreds of steps: figures
can be compared with the paper's in sign and order, not in height. Runs and their knobs are in `scripts/uda/bench.yaml`.

All choices were made on val, and the tables show val. mIoU in per cent over 11 classes; in brackets 95 % intervals over
images of the difference, paired; after ± standard deviations over training seeds. Fisher information is of {fisher}
labelled images of the source. "permutation" is weight matching, then isotropic merging. The ensemble averages softmax
outputs, at the cost of a forward pass a model.
"""

CONTROLS_NOTE = (
    "`mit-unseen`, `cnn-unseen` and the `-gta-source` runs that start from them never see an image of the target. "
    "`mit` and `cnn` are the same pre-training with the colour statistics of target images on half of the source "
    "images; the adapted runs start from them, and so does `daformer-both-source`, which goes on like `daformer-both` "
    "but without pseudo-labels. The last column compares with `-unseen`."
)


def document(bench: Bench, pictures: Path, *, test: bool) -> str:
    """Return the whole document; its plots are written to the folder `pictures`."""
    parts: list[tuple[str, Callable[[], list[str]]]] = [
        ("runs", lambda: ["## The runs", "", CONTROLS_NOTE, "", *controls(bench, "val")]),
        ("table 2", lambda: ["## Tables", "", *table2(bench, "val")]),
        ("seeds", lambda: ["### Seeds", "", *seeds(bench, "val")]),
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
    lines: list[str] = []
    for name, part in parts:
        log.info("%s", name)
        lines += part()
    introduction = INTRODUCTION.format(fisher=FISHER_IMAGES).splitlines()
    return "\n".join([*introduction, "", *in_short(lines), *lines]).rstrip() + "\n"


def in_short(lines: Sequence[str]) -> list[str]:
    """Return a table of all claims in the document, with the titles of their sections."""
    title, rows = "", []
    for line in lines:
        if line.startswith("#"):
            title = line.lstrip("# ")
        elif line.startswith(CLAIM):
            text, _, cases = line.removeprefix(CLAIM).rpartition(": ")
            rows.append((title, text, cases))
    note = "The paper's claims; permutation, which it does not have, is held to the same."
    return ["## What holds here", "", note, "", *table(["part", "claim", "cases in which it holds"], rows)]


def data_of(target: Path, cache: Path) -> Mapping[str, Callable[[], Frames]]:
    """Return functions that load the data sets that candidates are scored on, by name."""
    return {
        "val": lambda: scored_frames({"target": "folder"}, target / "val", cache),
        "test": lambda: scored_frames({"target": "folder"}, target / "test", cache),
        "source": lambda: rendered(cache, "gta", 100_000, FISHER_IMAGES),
        "night": lambda: scored_frames({"target": "night"}, target, cache),
        "objects": lambda: objects.object_crops(scored_frames({"target": objects.TARGET}, target, cache), OBJECT_CROPS),
        "source objects": lambda: objects.object_crops(
            rendered(cache, objects.SOURCE, 100_000, FISHER_IMAGES), -(-FISHER_IMAGES // len(objects.OBJECTS))
        ),
    }


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
    bench = Bench(options.out, data_of(options.target, options.cache))
    text = document(bench, options.document.with_suffix(""), test=options.test)
    options.document.parent.mkdir(parents=True, exist_ok=True)
    options.document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
