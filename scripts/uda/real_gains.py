"""Gains of the real bench's pairs, from the counts that it keeps as JSON: `scripts.uda.gains` draws them, too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scripts.uda.candidates import Scored

# Names of pairs as their distances are listed, by the data of the two models.
PAIRS = {("film-a", "film-b"): "different films", ("film-a", "film-a"): "the same film",
         ("first-half", "second-half"): "halves of a film"}  # fmt: skip
# Blocks of frames by target: the split, and the film, or all of them.
TARGETS = {"mixed": ("test", None), "new": ("test", "Seq05VD"), "own": ("test", "0001TP")}
_MERGE = re.compile(r"(\w+): ([\w-]+)/(\d+), ([\w-]+)/(\d+)")


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the fields of a `Gain` for every merge of two models in the JSON files of a folder."""
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text())
        for name in cell["counts"]:
            found = _MERGE.fullmatch(name)
            pair = PAIRS.get((found[2], found[4])) if found else None
            apart = cell["distances"].get(f"{pair}, seed {found[3]}") if found else None
            if found is None or apart is None:
                continue
            models = (f"{found[2]}/{found[3]}", f"{found[4]}/{found[5]}")
            facts = {
                "bench": "real, ESPNetv2",
                "models": models,
                "overlap": float(found[2] == found[4]),
                "relative": apart["relative L2"],
                "cosine": 1 - apart["cosine"],
                "agreement": apart["cosine of changes"],
                "steps": cell["steps"],
                "frozen": cell["bn"] == "frozen",
                "method": found[1],
            }
            for target, (split, film) in TARGETS.items():
                merge, *parents = (_scored(cell, each, split, film) for each in (name, *models))
                gain = merge.gain(max(parents, key=lambda single: single.mean))
                gap = abs(parents[0].mean - parents[1].mean)
                yield {**facts, "target": target, "gap": gap, "gain": gain[0], "low": gain[1], "high": gain[2]}


def _scored(cell: Mapping[str, Any], name: str, split: str, film: str | None) -> Scored:
    """Return what a candidate scored on a film; its counts are of blocks of frames."""
    kept = [film in (None, own) for own in cell["blocks"][split]]
    return Scored(np.asarray(cell["counts"][name][split])[kept])
