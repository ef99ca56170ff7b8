"""Where candidates are scored: every model opened once, a network for each anchor, its weights replaced each time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint, with_labels
from hf_lwmm.data.loading import open_images
from hf_lwmm.engine.streaming import write_merged
from hf_lwmm.errors import DatasetError, LayoutError, PlanError
from hf_lwmm.evaluation.evaluate import evaluate, scored_classes
from hf_lwmm.evaluation.report import EvaluationReport
from hf_lwmm.hub.refs import ModelRef, parse_ref
from hf_lwmm.labels import read_label_set
from hf_lwmm.metrics.ratios import Values
from hf_lwmm.networks.loading import LoadedModel, load
from hf_lwmm.networks.module_slots import fill
from hf_lwmm.planning.permutation import Matching, match_units, permuted_checkpoint
from hf_lwmm.planning.plan import Knobs, MergePlan, make_plan
from hf_lwmm.sweeping.grid import Candidate

_MEMORY = Path("/dev/shm")
_OF_IMAGES = ("split", "config", "image_column", "label_column", "ids", "streaming")
_OF_NETWORK = ("config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class SweepSetup:
    """All that a process needs to score candidates: references, the data, and options of `load` and `evaluate`."""

    models: tuple[ModelRef, ...]
    base: ModelRef | None
    statistics: tuple[ModelRef, ...]
    dataset: str
    loading: Mapping[str, Any]
    evaluation: Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """What a candidate got right: the metric's counts (images, rows, K), and the seconds of merging and scoring."""

    candidate: Candidate
    counts: Values = field(repr=False)
    seconds: float
    task: str
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """The data that all candidates are scored on.

    `space` are the classes of the data set's ids, `chosen` those of them that are scored; `identity` changes where the
    data do.
    """

    name: str
    images: int
    identity: str
    commit: str | None
    space: tuple[str, ...]
    chosen: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.space[row] for row in self.chosen)


class CandidateScorer:
    """Opened models, and networks built so far. Use it as a context."""

    def __init__(self, setup: SweepSetup) -> None:
        self.setup = setup
        self._networks: dict[int, LoadedModel] = {}
        self._replaceable: dict[int, bool] = {}
        self._matchings: dict[tuple[int, int, tuple[str, ...]], Matching] = {}
        branch = setup.loading.get("branch", "student")
        sets = [read_label_set(labels) for labels in setup.loading.get("labels", ())]
        self._opened: list[Checkpoint] = []
        try:
            self.models = [with_labels(self._open(ref, branch), sets) for ref in setup.models]
            self.base = self._open(setup.base) if setup.base else None
            self.statistics = [self._open(ref) for ref in setup.statistics]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> CandidateScorer:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        for checkpoint in self._opened:
            checkpoint.close()

    def _open(self, ref: ModelRef, branch: str = "student") -> Checkpoint:
        self._opened.append(open_checkpoint(hub.resolve(ref), branch=branch))
        return self._opened[-1]

    def plan(self, candidate: Candidate) -> MergePlan:
        """The plan of a merge.

        Raises:
            HfLwmmError: if there is no such merge.
        """
        knobs = Knobs(**candidate.knobs)
        needs = knobs.merge_method().needs
        plan = make_plan(
            [self.models[model] for model in candidate.models],
            candidate.models.index(candidate.anchor),
            knobs,
            self.base if "base" in needs else None,
            [self.statistics[m] for m in candidate.models] if self.statistics and needs & {"fisher", "grams"} else [],
        )
        if plan.undecided or knobs.bn == "recalibrate":
            what = f"--bn {knobs.bn}" if knobs.bn == "recalibrate" else f"--method {plan.method.name}"
            raise PlanError(f"{what} needs images of its own; merge with it, and score the result with evaluate.")
        return plan

    def data(self) -> Data:
        """The data set, as the first model sees it.

        Raises:
            DatasetError: if it cannot be read.
        """
        options = {name: value for name, value in self.setup.evaluation.items() if name in _OF_IMAGES}
        first = self.network(0)
        images = open_images(self.setup.dataset, task=first.task, **options)
        limit = self.setup.evaluation.get("limit")
        space, chosen, notes = scored_classes(images, first, self.setup.evaluation.get("protocol"))
        count = images.count if limit is None else min(limit, images.count)
        return Data(images.name, count, images.identity, images.commit, tuple(space), tuple(chosen), tuple(notes))

    def network(self, model: int) -> LoadedModel:
        """The network of a model, built when it is first asked for; its weights are those last put there."""
        if model not in self._networks:
            found = load(self.setup.models[model], **self.setup.loading)
            try:
                fill(found.model, self.models[model])
                self._replaceable[model] = True
            except LayoutError:  # a network of transformers under names of its own
                self._replaceable[model] = False
            self._networks[model] = found
        return self._networks[model]

    def score(self, candidate: Candidate) -> Scored:
        """Merge a candidate, if it is a merge, and count what it gets right.

        Raises:
            HfLwmmError: a subclass; MergeError if it is this very merge that cannot be.
        """
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="hf-lwmm-", dir=self._workplace(candidate)) as name:
            folder = Path(name)
            if candidate.kind == "merge":
                networks: Sequence[LoadedModel] = [self._merged(candidate, folder)]
            else:
                networks = [self._own(model) for model in candidate.models]
            ensemble = candidate.kind == "ensemble"
            found = self._evaluate(networks, ensemble, folder)
        seconds = time.perf_counter() - started
        counts = found.counts[-1].astype(np.float64)
        return Scored(candidate, counts, seconds, found.metric.task, found.classes, found.notes)

    def _evaluate(self, networks: Sequence[LoadedModel], ensemble: bool, folder: Path) -> EvaluationReport:
        partial = folder / "partial"  # a killed candidate is begun anew
        found = evaluate(networks, self.setup.dataset, ensemble=ensemble, partial=partial, **self.setup.evaluation)
        if found is None:
            raise PlanError("A sweep spreads its candidates itself (--jobs, --ray); start it without torchrun.")
        return found

    def _own(self, model: int) -> LoadedModel:
        network = self.network(model)
        if self._replaceable[model]:
            fill(network.model, self.models[model])
        return network

    def _merged(self, candidate: Candidate, folder: Path) -> LoadedModel:
        plan, network = self._permuted(self.plan(candidate), candidate), self.network(candidate.anchor)
        (name,) = write_merged(plan, folder, max_shard_size=1 << 62)
        if self._replaceable[candidate.anchor]:
            merged = open_checkpoint(hub.resolve(parse_ref(folder / name)))
            try:
                fill(network.model, merged)
            finally:
                merged.close()
            return replace(network, name="merge")
        source = plan.anchor.source
        for name in _OF_NETWORK:
            if name in source.files:
                shutil.copy(hub.fetch(source, name), folder / name)
        return replace(load(folder, **self.setup.loading), name="merge")

    def _permuted(self, plan: MergePlan, candidate: Candidate) -> MergePlan:
        """The plan over models whose units stand where the anchor's do; they are matched once for each two models."""
        if not plan.permutes:
            return plan
        shared = tuple(slot.slot for slot in plan.alignment.shared)
        checkpoints = list(plan.checkpoints)
        for place, model in enumerate(candidate.models):
            if model == candidate.anchor:
                continue
            key = (candidate.anchor, model, shared)
            if key not in self._matchings:
                self._matchings[key] = match_units(plan.anchor, checkpoints[place], list(shared))
            checkpoints[place] = permuted_checkpoint(checkpoints[place], self._matchings[key])
        return replace(plan, checkpoints=tuple(checkpoints))

    def _workplace(self, candidate: Candidate) -> Path | None:
        """Shared memory, if the merge fits into half of what is left there; else the folder for temporary files."""
        size = sum(info.nbytes for info in self.models[candidate.anchor].tensors.values())
        return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 2 * size else None


def check_same(scored: Scored, task: str, data: Data) -> None:
    """Raises DatasetError if a candidate was not scored by the same metric and classes as the others."""
    if scored.task != task or scored.classes != data.classes:
        raise DatasetError(
            "The models name their classes differently and the data set does not name them, so their scores cannot be "
            "compared. --protocol says which classes the ids stand for."
        )
