"""Score candidates: every model is opened once, with a network for each anchor whose weights are replaced each time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hf_lwmm import hub
from hf_lwmm.calibration.merged_network import load_merged
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint, with_labels
from hf_lwmm.data.groups import Groups, group_notes, groups_of
from hf_lwmm.data.loading import open_images
from hf_lwmm.data.samples import LabelledImages
from hf_lwmm.engine.network_folder import write_network
from hf_lwmm.engine.write_options import WriteOptions
from hf_lwmm.errors import DatasetError, LayoutError, MergeError, OutputError, PlanError
from hf_lwmm.evaluation.evaluate import evaluate
from hf_lwmm.evaluation.protocols import ScoredClasses, scored_classes
from hf_lwmm.evaluation.reading import SampleCache
from hf_lwmm.evaluation.report import EvaluationReport
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.files.scratch import scratch_folder
from hf_lwmm.hub import ModelRef, parse_ref
from hf_lwmm.labels import read_label_set
from hf_lwmm.metrics.ratios import Values
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.networks.loading import load
from hf_lwmm.networks.module_slots import fill
from hf_lwmm.networks.tracing import traced_order
from hf_lwmm.planning.advice import Advice, advise, known_of
from hf_lwmm.planning.bn_distance import bn_distance
from hf_lwmm.planning.images import ImageSource
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.planning.permutation import Matching, permute_to_anchor
from hf_lwmm.planning.plan import MergePlan, make_plan
from hf_lwmm.planning.tensor_order import TensorOrder
from hf_lwmm.sweeping.grid import Candidate

_MEMORY = Path("/dev/shm")
_ONE_FILE = WriteOptions(max_shard_size=1 << 62)


@dataclass(frozen=True)
class SweepSetup:
    """All that a process needs to score candidates: references, images, and how networks are run and scored.

    `cache_bytes` is the memory for images that are read and prepared once.
    `target` is what the merges are for; only the advice rests on it.
    """

    models: tuple[ModelRef, ...]
    base: ModelRef | None
    measurements: tuple[ModelRef, ...]
    images: ImageSource
    network: NetworkOptions
    evaluation: EvaluationSpec
    cache_bytes: int = 0
    target: str | None = None


@dataclass(frozen=True)
class Scored:
    """A candidate's result.

    `counts` are the metric's, (images, rows, K) float64; `seconds` is the time of merging and scoring.
    """

    candidate: Candidate
    counts: Values = field(repr=False)
    seconds: float
    task: str
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepData:
    """The data that all candidates are scored on; `identity` is a text that changes when the data do.

    `groups` are the groups of images that intervals draw together, None for single images.
    """

    name: str
    images: int
    identity: str
    commit: str | None
    classes: ScoredClasses
    notes: tuple[str, ...] = ()
    groups: Groups | None = field(default=None, repr=False)

    @property
    def units(self) -> int:
        """The number of images, or of their groups, that intervals are over."""
        return self.groups.count if self.groups else self.images


class CandidateScorer:
    """The models of a sweep, opened, and the networks built so far. Use it as a context."""

    def __init__(self, setup: SweepSetup) -> None:
        self.setup = setup
        self._networks: dict[int, LoadedModel] = {}
        self._replaceable: dict[int, bool] = {}
        self._orders: dict[int, TensorOrder] = {}
        self._matchings: dict[tuple[str, ...], Matching] = {}
        self._images: dict[tuple[ImageSource, str], LabelledImages] = {}  # by their source and the networks' task
        self._cache = SampleCache(setup.cache_bytes)
        self._merges: dict[tuple[object, ...], EvaluationReport] = {}  # equal ones are scored once
        sets = [read_label_set(labels) for labels in setup.network.labels]
        self._opened: list[Checkpoint] = []
        try:
            names = hub.telling_names(setup.models)
            opened = [
                self._open(ref, setup.network.branch, name) for ref, name in zip(setup.models, names, strict=True)
            ]
            self.models = [with_labels(each, sets) for each in opened]
            self.base = self._open(setup.base) if setup.base else None
            self.measurements = [self._open(ref, None) for ref in setup.measurements]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> CandidateScorer:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for checkpoint in self._opened:
            checkpoint.close()

    def _open(self, ref: ModelRef, branch: str | None = "student", name: str = "") -> Checkpoint:
        self._opened.append(open_checkpoint(replace(hub.resolve(ref), name=name), branch=branch))
        return self._opened[-1]

    def plan(self, candidate: Candidate) -> MergePlan:
        """Return the plan of a merge.

        Raises:
            HfLwmmError: if there is no such merge.
        """
        assert candidate.knobs is not None
        method = candidate.knobs.method
        traced = self._traced(candidate.anchor) if candidate.knobs.order == "traced" else None
        return make_plan(
            [self.models[model] for model in candidate.models],
            candidate.models.index(candidate.anchor),
            candidate.knobs,
            self.base if "base" in method.needs else None,
            [self.measurements[model] for model in candidate.models] if self.measurements and method.measured else [],
            order=traced,
        )

    def _traced(self, anchor: int) -> TensorOrder:
        """The order in which the network of a model uses its slots."""
        if anchor not in self._orders:
            self._orders[anchor] = traced_order(self.models[anchor], self.setup.network)
        return self._orders[anchor]

    def advice(self) -> Advice:
        """Return how to merge all models, with the first as the anchor."""
        known = known_of(self.models, 0, self.setup.target, has_base=self.base is not None)
        return advise(replace(known, bn_distance=bn_distance(self.models, 0, self.models[0].slot_map.slots)))

    @property
    def labels(self) -> list[str]:
        """The models' labels, numbered where they would be the same."""
        labels = [model.label for model in self.models]
        return [f"{label} ({place + 1})" if labels.count(label) > 1 else label for place, label in enumerate(labels)]

    def data(self, source: ImageSource | None = None) -> SweepData:
        """Return the data set, with the classes of the first model and the numbering of ids that all models agree on.

        Args:
            source: other images than those of the sweep.

        Raises:
            DatasetError: if it cannot be read, or the models number its ids in different ways.
        """
        first = self.network(0)
        # Without such a model there is nothing to disagree about, and networks are built when they are first scored.
        reduces = any(model.reduces_labels for model in self.models)
        compared = [self.network(index) for index in range(len(self.models))] if reduces else [first]
        images = self._open_images(source or self.setup.images, first.task)
        spec = self.setup.evaluation
        classes, notes = scored_classes(images, compared, spec.protocol)
        groups, every_note = groups_of(images, spec.groups), (*notes, *group_notes(images, spec.groups))
        return SweepData(images.name, images.count, images.identity, images.commit, classes, every_note, groups)

    def _open_images(self, source: ImageSource, task: str) -> LabelledImages:
        if (source, task) not in self._images:
            self._images[source, task] = open_images(source, task=task)
        return self._images[source, task]

    def network(self, model: int) -> LoadedModel:
        """Return the network of a model, built when it is first asked for; its weights are those last put there."""
        if model not in self._networks:
            found = load(self.setup.models[model], self.setup.network)
            try:
                fill(found.model, self.models[model])
                self._replaceable[model] = True
            except LayoutError:  # a network of transformers under names of its own
                self._replaceable[model] = False
            self._networks[model] = found
        return self._networks[model]

    def score(self, candidate: Candidate, images: ImageSource | None = None) -> Scored:
        """Merge a candidate, if it is a merge, and count its hits and misses.

        Args:
            candidate: what to score.
            images: other images than those of the sweep.

        Raises:
            HfLwmmError: a subclass; MergeError if it is this very merge that cannot be, or that computes what is not
                finite.
        """
        started, source = time.perf_counter(), images or self.setup.images
        with scratch_folder(self._workplace(candidate)) as folder:
            if candidate.kind == "merge":
                network, content = self._merged(candidate, folder)
                key = (source, content, network.preparation, network.classes)
                if key not in self._merges:
                    try:
                        self._merges[key] = self._evaluate([network], source, False, folder)
                    except OutputError as error:
                        raise MergeError(str(error)) from None
                found = self._merges[key]
            else:
                networks = [self._own(model) for model in candidate.models]
                found = self._evaluate(networks, source, candidate.kind == "ensemble", folder)
        seconds = time.perf_counter() - started
        counts = found.counts[-1].astype(np.float64)
        return Scored(candidate, counts, seconds, found.metric.task, found.classes, found.notes)

    def _evaluate(
        self, networks: Sequence[LoadedModel], images: ImageSource, ensemble: bool, folder: Path
    ) -> EvaluationReport:
        spec = replace(self.setup.evaluation, ensemble=ensemble, examples=0, groups=None)
        # Partial results vanish with the folder: a killed candidate is begun again.
        opened = self._open_images(images, networks[0].task)
        found = evaluate(networks, opened, spec, partial=folder / "partial", cache=self._cache)
        if found is None:
            raise PlanError("A sweep spreads its candidates itself (--jobs, --ray); start it without torchrun.")
        return found

    def _own(self, model: int) -> LoadedModel:
        network = self.network(model)
        if self._replaceable[model]:
            fill(network.model, self.models[model])
        return network

    def _merged(self, candidate: Candidate, folder: Path) -> tuple[LoadedModel, str]:
        """The network of a merge, and the SHA-256 of its weights.

        It is the anchor's with other weights where it can take them, else one loaded for it.
        """
        plan, network = self._permuted(self.plan(candidate)), self.network(candidate.anchor)
        (name,) = write_network(plan, folder, writing=_ONE_FILE)
        content = hub.sha256(folder / name)
        if not self._replaceable[candidate.anchor]:
            return _named(load_merged(plan, folder, self.setup.network)), content
        merged = open_checkpoint(hub.resolve(parse_ref(folder / name)), branch=None)
        try:
            fill(network.model, merged)
        finally:
            merged.close()
        return _named(network), content

    def _permuted(self, plan: MergePlan) -> MergePlan:
        """The plan over models whose units stand where the anchor's do; they are matched once for each two models."""
        if not plan.permutes:
            return plan
        alignment = plan.alignment
        checkpoints = permute_to_anchor(plan.checkpoints, alignment.anchor, alignment.shared, self._matchings)
        return replace(plan, checkpoints=checkpoints)

    def _workplace(self, candidate: Candidate) -> Path | None:
        """Shared memory, if the merge fits into half of what is left there; else the folder for temporary files."""
        size = sum(info.nbytes for info in self.models[candidate.anchor].tensors.values())
        return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 2 * size else None


def _named(network: LoadedModel) -> LoadedModel:
    """The network of a merge under a name that no candidate has."""
    return replace(network, source=replace(network.source, name="merge"))


def check_same(scored: Scored, task: str, data: SweepData) -> None:
    """Refuse a candidate that was not scored by the same metric and classes as the others. Raises DatasetError."""
    if scored.task != task or scored.classes != data.classes.names:
        raise DatasetError(
            "The models name their classes differently and the data set does not name them, so their scores cannot be "
            "compared. --protocol says which classes the ids stand for."
        )
