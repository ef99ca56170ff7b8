"""Read samples and prepare them for networks, in threads that run ahead of the networks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.data.annotations import Boxes, PanopticMap
from hf_lwmm.data.samples import LabelledImages, Sample
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation.numbering import label_ids
from hf_lwmm.evaluation.pictures import Picture
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.evaluation.scoring_plan import ScoringPlan
from hf_lwmm.labels import LabelIds


@dataclass(frozen=True)
class PreparedSample:
    """A sample as the networks of a plan and the metric take it.

    `label` is a (height, width) array of class ids of the data set, `IGNORE` where it has none, or the class id of the
    whole image.
    """

    index: int
    name: str
    picture: Picture = field(repr=False)
    label: NDArray[np.integer[Any]] | int = field(repr=False)
    segments: PanopticMap | None = field(default=None, repr=False)
    boxes: Boxes | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        """The size of pixels and labels in memory, in bytes."""
        runs = [] if self.segments is None else [self.segments.runs.ends, self.segments.runs.ids]
        arrays = [*runs, *([] if isinstance(self.label, int) else [self.label])]
        return self.picture.nbytes + sum(array.nbytes for array in arrays)


@dataclass
class SampleCache:
    """Memory for several evaluations of the same images: how their labels are numbered, and prepared samples.

    These are the first ones, as many as `size` bytes take.
    """

    size: int = 0
    _kept: dict[tuple[str, str, int], PreparedSample] = field(default_factory=dict, repr=False)
    _used: int = field(default=0, repr=False)
    _ids: dict[object, tuple[LabelIds, tuple[str, ...]]] = field(default_factory=dict, repr=False)

    def label_ids(self, images: LabelledImages, classes: ScoredClasses) -> tuple[LabelIds, tuple[str, ...]]:
        """Return the ids in the labels of images, and notes. Raises DatasetError, as `numbering.label_ids`."""
        key = (images.name, images.identity, images.count, images.task, classes)
        if key not in self._ids:
            self._ids[key] = label_ids(images, classes)
        return self._ids[key]

    def get(self, plan: ScoringPlan, index: int) -> PreparedSample | None:
        """Return the sample with a number, if it is here as a plan takes it."""
        return self._kept.get((plan.dataset, plan.preparation, index))

    def keep(self, plan: ScoringPlan, sample: PreparedSample) -> None:
        """Keep a sample, if there is room for it."""
        if self._used + sample.nbytes <= self.size:
            self._kept[plan.dataset, plan.preparation, sample.index] = sample
            self._used += sample.nbytes


def prepare(sample: Sample, plan: ScoringPlan) -> PreparedSample:
    """Prepare a sample for all networks and views of a plan.

    Raises:
        DatasetError: if its label does not fit its image, or has an id that stands for nothing, or an image processor
            fails on it.
    """
    if plan.task in ("semantic", "panoptic"):
        sample.check_size(plan.dataset)
    label = sample.label
    if plan.task == "semantic":
        label = plan.ids.class_ids(np.asarray(label), sample.label_place(plan.dataset))
    name = f"{plan.dataset}, {sample.name}"
    try:
        picture = Picture.of(sample.image, (each for model in plan.models for each in model.members), plan.views, name)
    except PlanError as error:
        raise DatasetError(f"{name}: {error}") from None
    return PreparedSample(sample.index, sample.name, picture, label, sample.segments, sample.boxes)


@dataclass(frozen=True)
class Reader:
    """The way in which the samples of a data set are read: by some threads, and through a cache."""

    images: LabelledImages
    threads: int
    cache: SampleCache

    def read(self, batches: Sequence[range], plan: ScoringPlan) -> Iterator[tuple[range, list[PreparedSample]]]:
        """Return batches of prepared samples, in order; while one is scored, the next are read.

        No more are read ahead than one batch, and one sample for each thread.

        Raises:
            HfLwmmError: where a sample that cannot be read or prepared has its place.
        """
        threads = 1 if self.images.streamed else self.threads
        left = iter([index for batch in batches for index in batch])
        coming: deque[PreparedSample | Future[PreparedSample]] = deque()
        pool = ThreadPoolExecutor(threads, "reader")

        def begin(index: int) -> None:
            coming.append(self.cache.get(plan, index) or pool.submit(self._prepared, index, plan))

        def take() -> PreparedSample:
            first = coming.popleft()
            found = first.result() if isinstance(first, Future) else first
            if isinstance(first, Future):
                self.cache.keep(plan, found)
            for index in islice(left, 1):
                begin(index)
            return found

        try:
            for index in islice(left, threads + max(map(len, batches), default=1)):
                begin(index)
            for batch in batches:
                yield batch, [take() for _ in batch]
        finally:
            pool.shutdown(cancel_futures=True)

    def _prepared(self, index: int, plan: ScoringPlan) -> PreparedSample:
        return prepare(self.images.read(index), plan)
