"""Count the hits and misses of models in one image, and measure how far their predictions are from the anchor's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.data.annotations import Boxes, PanopticMap
from hf_lwmm.data.runs import Runs
from hf_lwmm.errors import DatasetError, MetricError, PlanError
from hf_lwmm.evaluation.inference import classify, detect, panoptic, segment
from hf_lwmm.evaluation.reading import PreparedSample
from hf_lwmm.evaluation.scoring_plan import ScoringPlan
from hf_lwmm.labels import IGNORE
from hf_lwmm.metrics.classification import classification_counts
from hf_lwmm.metrics.detection import detection_counts
from hf_lwmm.metrics.panoptic import panoptic_counts
from hf_lwmm.metrics.semantic import confusion, semantic_counts

ClassMap = NDArray[np.uint8]  # of the data set's classes
CONFIDENT = 0.5  # the least score of boxes that are drawn, and that count as found when models are compared


@dataclass(frozen=True)
class ImageScores:
    """The scores of all models in one image.

    `counts` (models, rows, K) are those of the metric. `differs` (models,) is how far the prediction of each model
    is from the anchor's: the fraction of the labelled pixels, 0 or 1 for the class of the image, or the difference in
    the number of boxes found. `confusion` (models, classes, classes + 1) counts the pixels of class maps by true and
    predicted class.
    """

    counts: NDArray[Any]
    differs: NDArray[np.float64]
    confusion: NDArray[np.int64] | None = None


def score(samples: Sequence[PreparedSample], plan: ScoringPlan) -> list[ImageScores]:
    """Return the scores of a batch of images.

    Raises:
        DatasetError: if a network cannot take an image, or a label is none.
    """
    if plan.task == "semantic":
        return _score_maps(samples, plan)
    if plan.task == "classification":
        return _score_images(samples, plan)
    one = {"panoptic": _score_segments, "detection": _score_boxes}[plan.task]
    scores = []
    for sample in samples:
        try:
            scores.append(one(sample, plan))
        except (MetricError, PlanError) as error:
            raise DatasetError(f"{plan.dataset}, {sample.name}: {error}") from None
    return scores


def class_maps(sample: PreparedSample, plan: ScoringPlan) -> list[ClassMap]:
    """Return each model's class map of a sample, in the size of its label and the classes of the data set."""
    return [maps[0] for maps in _class_maps([sample], plan)]


def _class_maps(samples: Sequence[PreparedSample], plan: ScoringPlan) -> list[list[ClassMap]]:
    """Each model's class maps, one for each sample."""
    pictures = [sample.picture for sample in samples]
    sizes = [(np.shape(sample.label)[0], np.shape(sample.label)[1]) for sample in samples]
    pairs = zip(plan.models, plan.tables, strict=True)
    found = []
    for model, table in pairs:
        maps = segment(model.members, pictures, sizes, plan.views)
        own = table[: len(model.members[0].classes)]
        same = np.array_equal(own, np.arange(len(own)))  # ids of the data set, as they are
        found.append(maps if same else [table[each] for each in maps])
    return found


def _score_maps(samples: Sequence[PreparedSample], plan: ScoringPlan) -> list[ImageScores]:
    scores = []
    for sample, *maps in zip(samples, *_class_maps(samples, plan), strict=True):
        label = np.asarray(sample.label)
        tables = np.stack([confusion(label, guess, len(plan.classes)) for guess in maps])
        labelled = max(int(tables[0].sum()), 1)
        differs = [0.0, *(int(((each != maps[0]) & (label != IGNORE)).sum()) / labelled for each in maps[1:])]
        scores.append(ImageScores(semantic_counts(tables), np.array(differs), tables))
    return scores


def _score_images(samples: Sequence[PreparedSample], plan: ScoringPlan) -> list[ImageScores]:
    for sample in samples:
        if not isinstance(sample.label, int) or not 0 <= sample.label < len(plan.classes):
            where = f"{plan.dataset}, {sample.name}"
            raise DatasetError(f"{where}: has no class (some splits hide their labels); --split chooses another.")
    pictures, truth = [sample.picture for sample in samples], np.array([sample.label for sample in samples])
    pairs = zip(plan.models, plan.tables, strict=True)
    guesses = np.stack([table[classify(each.members, pictures, plan.views)].astype(int) for each, table in pairs])
    counts = np.stack([classification_counts(truth, guess, len(plan.classes)) for guess in guesses], axis=1)
    differs = (guesses != guesses[0]).astype(np.float64)
    return [ImageScores(counts[index], differs[:, index]) for index in range(len(samples))]


def segments_in(sample: PreparedSample, plan: ScoringPlan) -> list[PanopticMap]:
    """Return each model's panoptic map of a sample, in the classes of the data set."""
    assert sample.segments is not None
    maps = []
    for model, table in zip(plan.models, plan.tables, strict=True):
        network = model.members[0]
        divisor = int(network.model.config.label_divisor)
        codes = Runs.of(panoptic(network, sample.picture, sample.segments.runs.shape))
        found = table[np.clip(codes.ids // divisor, 0, 255)].astype(np.int64)
        nothing = IGNORE if plan.void is None else plan.void
        ours = np.where(found == IGNORE, nothing * divisor, found * divisor + codes.ids % divisor)
        maps.append(PanopticMap.of_codes(replace(codes, ids=ours), divisor, IGNORE * divisor))
    return maps


def _score_segments(sample: PreparedSample, plan: ScoringPlan) -> ImageScores:
    assert sample.segments is not None
    runs = sample.segments.runs
    maps = segments_in(sample, plan)
    counts = np.stack([panoptic_counts(sample.segments, each, len(plan.classes)) for each in maps])
    labelled = runs.paint(runs.ids != sample.segments.void)
    classes = [each.class_map()[labelled] for each in maps]  # equal segments may have other numbers
    differs = [float((each != classes[0]).sum()) / max(int(labelled.sum()), 1) for each in classes]
    return ImageScores(counts, np.array(differs))


def boxes_in(sample: PreparedSample, plan: ScoringPlan) -> list[Boxes]:
    """Return each model's boxes in a sample, in the classes of the data set."""
    found = []
    for model, table in zip(plan.models, plan.tables, strict=True):
        boxes = detect(model.members[0], sample.picture)
        assert boxes.scores is not None
        labels = table[boxes.labels].astype(np.int64)
        known = labels != IGNORE
        found.append(Boxes(boxes.boxes[known], labels[known], boxes.scores[known]))
    return found


def _score_boxes(sample: PreparedSample, plan: ScoringPlan) -> ImageScores:
    assert sample.boxes is not None
    height, width = sample.picture.size
    beyond = (sample.boxes.boxes[:, 2:] > np.array([width, height]) + 2).any(axis=1)
    if beyond.any():
        where, corner = f"{plan.dataset}, {sample.name}", sample.boxes.boxes[beyond][0, 2:].tolist()
        raise DatasetError(
            f"{where}: a box ends at {corner}, outside the image of {width}x{height}; a bbox is x, y, width, height."
        )
    rows = [detection_counts(sample.boxes, found, len(plan.classes)) for found in boxes_in(sample, plan)]
    counts = padded(rows, 0)
    confident = (counts[..., 1] >= CONFIDENT) & (counts[..., 2].astype(int) & 1 > 0)
    hits = confident.sum(axis=1).astype(np.float64)
    return ImageScores(counts, np.abs(hits - hits[0]))


def padded(arrays: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
    """Stack arrays whose lengths along an axis may differ; shorter ones are filled up with -1, which is no class."""
    longest = max(array.shape[axis] for array in arrays)
    widths = [[(0, longest - array.shape[axis] if a == axis else 0) for a in range(array.ndim)] for array in arrays]
    return np.stack([np.pad(array, width, constant_values=-1) for array, width in zip(arrays, widths, strict=True)])
