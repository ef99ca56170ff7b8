"""Gains of the real bench's pairs, from the counts that it keeps as JSON: `scripts.uda.gains` draws them, too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scripts.uda.candidates import Scored
from scripts.uda.real.train import SETTINGS

_MERGE = re.compile(r"(\w+): ([\w-]+)/(\d+), ([\w-]+)/(\d+)")


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the fields of a `Gain` for every merge of two models in the JSON files of a folder."""
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text())
        for name in cell["counts"]:
            found = _MERGE.fullmatch(name)
            name_of_pair = _pair(found[2], found[4]) if found else None
            if found is None or name_of_pair is None:
                continue
            apart = cell["distances"][f"{name_of_pair}, seed {found[3]}"]
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
            for target, frames in {**SETTINGS["targets"], "own": SETTINGS["pairs"][name_of_pair]["known"]}.items():
                merge, *parents = (_scored(cell, each, frames) for each in (name, *models))
                gain = merge.gain(max(parents, key=lambda single: single.mean))
                gap = abs(parents[0].mean - parents[1].mean)
                yield {**facts, "target": target, "gap": gap, "gain": gain[0], "low": gain[1], "high": gain[2]}


def _pair(*data: str) -> str | None:
    """Return the name of the entry of real.yaml's `pairs` with these data, if there is one."""
    pairs = SETTINGS["pairs"].items()
    return next((name for name, each in pairs if [model.split()[0] for model in each["models"]] == [*data]), None)


def _scored(cell: Mapping[str, Any], name: str, frames: str) -> Scored:
    """Return what a candidate scored on a split, or on a film of one; its counts are of blocks of frames."""
    split, _, film = frames.partition("/")
    kept = [film in ("", own) for own in cell["blocks"][split]]
    return Scored(np.asarray(cell["counts"][name][split])[kept])
