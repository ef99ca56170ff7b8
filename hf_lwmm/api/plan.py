"""From references to a plan, first from headers alone, then over checkpoints whose weights can be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint, with_labels
from hf_lwmm.errors import PlanError
from hf_lwmm.hub.refs import ModelRef, Ref, parse_ref
from hf_lwmm.labels import read_label_set
from hf_lwmm.planning.permutation import match_units, permuted_checkpoint
from hf_lwmm.planning.plan import Knobs, MergePlan, make_plan
from hf_lwmm.planning.provenance import Tuning
from hf_lwmm.progress import Progress


@contextlib.contextmanager
def planned(
    models: Sequence[Ref],
    anchor: Ref | int | None,
    knobs: Knobs,
    base: Ref | None = None,
    statistics: Sequence[Ref] = (),
    tuning: Tuning | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Iterator[MergePlan]:
    """The plan of a merge, made from headers alone.

    Raises:
        HfLwmmError: if a model cannot be read, or they cannot be merged so.
    """
    refs = read_models(models)
    index = anchor if isinstance(anchor, int) else anchor_index(refs, anchor)
    others = [parse_ref(ref) for ref in ([base] if base else []) + list(statistics)]
    opened: list[Checkpoint] = []
    try:
        for done, ref in enumerate((*refs, *others)):
            progress("Reading headers", done, len(refs) + len(others))
            branch = knobs.branch if done < len(refs) else "student"
            opened.append(open_checkpoint(hub.resolve(ref), branch=branch, headers_only=True))
        checkpoints, rest = _labelled(opened[: len(refs)], knobs), opened[len(refs) :]
        yield make_plan(checkpoints, index, knobs, rest[0] if base else None, rest[1:] if base else rest, tuning)
    finally:
        for checkpoint in opened:
            checkpoint.close()


def _labelled(checkpoints: Sequence[Checkpoint], knobs: Knobs) -> list[Checkpoint]:
    sets = [read_label_set(labels) for labels in knobs.labels]
    labelled = [with_labels(checkpoint, sets) for checkpoint in checkpoints]
    for labels in sets:
        if all(checkpoint.classes != labels.classes for checkpoint in labelled):
            raise PlanError(
                f"--labels {labels.name} ({len(labels.classes)} classes) fits no model: none has a classifier with as "
                "many rows and no class names of its own. `hf-lwmm inspect` shows them."
            )
    return labelled


@contextlib.contextmanager
def with_weights(decided: MergePlan, progress: Progress) -> Iterator[MergePlan]:
    """The same plan over checkpoints whose weights can be read, downloaded only now that the plan holds."""
    opened: list[Checkpoint] = []
    try:
        for done, checkpoint in enumerate(decided.sources):
            progress("Fetching weights", done, len(decided.sources))
            if checkpoint.reader is None:
                # The classes that the plan was made with, which may come from --labels.
                branch = decided.knobs.branch if done < len(decided.checkpoints) else "student"
                checkpoint = replace(open_checkpoint(checkpoint.source, branch=branch), classes=checkpoint.classes)
            opened.append(checkpoint)
        count = len(decided.checkpoints)
        base, statistics = (opened[count], opened[count + 1 :]) if decided.base else (None, opened[count:])
        ready = replace(decided, checkpoints=tuple(opened[:count]), base=base, statistics=tuple(statistics))
        yield _permuted(ready, progress) if ready.permutes else ready
    finally:
        for checkpoint in opened:
            checkpoint.close()


def _permuted(ready: MergePlan, progress: Progress) -> MergePlan:
    """The plan over models whose units stand where the anchor's do."""
    shared = [slot.slot for slot in ready.alignment.shared]
    checkpoints = list(ready.checkpoints)
    for index, checkpoint in enumerate(checkpoints):
        progress("Matching units", index, len(checkpoints))
        if index == ready.alignment.anchor:
            continue
        matching = match_units(ready.anchor, checkpoint, shared)
        checkpoints[index] = permuted_checkpoint(checkpoint, matching)
    return replace(ready, checkpoints=tuple(checkpoints))


def read_models(models: Sequence[Ref]) -> list[ModelRef]:
    """The references of the models to merge. Raises PlanError for fewer than two."""
    if len(models) < 2:
        raise PlanError("Merging needs at least two models. Name them all: hf-lwmm merge org/a org/b --anchor org/a")
    return [parse_ref(model) for model in models]


def anchor_index(refs: Sequence[ModelRef], anchor: Ref | None) -> int:
    """Which of the models the anchor is, the first if none is named. Raises PlanError if it is none, or several."""
    if anchor is None:
        return 0
    wanted = parse_ref(anchor)
    exact = [i for i, ref in enumerate(refs) if ref == wanted or str(ref) == str(wanted)]
    loose = [i for i, ref in enumerate(refs) if wanted.repo_id and ref.repo_id == wanted.repo_id]
    found = exact or (loose if wanted.revision is None and not wanted.files else [])
    if not found:
        raise PlanError(f"The anchor {anchor} is not among the models: {', '.join(map(str, refs))}.")
    if not exact and len(found) > 1:
        raise PlanError(f"The anchor {anchor} fits several models; give it as it stands among them, with its revision.")
    return found[0]
