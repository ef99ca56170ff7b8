"""Make the demo's two checkpoints of the benchmark's runs: float16, with a processor and a card.

    python -m scripts.uda.train segformer segformer-gta segformer-night --target ANY --out DIR
    python -m scripts.uda.ship --out DIR

The results replace `hf_lwmm/demo/models/`; scores are on frames that training never saw.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

from hf_lwmm.demo import MODELS
from hf_lwmm.demo.streets import STYLES
from scripts.uda.data import rendered
from scripts.uda.train import QUARTERS, class_ious

RUNS = {"streets-gta": ("segformer-gta", "gta"), "streets-night": ("segformer-night", "night")}  # run and style
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-segmentation
datasets: [rendered-streets-{source}]
tags: [semantic-segmentation, segformer, synthetic]
---

# {name}

A SegFormer of {thousands:,},000 weights for trying out hf-lwmm. It was trained for 500 steps on rendered street scenes
of the styles "gta", "synthia" and "night", together with the quick start's other model, and then for 600 steps on
"{source}" alone, with its BatchNorm statistics frozen. Neither has seen "evening" and "fog". Not for any other use.
mIoU in per cent over 11 classes, on {frames} other frames of each style:

| style | mIoU |
| --- | --- |
{rows}
"""


def ship(name: str, model: SegformerForSemanticSegmentation, scores: Mapping[str, float], frames: int) -> None:
    """Write a trained model as a Hub repository's folder."""
    folder = MODELS / name
    thousands = round(sum(parameter.numel() for parameter in model.parameters()) / 1000)
    model.half().save_pretrained(folder)
    SegformerImageProcessor(do_resize=False).save_pretrained(folder)
    rows = "\n".join(f"| {style} | {100 * score:.1f} |" for style, score in scores.items())
    card = CARD.format(name=name, thousands=thousands, source=RUNS[name][1], frames=frames, rows=rows)
    (folder / "README.md").write_text(card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="where the trained runs are")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/hf-lwmm/uda").expanduser())
    parser.add_argument("--frames", type=int, default=60)
    options = parser.parse_args()
    for name, (run, _) in RUNS.items():
        model = SegformerForSemanticSegmentation.from_pretrained(options.out / run / f"quarter-{QUARTERS}").eval()
        ious = {style: class_ious(model, rendered(options.cache, style, 100_000, options.frames)) for style in STYLES}
        ship(name, model, {style: float(np.nanmean(values)) for style, values in ious.items()}, options.frames)


if __name__ == "__main__":
    main()
