"""Score networks on a labelled data set in one pass, shared among processes and resumed where a run was killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm._version import __version__
from hf_lwmm.data.groups import group_notes, groups_of
from hf_lwmm.data.loading import open_images
from hf_lwmm.data.samples import LabelledImages
from hf_lwmm.errors import DatasetError, PlanError, keeping, noting
from hf_lwmm.evaluation.examples import draw_example
from hf_lwmm.evaluation.per_image import score
from hf_lwmm.evaluation.pictures import all_views
from hf_lwmm.evaluation.protocols import ScoredClasses, doubtful_ids, scored_classes, unknown_classes
from hf_lwmm.evaluation.reading import Reader, SampleCache
from hf_lwmm.evaluation.report import EvaluationReport, Example, report
from hf_lwmm.evaluation.scoring_plan import ScoredModel, ScoringPlan
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.evaluation.tally import Tally, Totals, join
from hf_lwmm.evaluation.task_metrics import METRICS
from hf_lwmm.labels import LabelIds, match_classes
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.planning.images import ImageSource
from hf_lwmm.progress import Progress, silent

SCORES_KEPT = "what was scored is kept, and the same command goes on from there"  # after Ctrl-C
_KEEP_EVERY = 20.0  # seconds between two writes of the partial result


def evaluate(
    models: Sequence[LoadedModel],
    images: ImageSource | LabelledImages,
    spec: EvaluationSpec = EvaluationSpec(),
    *,
    parents: int | None = None,
    partial: Path | None = None,
    cache: SampleCache | None = None,
    progress: Progress = silent,
) -> EvaluationReport | None:
    """Score networks on a split of a data set; the first is the anchor that the others are compared with.

    Merges and the ensemble are also compared with the best parent.

    Under `accelerate launch` or `torchrun` every process scores its part of the images. A run that was killed goes on
    where it stopped.

    Args:
        models: the networks. The task of the first decides which of several kinds of labels are read.
        images: the data set, which may be open already; the split is validation if it names none.
        spec: which classes are scored, on which views of the images, and what is drawn.
        parents: how many of the models, from the first on, are the parents of the rest; if None, those that do not say
            of themselves that they are merges.
        partial: the folder for partial results; one in the cache if None.
        cache: the samples that earlier evaluations of these images kept in memory, and that this one keeps for others.
        progress: called with the number of images that are done.

    Returns:
        The report; None in all processes but the first.

    Raises:
        DatasetError: if the data set cannot be read, or its classes not be matched with those of a network.
        PlanError: if there is no network, or the specification makes no sense for the task.
    """
    if not models:
        raise PlanError("Name at least one model to evaluate.")
    opened = images if isinstance(images, LabelledImages) else open_images(images, task=models[0].task)
    if opened.task == "panoptic" and any(each.task == "semantic" for each in models):
        opened = replace(opened, task="semantic")  # the classes of the segments make class maps
    _check(models, opened, spec)
    groups = groups_of(opened, spec.groups)
    scored = _scored_models(models, spec.ensemble)
    classes, notes = scored_classes(opened, models, spec.protocol)
    cache = cache or SampleCache()
    ids, assumed = cache.label_ids(opened, classes)
    plan = _scoring_plan(scored, opened, classes, ids, spec)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    path = (partial or _cache()) / f"{_key(plan, opened, spec)}-{rank}-of-{world}.npz"
    started = time.perf_counter()
    with keeping(SCORES_KEPT):
        batches = opened.part(rank, world, spec.batch_size)
        own, fresh = _score(plan, batches, Reader(opened, spec.threads, cache), path, progress)
    tallies = _gather(own, rank, world)
    with contextlib.suppress(OSError):
        path.unlink()  # a finished run is counted again the next time: the data may have changed
    if tallies is None:
        return None
    totals = join(tallies, opened.count)
    rate = fresh * world / max(time.perf_counter() - started, 1e-9)
    found = report(
        METRICS[opened.task],
        opened.name,
        [each.name for each in scored],
        totals.counts,
        classes,
        kinds=_kinds(scored, parents),
        groups=groups,
    )
    if np.isnan(found.models[0].mean):
        raise DatasetError(f"{opened.name}: has no labelled pixel or object of the classes that are scored.")
    every_note = [
        *notes,
        *assumed,
        *group_notes(opened, spec.groups),
        *(note for each in models for note in each.notes),
        *((*_other_than_recipes(models), *_parents_left_out(models)) if parents is None else ()),
        *unknown_classes(scored, classes),
    ]
    others = range(parents or 1, len(models))
    best = max(others, key=lambda place: np.nan_to_num(found.models[place].mean, nan=-1), default=0)
    examples, undrawn = _examples(opened, plan, totals, other=best, count=spec.examples)
    return replace(
        found,
        images_per_second=rate,
        notes=(*every_note, *doubtful_ids(totals.confusion, opened.ids), *undrawn),
        commit=opened.commit,
        confusion=_chosen(totals.confusion, classes.rows),
        examples=examples,
    )


def _check(models: Sequence[LoadedModel], images: LabelledImages, spec: EvaluationSpec) -> None:
    """Refuse networks of another task than the labels, and options that the task has no use for."""
    for each in models:
        if each.task != images.task and (each.task, images.task) != ("panoptic", "semantic"):  # it has a semantic head
            raise DatasetError(f"{images.name}: has {images.task} labels, but {each.label} is a {each.task} network.")
    if images.task in ("panoptic", "detection"):
        if spec.ensemble:
            what = "panoptic maps" if images.task == "panoptic" else "boxes"
            raise PlanError(f"--ensemble averages class probabilities, which {what} do not have.")
        if spec.flip or len(spec.scales) > 1:
            raise PlanError("--flip and --scales average class probabilities; segments and boxes have none to average.")
    if spec.edaps_void and images.task != "panoptic":
        raise PlanError(f"--edaps-void is about panoptic maps; {images.name} has {images.task} labels.")


def _scored_models(models: Sequence[LoadedModel], ensemble: bool) -> list[ScoredModel]:
    """Each network by its label, numbered where several have the same, and last the ensemble of all."""
    labels = [each.label for each in models]
    names = [f"{label} ({index + 1})" if labels.count(label) > 1 else label for index, label in enumerate(labels)]
    singles = [ScoredModel(name, (each,)) for name, each in zip(names, models, strict=True)]
    return singles + ([ScoredModel(f"ensemble of {len(models)}", tuple(models))] if ensemble else [])


def _kinds(models: Sequence[ScoredModel], parents: int | None) -> list[str]:
    """The kind of each model: a single model, a merge or an ensemble."""
    kinds = []
    for place, each in enumerate(models):
        merged = each.members[0].is_merge if parents is None else place >= parents
        kinds.append("ensemble" if len(each.members) > 1 else "merge" if merged else "model")
    return kinds


def _other_than_recipes(models: Sequence[LoadedModel]) -> list[str]:
    """Notes on models that are not the merges that recipes beside them make."""
    claims = [(each.label, each.claim.fault) for each in models if each.claim is not None]
    return [f"{label}: {fault}, so it was not compared as that merge" for label, fault in claims if fault]


def _parents_left_out(models: Sequence[LoadedModel]) -> list[str]:
    """Notes on merges of more models than stand beside them, of which the best one may be missing."""
    singles = sum(not each.is_merge for each in models)
    counts = {
        each.label: len(each.claim.recipe.models)
        for each in models
        if singles and each.is_merge and each.claim is not None and each.claim.recipe is not None
    }
    were = "was" if singles == 1 else "were"
    what = f"of which at most {singles} {were} scored: a parent that is missing may be better"
    return [f"{label}: merges {count} models, {what}" for label, count in counts.items() if count > singles]


def _scoring_plan(
    models: Sequence[ScoredModel],
    images: LabelledImages,
    classes: ScoredClasses,
    ids: LabelIds,
    spec: EvaluationSpec,
) -> ScoringPlan:
    return ScoringPlan(
        models=models,
        tables=[match_classes(each.members[0].classes, classes.every, each.name, images.name) for each in models],
        task=images.task,
        dataset=images.name,
        classes=classes.every,
        ids=ids,
        views=all_views(spec.flip, spec.scales),
        void=0 if spec.edaps_void else None,
    )


def _examples(
    images: LabelledImages, plan: ScoringPlan, totals: Totals, *, other: int, count: int
) -> tuple[tuple[Example, ...], list[str]]:
    """Drawings of the images on which another model and the anchor differ most, and notes on those not drawn."""
    differs, examples, undrawn = totals.differs[other], list[Example](), list[str]()
    for index in np.argsort(-differs, kind="stable")[:count].tolist():
        sample = images.read(index)
        with noting(f"{sample.name} was not drawn", undrawn):
            drawn, out = draw_example(sample, plan, other), images.leads_out(sample)
            examples.append(Example(sample.name, float(differs[index]), drawn, out))
    return tuple(examples), undrawn


def _chosen(confusion: NDArray[np.int64] | None, rows: Sequence[int]) -> NDArray[np.int64] | None:
    """The confusion of the scored classes, whose last column counts the pixels that were taken for any other."""
    if confusion is None:
        return None
    scored = confusion[:, list(rows)]
    square = scored[..., list(rows)]
    return np.concatenate([square, scored.sum(axis=-1, keepdims=True) - square.sum(axis=-1, keepdims=True)], axis=-1)


def _score(
    plan: ScoringPlan, part: Sequence[range], reader: Reader, path: Path, progress: Progress
) -> tuple[Tally, int]:
    """The tally of a process's batches, and how many images were scored in this run."""
    tally = Tally.read(path)
    left = [batch for batch in part if batch[0] not in tally.counts]
    total, fresh, kept = sum(map(len, part)), 0, time.monotonic()
    progress("Evaluating", len(tally.counts), total)
    try:
        for batch, samples in reader.read(left, plan):
            for index, scores in zip(batch, score(samples, plan), strict=True):
                tally.add(index, scores)
            fresh += len(batch)
            progress("Evaluating", len(tally.counts), total)
            if time.monotonic() - kept > _KEEP_EVERY:  # against being killed outright
                tally.write(path)
                kept = time.monotonic()
    finally:
        tally.write(path)
    return tally, fresh


def _key(plan: ScoringPlan, images: LabelledImages, spec: EvaluationSpec) -> str:
    """A name for the partial results of this evaluation, which no other evaluation has."""
    models = [each.identity for each in plan.models]
    views = [[view.scale, view.mirrored] for view in plan.views]
    source = images.source
    columns = (
        [source.data, source.config, source.image_column, source.label_column, source.ignore_index] if source else []
    )
    data = [*columns, images.name, images.count, plan.ids.scheme, images.identity]
    text = json.dumps([__version__, models, list(plan.classes), views, plan.void, data, spec.batch_size])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _cache() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf-lwmm" / "evaluations"


def _gather(own: Tally, rank: int, world: int) -> list[Tally] | None:
    """The tallies of all processes in the first process, None in the others."""
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
