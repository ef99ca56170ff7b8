"""Score single models, merges and ensembles of the runs of `scripts.uda.real.train`, and keep counts by run of frames.

    python -m scripts.uda.real.cells START.pth --camvid CAMVID --out DIR --results FOLDER frozen 45

What is scored is kept in DIR/scores, so that a killed call goes on; FOLDER/frozen-45.json has all of a cell.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

import hf_lwmm
from hf_lwmm.calibration.merged_network import pixels_of
from hf_lwmm.demo.streets import CLASSES
from hf_lwmm.evaluation.class_map import best_classes
from hf_lwmm.evaluation.inference import window_logits
from hf_lwmm.methods import make_method
from hf_lwmm.metrics.semantic import confusion, semantic_counts
from hf_lwmm.networks.loaded_model import LoadedModel
from scripts.networks.espnetv2 import s10_camvid
from scripts.uda.real.films import Film, blocks, read_split
from scripts.uda.real.train import SETTINGS, checkpoint

START = "start"
ENSEMBLE = "ensemble"
OWN = hf_lwmm.NetworkOptions(network=s10_camvid)
log = logging.getLogger("real")


@dataclass(frozen=True)
class Candidate:
    """A single model (`method` is empty), a merge, or an ensemble; the first of `models` is the anchor."""

    models: tuple[str, ...]
    method: str = ""

    @property
    def name(self) -> str:
        """The key of the candidate in results, such as `isotropic: film-a/1, film-b/1`."""
        models = ", ".join(self.models)
        return f"{self.method}: {models}" if self.method else models


def pair(name: str, seed: int) -> tuple[str, ...]:
    """Return the models of an entry of real.yaml's `pairs` with a seed, as DATA/SEED."""
    seeds: list[int] = SETTINGS["seeds"]
    following = seeds[(seeds.index(seed) + 1) % len(seeds)]
    parts = (each.split() for each in SETTINGS["pairs"][name]["models"])
    return tuple(f"{data}/{following if after else seed}" for data, *after in parts)


def candidates(names: Sequence[str], seed: int, only: Sequence[str] = ()) -> list[Candidate]:
    """Return what is scored with a seed: the start, single models, merges and ensembles of pairs.

    Args:
        names: entries of real.yaml's `pairs`.
        seed: the training seed.
        only: methods; all of a pair if empty.
    """
    singles = [START, f"{SETTINGS['joint']}/{seed}"]
    found = []
    for name in names:
        models = pair(name, seed)
        singles += models
        methods = (*SETTINGS["pairs"][name]["methods"], ENSEMBLE)
        found += [Candidate(models, method) for method in methods if not only or method in only]
    return [*(Candidate((model,)) for model in dict.fromkeys(singles)), *found]


@dataclass(frozen=True)
class Scorer:
    """The runs of one cell, and the frames that they are scored on."""

    start: Path
    out: Path
    camvid: Path
    bn: str
    steps: int
    _loaded: dict[str, LoadedModel] = field(default_factory=dict, repr=False)

    @cached_property
    def frames(self) -> dict[str, Film]:
        """The frames by split."""
        val = read_split(self.camvid / "val")
        return {"test": read_split(self.camvid / "test"), "val": val.at(range(0, len(val), SETTINGS["val_frames"]))}

    def path(self, model: str) -> Path:
        """The checkpoint of a model, DATA/SEED or the start."""
        if model == START:
            return self.start
        data, seed = model.split("/")
        return checkpoint(self.out, f"{data}/{self.bn}/{seed}", self.steps)

    def missing(self, candidate: Candidate) -> list[str]:
        """The models of a candidate that have not been trained."""
        return [model for model in candidate.models if not self.path(model).exists()]

    def stored(self, candidate: Candidate) -> Path:
        """The file with the counts of a candidate, by split."""
        cell = "start" if candidate.name == START else f"{self.bn}-{self.steps}"
        return self.out / "scores" / cell / f"{candidate.name.replace('/', '-').replace(':', '')}.json"

    def score(self, wanted: Sequence[Candidate]) -> None:
        """Score all candidates that have not been scored, in one pass over the frames."""
        left = [each for each in wanted if not self.missing(each) and not self.stored(each).exists()]
        if not left:
            return
        started = time.perf_counter()
        loaded = {each.name: self.load(each) for each in left if each.method != ENSEMBLE}
        for each in left:
            loaded |= {model: self.load(Candidate((model,))) for model in each.models if each.method == ENSEMBLE}
        counts: dict[str, dict[str, Any]] = {each.name: {} for each in left}
        for split, film in self.frames.items():
            found = {name: np.zeros((len(film), len(CLASSES), 3), np.int64) for name in counts}
            for row, (image, truth) in enumerate(zip(film.images, film.labels, strict=True)):
                pixels, size = pixels_of(next(iter(loaded.values())), [Image.fromarray(image)]), truth.shape
                logits = {name: window_logits(model.model, pixels)[0] for name, model in loaded.items()}
                for each in left:
                    names = each.models if each.method == ENSEMBLE else [each.name]
                    guess = best_classes([logits[name] for name in names], size)
                    found[each.name][row] = semantic_counts(confusion(truth, guess, len(CLASSES)))
            block = blocks(film.films, SETTINGS["block"])
            for name, by_frame in found.items():
                sums = [by_frame[block == each].sum(axis=0) for each in range(block[-1] + 1)]
                counts[name][split] = np.stack(sums).tolist()
        for each in left:
            path = self.stored(each)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(counts[each.name]))
        seconds = time.perf_counter() - started
        log.info("%s %d: %d candidates in %.0f s", self.bn, self.steps, len(left), seconds)

    def load(self, candidate: Candidate) -> LoadedModel:
        """The network of a single model, or of a merge, as `hf-lwmm merge` writes it."""
        if not candidate.method:
            return hf_lwmm.load(self.path(candidate.models[0]), OWN)
        with tempfile.TemporaryDirectory() as folder:
            merged = Path(folder) / "merged"
            merge(self.start, [self.path(model) for model in candidate.models], candidate.method, merged)
            return hf_lwmm.load(merged, OWN)


def merge(start: Path, models: Sequence[Path], method: str, output: Path) -> None:
    """Merge models by a method of real.yaml; methods that need a base get the published network."""
    settings: dict[str, Any] = dict(SETTINGS["methods"][method])
    chosen = make_method(settings.pop("method"), settings)
    inputs = hf_lwmm.MergeInputs(base=start if "base" in chosen.needs else None)
    hf_lwmm.merge(list(models), knobs=hf_lwmm.Knobs(method=chosen), inputs=inputs, output=output)


def distances(paths: Sequence[Path], start: Path) -> dict[str, float]:
    """Return how far a model is from the first, over all weights: their cosine, and the relative L2 distance.

    `from start` is the relative L2 distance of the first model from the published network, and `cosine of changes` that
    between what training changed in both.
    """
    first, second = (_weights(load_file(path)) for path in paths[:2])
    origin = _weights({k: v.numpy() for k, v in torch.load(start, map_location="cpu", weights_only=True).items()})
    return {
        "cosine": _cosine(first, second),
        "relative L2": float(np.linalg.norm(first - second) / np.linalg.norm(first)),
        "from start": float(np.linalg.norm(first - origin) / np.linalg.norm(origin)),
        "cosine of changes": _cosine(first - origin, second - origin),
    }


def _weights(tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """All weights as one vector, without BatchNorm's statistics."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    parts = [tensors[name].ravel() for name in sorted(tensors) if not name.endswith(statistics)]
    return np.concatenate(parts).astype(np.float64)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def collect(scorer: Scorer, results: Path) -> None:
    """Write all that has been scored of a cell as one JSON file."""
    films = {split: film.films for split, film in scorer.frames.items()}
    runs = {split: blocks(own, SETTINGS["block"]) for split, own in films.items()}
    content: dict[str, Any] = {
        "bn": scorer.bn,
        "steps": scorer.steps,
        "blocks": {s: [films[s][int(np.argmax(runs[s] == b))] for b in range(runs[s][-1] + 1)] for s in films},
        "counts": {},
        "distances": {},
    }
    for seed in SETTINGS["seeds"]:
        for name in SETTINGS["pairs"]:
            models = pair(name, seed)
            for each in candidates([name], seed):
                if (path := scorer.stored(each)).exists():
                    content["counts"][each.name] = json.loads(path.read_text())
            if all(scorer.path(model).exists() for model in models):
                content["distances"][f"{name}, seed {seed}"] = distances(list(map(scorer.path, models)), scorer.start)
    results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, separators=(",", ":")).replace('},"', '},\n"').replace(':{"', ':{\n"')
    (results / f"{scorer.bn}-{scorer.steps}.json").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("start", type=Path, help="published checkpoint, espnetv2_s_1.0_city_512x256.pth")
    parser.add_argument("bn", choices=SETTINGS["bn"])
    parser.add_argument("steps", type=int, choices=SETTINGS["steps"])
    parser.add_argument("--camvid", type=Path, required=True, help="folder with val/ and test/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--results", type=Path, required=True, help="folder for the JSON file of the cell")
    parser.add_argument("--pair", action="append", choices=SETTINGS["pairs"], help="all pairs if not given")
    parser.add_argument("--method", action="append", choices=[*SETTINGS["methods"], ENSEMBLE], help="all if not given")
    parser.add_argument("--seed", action="append", type=int, choices=SETTINGS["seeds"], help="all seeds if not given")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    scorer = Scorer(options.start, options.out, options.camvid, options.bn, options.steps)
    for seed in options.seed or SETTINGS["seeds"]:
        scorer.score(candidates(options.pair or list(SETTINGS["pairs"]), seed, options.method or ()))
        collect(scorer, options.results)


if __name__ == "__main__":
    main()
