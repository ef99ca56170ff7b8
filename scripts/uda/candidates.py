"""Candidates of the benchmark's tables: single models, ensembles and merges, each scored once and then remembered.

A model is named RUN/QUARTER, e.g. `hrda-gta/4`. What a candidate scored is kept as counts of each image, so that
means, differences and intervals need no network any more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

import hf_lwmm
from hf_lwmm.calibration.measurements import fisher, save_measurements
from hf_lwmm.data.annotations import PanopticMap
from hf_lwmm.data.runs import Runs
from hf_lwmm.data.samples import LabelledImages, Sample
from hf_lwmm.demo.streets import CLASSES, IGNORE
from hf_lwmm.evaluation.class_map import Logits, best_classes
from hf_lwmm.evaluation.inference import predict_logits, rows_of_classes
from hf_lwmm.evaluation.per_image import score
from hf_lwmm.evaluation.pictures import PLAIN
from hf_lwmm.evaluation.reading import prepare
from hf_lwmm.evaluation.scoring_plan import ScoredModel, ScoringPlan
from hf_lwmm.hub import sha256
from hf_lwmm.labels import match_classes
from hf_lwmm.methods import make_method
from hf_lwmm.metrics.bootstrap import interval, score_resamples, summed
from hf_lwmm.metrics.classification import average_accuracy
from hf_lwmm.metrics.panoptic import mean_pq, panoptic_scores
from hf_lwmm.metrics.semantic import confusion, mean_iou, semantic_counts
from scripts.uda.data import Frames

log = logging.getLogger("document")
Counts = NDArray[Any]
FISHER_IMAGES = 64
KEPT_MERGES = 64
_DIVISOR = 1000
_CUT = " without "  # a run with this suffix lacks the classes named after it


@dataclass(frozen=True)
class Candidate:
    """A thing that is scored under one name; the first of `models` is the anchor.

    `method` is None for the single model, "ensemble", or one of `hf_lwmm.methods.METHODS`.
    """

    models: tuple[str, ...]
    method: str | None = None
    knobs: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if (self.method is None) != (len(self.models) == 1):
            raise ValueError(f"One model is a candidate of its own, several need a method: {self}")


@dataclass(frozen=True)
class Scored:
    """The counts of a candidate, (images, classes, K), and its score in per cent, a mean over classes.

    The images of films are resampled in runs, because neighbouring frames are alike; `runs` are the numbers of the
    images that begin one, and without any each image stands by itself.
    """

    counts: Counts = field(repr=False)
    runs: Sequence[int] = field(default=(), repr=False)

    @property
    def mean(self) -> float:
        return 100 * float(MEANS[self.counts.shape[-1]](self.counts.sum(axis=0)))

    def part(self, images: slice) -> Scored:
        """The same candidate on some of the images, which are of no film."""
        assert not self.runs
        return Scored(self.counts[images])

    def gain(self, over: Scored) -> tuple[float, float, float]:
        """The difference to another candidate on the same images, and its 95 % interval over them or their runs."""
        mean = summed(MEANS[self.counts.shape[-1]])
        own, others = self._summed(), over._summed()
        low, high = interval(score_resamples(own, mean) - score_resamples(others, mean))
        return self.mean - over.mean, 100 * low, 100 * high

    def _summed(self) -> Counts:
        return np.add.reduceat(self.counts, self.runs or range(len(self.counts)), axis=0)


# The score of summed counts, by how many numbers they have for a class.
MEANS: Mapping[int, Callable[[Counts], Any]] = {2: average_accuracy, 3: mean_iou, 4: mean_pq}


@dataclass
class Bench:
    """Trained runs under a folder, and the data that they are scored on by name.

    `data` gives, for each name, labelled frames, or crops with a class each; `runs` gives, of frames of films, the
    numbers of those that begin a run. Tables are over `seeds` of the training.
    """

    out: Path
    data: Mapping[str, Callable[[], Frames]]
    seeds: tuple[int, ...] = (1, 2, 3)
    runs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    _frames: dict[str, Frames] = field(default_factory=dict, repr=False)
    _logits: dict[tuple[str, str], list[Logits]] = field(default_factory=dict, repr=False)
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False)
    _merges: dict[tuple[Candidate, str], Any] = field(default_factory=dict, repr=False)

    def frames(self, name: str) -> Frames:
        if name not in self._frames:
            self._frames[name] = self.data[name]()
        return self._frames[name]

    def folder(self, model: str) -> Path:
        """Where a model is; a model without some classes is made when it is first asked for."""
        run, quarter, names = _parts(model)
        whole = self.out / run / f"quarter-{quarter}"
        if not names:
            return whole
        folder = self.out / "cut" / model.replace("/", "-").replace(" ", "-")
        if not folder.exists():
            cut_classes(whole, folder, names)
        return folder

    def missing(self, *models: str) -> list[str]:
        """The runs that were not trained as far as these models need."""
        parts = [_parts(model) for model in models]
        absent = [run for run, quarter, _ in parts if not (self.out / run / f"quarter-{quarter}").exists()]
        return list(dict.fromkeys(absent))

    def load(self, model: str) -> Any:
        if model not in self._loaded:
            self._loaded[model] = hf_lwmm.load(self.folder(model))
        return self._loaded[model]

    def score(self, candidate: Candidate, on: str, task: str = "semantic") -> Scored:
        """Score a candidate, or remember what it scored."""
        stored = self.out / "scores" / on / f"{self._key(candidate, on, task)}.npz"
        if stored.exists():
            counts = np.load(stored)["counts"]
        else:
            started = time.perf_counter()
            counts = self._counts(candidate, on, task)
            stored.parent.mkdir(parents=True, exist_ok=True)
            working = stored.with_suffix(f".{os.getpid()}.npz")
            np.savez_compressed(working, counts=counts, candidate=str(candidate))
            working.replace(stored)
            log.info("%s on %s: %.1f s", candidate, on, time.perf_counter() - started)
        return Scored(counts, self.runs.get(on, ()))

    def _key(self, candidate: Candidate, on: str, task: str) -> str:
        digests = [self._digest(model) for model in candidate.models]
        text = json.dumps([candidate.method, candidate.knobs, digests, on, task])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def _digest(self, model: str) -> str:
        return sha256(self.folder(model) / "model.safetensors")[:12]

    def _counts(self, candidate: Candidate, on: str, task: str) -> Counts:
        if candidate.method in (None, "ensemble"):
            return self._counted([self.load(model) for model in candidate.models], on, task, candidate.models)
        return self._counted([self._merged(candidate, task)], on, task)

    def _merged(self, candidate: Candidate, task: str) -> Any:
        """Merge the candidate's models; the latest merges are kept, as most are scored on several targets."""
        if (candidate, task) in self._merges:
            return self._merges[candidate, task]
        with tempfile.TemporaryDirectory() as folder:
            measured = candidate.models if candidate.method == "fisher" else ()
            hf_lwmm.merge(
                [self.folder(model) for model in candidate.models],
                knobs=hf_lwmm.Knobs(method=make_method(candidate.method, dict(candidate.knobs))),
                inputs=hf_lwmm.MergeInputs(measurements=tuple(self.fisher(model, task) for model in measured)),
                output=Path(folder) / "merged",
            )
            self._merges[candidate, task] = hf_lwmm.load(Path(folder) / "merged")
        if len(self._merges) > KEPT_MERGES:
            del self._merges[next(iter(self._merges))]
        return self._merges[candidate, task]

    def _counted(self, loaded: Sequence[Any], on: str, task: str, names: Sequence[str] = ()) -> Counts:
        frames = self.frames(on)
        assert frames.labels is not None
        if task != "semantic":
            space = loaded[0].classes if task == "classification" else CLASSES
            table = match_classes(loaded[0].classes, space, loaded[0].label, on)
            plan = ScoringPlan([ScoredModel(on, tuple(loaded))], [table], task, on, space, None, PLAIN)
            samples = [prepare(_sample(frames, index), plan) for index in range(len(frames))]
            return np.stack([scores.counts[0] for scores in score(samples, plan)])
        pictures = [Image.fromarray(image) for image in frames.images]
        table = match_classes(loaded[0].classes, CLASSES, loaded[0].label, on)
        logits = [self._logits_of(each, pictures, on, name) for each, name in zip(loaded, names or [""], strict=True)]
        gather = [rows_of_classes(loaded[0], each) for each in loaded]
        counts = []
        for index, truth in enumerate(frames.labels):
            guess = best_classes([each[index] for each in logits], (truth.shape[0], truth.shape[1]), gather)
            counts.append(semantic_counts(confusion(truth, table[guess], len(CLASSES))))
        return np.stack(counts)

    def _logits_of(self, loaded: Any, pictures: Sequence[Image.Image], on: str, name: str) -> list[Logits]:
        """Logits of every picture; those of trained models are kept, for ensembles."""
        if (name, on) in self._logits:
            return self._logits[name, on]
        logits = [predict_logits(loaded, [picture])[0] for picture in pictures]
        if name:
            self._logits[name, on] = logits
        return logits

    def fisher(self, model: str, task: str) -> Path:
        """A model's Fisher information on labelled images of the source, measured when it is first asked for."""
        source, task = ("source objects", task) if task == "classification" else ("source", "semantic")
        path = self.out / "fisher" / f"{model.replace('/', '-')}-{self._digest(model)}.safetensors"
        if not path.exists():
            frames = self.frames(source)
            path.parent.mkdir(parents=True, exist_ok=True)
            loaded = self.load(model)
            classes = loaded.classes if task == "classification" else CLASSES
            count = min(FISHER_IMAGES, len(frames))
            images = LabelledImages(source, count, lambda index: _sample(frames, index), task, classes)
            measured, _ = fisher(loaded, images)
            save_measurements(measured, path, kind="fisher", loaded=loaded, images=count)
        return path

    def seconds(self, models: Sequence[str], on: str, images: int = 8) -> list[float]:
        """The median time that each model takes for an image, or what it was when it was first asked for.

        The models take turns, so that whatever else the machine does slows all of them.
        """
        stored = self.out / "seconds" / on / f"{'-'.join(self._digest(model) for model in models)}.json"
        if not stored.exists():
            loaded = [self.load(model) for model in models]
            pictures = [Image.fromarray(image) for image in self.frames(on).images[:images]]
            times = [[_seconds(each, picture) for each in loaded] for picture in pictures]
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_text(json.dumps(np.median(times, axis=0).tolist()))
        medians: list[float] = json.loads(stored.read_text())
        return medians


def cut_classes(source: Path, target: Path, names: Sequence[str]) -> None:
    """A semantic model without some classes: their rows of its classifier are left out."""
    config = json.loads((source / "config.json").read_text())
    classes = [config["id2label"][str(row)] for row in range(len(config["id2label"]))]
    rows = torch.tensor([row for row, name in enumerate(classes) if name not in names])
    kept = [classes[row] for row in rows]
    tensors = load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.ndim and len(tensor) == len(classes) and "conv_seg" in name:
            tensors[name] = tensor[rows].contiguous()
    config["id2label"] = {str(row): name for row, name in enumerate(kept)}
    config["label2id"] = {name: row for row, name in enumerate(kept)}
    working = target.with_name(f"{target.name}.{os.getpid()}")
    working.mkdir(parents=True)
    (working / "config.json").write_text(json.dumps(config, indent=2))
    (working / "preprocessor_config.json").write_bytes((source / "preprocessor_config.json").read_bytes())
    save_file(tensors, working / "model.safetensors", {"format": "pt"})
    working.rename(target)


def _parts(model: str) -> tuple[str, str, list[str]]:
    """Run, quarter, and the classes that are cut."""
    run, quarter = model.split("/")
    whole, _, names = run.partition(_CUT)
    return whole, quarter, names.split("+") if names else []


def _seconds(loaded: Any, picture: Image.Image) -> float:
    started = time.perf_counter()
    predict_logits(loaded, [picture])
    return time.perf_counter() - started


def _sample(frames: Frames, index: int) -> Sample:
    assert frames.labels is not None
    image, labels, segments = Image.fromarray(frames.images[index]), np.asarray(frames.labels[index]), None
    if frames.instances is not None:
        codes = np.where(
            labels == IGNORE, IGNORE * _DIVISOR, labels.astype(np.int64) * _DIVISOR + frames.instances[index]
        )
        segments = PanopticMap.of_codes(Runs.of(codes), _DIVISOR, IGNORE * _DIVISOR)
    return Sample(index, str(index), lambda: image, labels if labels.ndim else int(labels), segments)


def panoptic_means(scored: Scored) -> tuple[float, float, float]:
    """mSQ, mRQ and mPQ in per cent."""
    scores = panoptic_scores(scored.counts.sum(axis=0))
    return 100 * scores.mean_sq, 100 * scores.mean_rq, 100 * scores.mean_pq
