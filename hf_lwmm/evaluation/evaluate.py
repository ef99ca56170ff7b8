"""Models over a labelled data set in one pass: split over processes, resumed where a run was killed, and reported."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm._version import __version__
from hf_lwmm.data.loading import LabelledImages, Sample, open_images
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation.examples import draw_example
from hf_lwmm.evaluation.inference import View, all_views
from hf_lwmm.evaluation.per_image import ImageScores, ScoredModel, ScoringPlan, padded, score
from hf_lwmm.evaluation.report import METRICS, PARTS_OF_CITYSCAPES, EvaluationReport, Example, report
from hf_lwmm.labels import label_set_of_ids, label_sets, match_classes, meaning, normalise, read_label_set
from hf_lwmm.networks.loading import LoadedModel, load
from hf_lwmm.progress import Progress

__all__ = ["METRICS", "EvaluationReport", "evaluate", "report"]

_KEEP_EVERY = 20.0  # seconds between two writes of the partial result


def evaluate(
    models: Sequence[Any],
    dataset: str | Path,
    *,
    split: str = "validation",
    config: str | None = None,
    protocol: str | None = None,
    ids: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    ensemble: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    limit: int | None = None,
    streaming: bool = False,
    labels: Sequence[Any] = (),
    system: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 1,
    compile: bool = False,
    edaps_void: bool = False,
    examples: int = 0,
    partial: str | Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> EvaluationReport | None:
    """Score models on a split of a data set; the first is the anchor that the others are compared with.

    Under `accelerate launch` or `torchrun` every process takes its part of the images, and the first one answers;
    the others return None. A run that was killed goes on where it stopped.

    Args:
        models: references, as for `merge`, or what `load` returned.
        dataset, split, config, image_column, label_column: as for `open_images`. The first model's task decides
            which of several kinds of labels are read.
        protocol: the label set whose classes are scored (`cityscapes19`, `synthia16`, ...); all that the data set or
            the first model names if None.
        ids: the raw ids that label files follow (`cityscapes`, `gta`, `synthia`, ...); class ids if None.
        ensemble: also score the average of all models' softmax outputs (paper, Table 1).
        flip, scales: views of each image that a model's softmax is averaged over.
        limit: only so many images.
        streaming: read rows of the Hub as they are needed, in place of keeping the whole split.
        labels, system, device, dtype: as for `load`.
        batch_size: images that pass a network together, where they have one size.
        compile: compile the networks first (torch.compile), for many images of one size on a GPU; on a CPU it takes
            minutes and was not seen to pay off.
        edaps_void: count void pixels of panoptic maps as the data set's first class, as EDAPS's own evaluation does.
        examples: for so many images, on which the last model and the anchor differ most, a picture of what each
            model sees, in the report's `examples`.
        partial: the folder for partial results; one in the cache if None.

    Raises:
        DatasetError: if the data set cannot be read, or its classes not be matched with a model's.
        HfLwmmError: if a model cannot be loaded.
    """
    if not models:
        raise PlanError("Name at least one model to evaluate.")
    options: dict[str, Any] = {"labels": labels, "system": system, "device": device, "dtype": dtype}
    loaded = [m if isinstance(m, LoadedModel) else load(m, **options) for m in models]
    scored_models = [ScoredModel(name, (each,)) for name, each in zip(_names(loaded), loaded, strict=True)]
    if ensemble:
        scored_models.append(ScoredModel(f"ensemble of {len(loaded)}", tuple(loaded)))
    task = loaded[0].task
    columns = {"image_column": image_column, "label_column": label_column}
    images = open_images(dataset, split, config=config, ids=ids, task=task, streaming=streaming, **columns)
    if images.task == "panoptic" and any(each.task == "semantic" for each in loaded):
        images = replace(images, task="semantic")  # its segments have classes
    for each in loaded:
        _check_task(each, images, ensemble)
    if limit is not None:
        images = replace(images, count=min(limit, images.count))
    space, chosen, notes = scored_classes(images, loaded[0], protocol)
    tables = [match_classes(each.members[0].classes, space, each.name, images.name) for each in scored_models]
    raw = label_set_of_ids(images.ids).table(images.ids) if images.ids else None
    views = all_views(flip, tuple(scales))
    _check_options(images, views, edaps_void)
    setting = ScoringPlan(scored_models, tables, images.task, images.name, space, raw, views, 0 if edaps_void else None)
    if compile:
        _compile(loaded)
    data = (str(dataset), config, image_column, label_column, images.name, images.count, images.ids, images.identity)
    key = _key(setting, [*data, dtype, batch_size])
    folder = Path(partial) if partial is not None else _cache()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    started = time.perf_counter()
    path = folder / f"{key}-{rank}-of-{world}.npz"
    own, fresh = _score(images, setting, images.part(rank, world, batch_size), path, progress)
    tallies = _gather(own, rank, world)
    with contextlib.suppress(OSError):
        path.unlink()  # a finished run is counted anew the next time: the data may have changed
    if tallies is None:
        return None
    counts, differs, confusion = _joined(tallies, images.count)
    rate = fresh * world / max(time.perf_counter() - started, 1e-9)
    notes += [note for each in loaded for note in each.notes]
    notes += _unknown_classes(scored_models, space, chosen)
    notes += _rare(confusion, images.ids)
    names = [scored_model.name for scored_model in scored_models]
    found = report(METRICS[images.task], images.name, names, counts, space, chosen, protocol, rate, notes)
    if np.isnan(found.models[0].mean):
        raise DatasetError(f"{images.name}: has no labelled pixel or object of the classes that are scored.")
    last = len(loaded) - 1  # of the single models
    order = np.argsort(-differs[last], kind="stable")[:examples]
    shown = tuple(_example(images.read(int(index)), setting, float(differs[last, index])) for index in order)
    return replace(found, commit=images.commit, confusion=_chosen(confusion, chosen), examples=shown)


def _example(sample: Sample, setting: ScoringPlan, differs: float) -> Example:
    return Example(sample.name, differs, draw_example(sample, setting))


def _chosen(confusion: NDArray[np.int64] | None, chosen: Sequence[int]) -> NDArray[np.int64] | None:
    """The protocol's classes of confusions, in the last column the pixels that were taken for any other."""
    if confusion is None:
        return None
    rows = confusion[:, list(chosen)]
    square = rows[..., list(chosen)]
    return np.concatenate([square, rows.sum(axis=-1, keepdims=True) - square.sum(axis=-1, keepdims=True)], axis=-1)


def _compile(loaded: Sequence[LoadedModel]) -> None:
    import torch

    # A machine without a C++ compiler, or a network that cannot be compiled, goes on as without.
    torch._dynamo.config.suppress_errors = True
    for each in loaded:
        each.model.compile()


def _check_options(images: LabelledImages, views: Sequence[View], edaps_void: bool) -> None:
    if images.task in ("panoptic", "detection") and len(views) > 1:
        raise PlanError("--flip and --scales average class probabilities; segments and boxes have none to average.")
    if edaps_void and images.task != "panoptic":
        raise PlanError(f"--edaps-void is about panoptic maps; {images.name} has {images.task} labels.")


def _check_task(loaded: LoadedModel, images: LabelledImages, ensemble: bool) -> None:
    if images.task == "semantic" and loaded.task == "panoptic":
        return  # a panoptic network has a semantic head
    if loaded.task != images.task:
        raise DatasetError(f"{images.name}: has {images.task} labels, but {loaded.label} is a {loaded.task} network.")
    if images.task in ("panoptic", "detection") and ensemble:
        what = "panoptic maps" if images.task == "panoptic" else "boxes"
        raise PlanError(f"--ensemble averages class probabilities, which {what} do not have.")


def _names(loaded: Sequence[LoadedModel]) -> list[str]:
    """The models' labels, numbered where they would be the same."""
    labels = [each.label for each in loaded]
    return [f"{label} ({index + 1})" if labels.count(label) > 1 else label for index, label in enumerate(labels)]


def scored_classes(
    images: LabelledImages, first: LoadedModel, protocol: str | None
) -> tuple[tuple[str, ...], list[int], list[str]]:
    """The classes that ids stand for, which of them are scored, and what was assumed.

    Raises:
        DatasetError: if the protocol has a class that the data set lacks.
    """
    notes: list[str] = []
    wanted = read_label_set(protocol) if protocol else None
    if images.ids is not None:
        space = label_set_of_ids(images.ids).classes
    elif images.classes is not None:
        space = images.classes
    elif wanted is not None:
        space = label_sets()["cityscapes19"].classes if wanted.name in PARTS_OF_CITYSCAPES else wanted.classes
    else:
        space = first.classes
        notes.append(f"{images.name}: does not name its classes; its ids were taken for {first.label}'s (--protocol)")
    if wanted is None:
        return space, list(range(len(space))), notes
    rows = {normalise(name): index for index, name in enumerate(space)}
    if lacking := [name for name in wanted.classes if normalise(name) not in rows]:
        raise DatasetError(f"{images.name}: has no class {lacking[0]!r}, which the protocol {wanted.name} scores.")
    return space, [rows[normalise(name)] for name in wanted.classes], notes


def _unknown_classes(scored_models: Sequence[ScoredModel], space: Sequence[str], chosen: Sequence[int]) -> list[str]:
    """Which scored classes a model does not know at all; they score 0."""
    notes = []
    for scored_model in scored_models:
        known = {meaning(name) for member in scored_model.members for name in member.classes}
        if lacking := [space[index] for index in chosen if meaning(space[index]) not in known]:
            notes.append(f"{scored_model.name}: has no class named {', '.join(lacking)}, so these score 0")
    return notes


def _rare(confusion: NDArray[np.int64] | None, ids: str | None) -> list[str]:
    """Raw ids that may be those of another scheme."""
    if ids is None or confusion is None:
        return []
    occur, classes = int(confusion[0].any(axis=1).sum()), confusion.shape[1]
    if 2 * occur >= classes:
        return []
    return [
        f"only {occur} of {classes} classes occur in the labels, which were read as raw ids of {ids}; if they hold "
        "class ids or other raw ones, --ids is wrong"
    ]


@dataclass
class _Tally:
    """What a process has counted so far: scores by the images' numbers, their confusions already summed."""

    counts: dict[int, NDArray[Any]] = field(default_factory=dict)
    differs: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None

    def add(self, index: int, outcome: ImageScores) -> None:
        self.counts[index], self.differs[index] = outcome.counts, outcome.differs
        if outcome.confusion is not None:
            self.confusion = outcome.confusion if self.confusion is None else self.confusion + outcome.confusion

    @classmethod
    def read(cls, path: Path) -> _Tally:
        """What a killed run left, nothing if it left nothing."""
        if not path.is_file():
            return cls()
        with np.load(path) as stored:
            index = stored["index"].tolist()
            counts = np.split(stored["counts"], np.cumsum(stored["rows"])[:-1], axis=1)
            confusion = stored["confusion"] if stored["confusion"].size else None
            return cls(
                dict(zip(index, counts, strict=True)), dict(zip(index, stored["differs"], strict=True)), confusion
            )

    def write(self, path: Path) -> None:
        """Keep it for another run; a file under this name is whole."""
        if not self.counts:
            return
        counts = list(self.counts.values())
        arrays: dict[str, Any] = {
            "index": np.array([*self.counts]),
            "counts": np.concatenate(counts, axis=1),
            "rows": np.array([each.shape[1] for each in counts]),
            "differs": np.stack([*self.differs.values()]),
            "confusion": np.empty(0) if self.confusion is None else self.confusion,
        }
        with contextlib.suppress(OSError):  # no place to keep it costs no more than the chance to go on after a kill
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}")
            with part.open("wb") as file:
                np.savez_compressed(file, **arrays)
            part.replace(path)


def _score(
    images: LabelledImages, setting: ScoringPlan, part: Sequence[range], path: Path, progress: Progress
) -> tuple[_Tally, int]:
    """The tally of a process's batches, and how many images were scored now."""
    tally = _Tally.read(path)
    left = [batch for batch in part if batch[0] not in tally.counts]
    total, fresh, kept = sum(map(len, part)), 0, time.monotonic()
    progress("Evaluating", len(tally.counts), total)
    try:
        for batch, samples in _read_ahead(images, left):
            for index, outcome in zip(batch, score(samples, setting), strict=True):
                tally.add(index, outcome)
            fresh += len(batch)
            progress("Evaluating", len(tally.counts), total)
            if time.monotonic() - kept > _KEEP_EVERY:  # against being killed outright
                tally.write(path)
                kept = time.monotonic()
    finally:
        tally.write(path)
    return tally, fresh


def _read_ahead(images: LabelledImages, batches: Sequence[range]) -> Iterator[tuple[range, list[Sample]]]:
    """Batches with their samples, the next of which are read while one is scored."""

    def read(batch: range) -> list[Sample]:
        return [images.read(index) for index in batch]

    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(read, batch) for batch in batches[:1]]
        for place, batch in enumerate(batches):
            samples = coming.pop().result()
            coming += [pool.submit(read, following) for following in batches[place + 1 : place + 2]]
            yield batch, samples


def _joined(
    tallies: Sequence[_Tally], count: int
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.int64] | None]:
    """Counts (models, images, rows, K) and differences (models, images) in the images' order; the confusions' sum."""
    counts = {index: each for tally in tallies for index, each in tally.counts.items()}
    differs = {index: each for tally in tallies for index, each in tally.differs.items()}
    confusions = [tally.confusion for tally in tallies if tally.confusion is not None]
    rows = padded([counts[index] for index in range(count)], axis=1).swapaxes(0, 1)
    confusion = np.sum(confusions, axis=0) if confusions else None
    return rows, np.stack([differs[index] for index in range(count)], axis=1), confusion


def _key(setting: ScoringPlan, facts: Sequence[Any]) -> str:
    """What tells this evaluation from any other, for partial results."""
    models = [scored_model.identity for scored_model in setting.scored_models]
    views = [[view.scale, view.mirrored] for view in setting.views]
    text = json.dumps([__version__, models, list(setting.space), views, setting.void, *facts])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _cache() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf-lwmm" / "evaluations"


def _gather(own: _Tally, rank: int, world: int) -> list[_Tally] | None:
    """All processes' tallies in the first process, None in the others."""
    if world == 1:
        return [own]
    import torch.distributed as dist

    started = not dist.is_initialized()
    if started:
        dist.init_process_group("gloo")
    parts: list[Any] = [None] * world
    dist.gather_object(own, parts if rank == 0 else None)
    if started:
        dist.destroy_process_group()
    return parts if rank == 0 else None
