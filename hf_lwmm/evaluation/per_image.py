"""What models get right in images: the counts of a metric, and how far a model is from the anchor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm import hub
from hf_lwmm.data.annotations import IGNORE, Boxes, PanopticMap
from hf_lwmm.data.loading import Sample
from hf_lwmm.data.runs import Runs
from hf_lwmm.errors import DatasetError, MetricError
from hf_lwmm.evaluation.inference import View, classify, detect, panoptic, segment
from hf_lwmm.evaluation.report import Counts
from hf_lwmm.metrics.classification import classification_counts
from hf_lwmm.metrics.detection import detection_counts
from hf_lwmm.metrics.panoptic import panoptic_counts
from hf_lwmm.metrics.semantic import confusion, semantic_counts
from hf_lwmm.networks.loading import LoadedModel

Labels = NDArray[np.uint8]  # class of the data set
CONFIDENT = 0.5  # the score from which a box is one that a user would see


@dataclass(frozen=True)
class ScoredModel:
    """What is scored under one name: a network, or several whose softmax outputs are averaged."""

    name: str
    members: tuple[LoadedModel, ...] = field(repr=False)

    @property
    def identity(self) -> list[str]:
        """What tells this network from any other, for partial results."""
        return [f"{_version(member)} {member.model.config.to_json_string()}" for member in self.members]


def _version(loaded: LoadedModel) -> str:
    ref, sha = loaded.source.ref, loaded.source.sha
    return f"{ref.shown}@{sha or (hub.stamp(ref.path) if ref.path is not None else '')}"


@dataclass(frozen=True)
class ScoringPlan:
    """What every image of an evaluation is scored with.

    `space` are the classes of the data set's ids; `raw` leads from the ids of label files to them, where these are
    others; `void` is the class that panoptic maps have where they are void, if they are to have one. `tables` lead from
    each scored_model's class ids to the data set's.
    """

    scored_models: Sequence[ScoredModel]
    tables: Sequence[NDArray[np.uint8]] = field(repr=False)
    task: str
    dataset: str
    space: Sequence[str]
    raw: NDArray[np.uint8] | None = field(repr=False)
    views: Sequence[View]
    void: int | None = None


@dataclass(frozen=True)
class ImageScores:
    """One image's part in the result.

    `counts` (models, rows, K) are the metric's, `differs` (models,) how far each model is from the anchor: the part of
    the labelled pixels, 0 or 1 for the class of an image, the number of hits for boxes. `confusion` (models, classes,
    classes + 1) has the pixels of class maps by true and predicted class.
    """

    counts: Counts
    differs: NDArray[np.float64]
    confusion: NDArray[np.int64] | None = None


def score(samples: Sequence[Sample], setting: ScoringPlan) -> list[ImageScores]:
    """Score a batch of images.

    Raises:
        DatasetError: if a label does not fit its image, or has an id that stands for nothing.
    """
    if setting.task == "semantic":
        return _score_maps(samples, setting)
    if setting.task == "classification":
        return _score_images(samples, setting)
    one = {"panoptic": _score_segments, "detection": _score_boxes}[setting.task]
    scores = []
    for sample in samples:
        try:
            scores.append(one(sample, setting))
        except MetricError as error:
            raise DatasetError(f"{setting.dataset}, {sample.name}: {error}") from None
    return scores


def class_maps(samples: Sequence[Sample], sizes: Sequence[tuple[int, int]], setting: ScoringPlan) -> list[list[Labels]]:
    """Every scored_model's maps of the data set's classes: a list for each of a list for each sample."""
    pictures = [sample.image for sample in samples]
    pairs = zip(setting.scored_models, setting.tables, strict=True)
    return [[table[each] for each in segment(c.members, pictures, sizes, setting.views)] for c, table in pairs]


def label_of(sample: Sample, setting: ScoringPlan) -> NDArray[np.integer[Any]]:
    """The label in the data set's classes, `IGNORE` where it leaves them open: (height, width).

    Raises:
        DatasetError: if it does not fit its image, or has an id that stands for nothing.
    """
    label, classes = sample.label, len(setting.space)
    assert not isinstance(label, int)
    where = f"{setting.dataset}, {sample.name}"
    _check_size(label.shape, sample, where)
    if setting.raw is not None:
        known = (label >= 0) & (label <= IGNORE)
        mapped: NDArray[np.integer[Any]] = np.where(known, setting.raw[np.where(known, label, 0)], np.uint8(IGNORE))
        return mapped
    outside = label[(label >= classes) & (label != IGNORE)]
    if outside.size:
        raise DatasetError(
            f"{where}: has the id {int(outside.flat[0])}, but there are {classes} classes and {IGNORE} for what is "
            "ignored. --protocol names the data set's classes, --ids its raw ids."
        )
    return label


def _check_size(mine: tuple[int, ...], sample: Sample, where: str) -> None:
    """A label is as large as its image, or one of them is the other made larger by a whole number."""
    image = (sample.image.height, sample.image.width)
    larger, smaller = max(mine, image), min(mine, image)
    if larger[0] * smaller[1] != larger[1] * smaller[0] or larger[0] % smaller[0]:
        shown = f"{image[1]}x{image[0]}"
        raise DatasetError(f"{where}: the label is {mine[1]}x{mine[0]}, but the image {shown}.")


def _score_maps(samples: Sequence[Sample], setting: ScoringPlan) -> list[ImageScores]:
    labels = [label_of(sample, setting) for sample in samples]
    found = class_maps(samples, [(label.shape[0], label.shape[1]) for label in labels], setting)
    scores = []
    for label, *maps in zip(labels, *found, strict=True):
        tables = np.stack([confusion(label, guess, len(setting.space)) for guess in maps])
        labelled = max(int(tables[0].sum()), 1)
        differs = [int(((guess != maps[0]) & (label != IGNORE)).sum()) / labelled for guess in maps]
        scores.append(ImageScores(semantic_counts(tables), np.array(differs), tables))
    return scores


def _score_images(samples: Sequence[Sample], setting: ScoringPlan) -> list[ImageScores]:
    for sample in samples:
        if not isinstance(sample.label, int) or not 0 <= sample.label < len(setting.space):
            where = f"{setting.dataset}, {sample.name}"
            raise DatasetError(f"{where}: has no class (some splits hide their labels); --split chooses another.")
    pictures, truth = [sample.image for sample in samples], np.array([sample.label for sample in samples])
    pairs = zip(setting.scored_models, setting.tables, strict=True)
    guesses = np.stack([table[classify(each.members, pictures, setting.views)].astype(int) for each, table in pairs])
    counts = np.stack([classification_counts(truth, guess, len(setting.space)) for guess in guesses], axis=1)
    differs = (guesses != guesses[0]).astype(np.float64)
    return [ImageScores(counts[index], differs[:, index]) for index in range(len(samples))]


def segments_in(sample: Sample, setting: ScoringPlan) -> list[PanopticMap]:
    """Every scored_model's panoptic map of a sample, in the data set's classes."""
    assert sample.segments is not None
    maps = []
    for scored_model, table in zip(setting.scored_models, setting.tables, strict=True):
        network = scored_model.members[0]
        divisor = int(network.model.config.label_divisor)
        codes = Runs.of(panoptic(network, sample.image, sample.segments.runs.shape))
        found = table[np.clip(codes.ids // divisor, 0, 255)].astype(np.int64)
        nothing = IGNORE if setting.void is None else setting.void
        ours = np.where(found == IGNORE, nothing * divisor, found * divisor + codes.ids % divisor)
        maps.append(PanopticMap.of_codes(replace(codes, ids=ours), divisor, IGNORE * divisor))
    return maps


def _score_segments(sample: Sample, setting: ScoringPlan) -> ImageScores:
    assert sample.segments is not None
    runs = sample.segments.runs
    _check_size(runs.shape, sample, f"{setting.dataset}, {sample.name}")
    maps = segments_in(sample, setting)
    counts = np.stack([panoptic_counts(sample.segments, each, len(setting.space)) for each in maps])
    labelled = runs.paint(runs.ids != sample.segments.void)
    seen = [each.class_map()[labelled] for each in maps]  # segments may be numbered otherwise and yet be the same
    differs = [float((each != seen[0]).sum()) / max(int(labelled.sum()), 1) for each in seen]
    return ImageScores(counts, np.array(differs))


def boxes_in(sample: Sample, setting: ScoringPlan) -> list[Boxes]:
    """Every scored_model's boxes in a sample, in the data set's classes."""
    found = []
    for scored_model, table in zip(setting.scored_models, setting.tables, strict=True):
        boxes = detect(scored_model.members[0], sample.image)
        assert boxes.scores is not None
        labels = table[boxes.labels].astype(np.int64)
        known = labels != IGNORE
        found.append(Boxes(boxes.boxes[known], labels[known], boxes.scores[known]))
    return found


def _score_boxes(sample: Sample, setting: ScoringPlan) -> ImageScores:
    assert sample.boxes is not None
    beyond = (sample.boxes.boxes[:, 2:] > np.array([sample.image.width, sample.image.height]) + 2).any(axis=1)
    if beyond.any():
        where, corner = f"{setting.dataset}, {sample.name}", sample.boxes.boxes[beyond][0, 2:].tolist()
        size = f"{sample.image.width}x{sample.image.height}"
        raise DatasetError(
            f"{where}: a box ends at {corner}, outside the image of {size}; a bbox is x, y, width, height."
        )
    rows = [detection_counts(sample.boxes, found, len(setting.space)) for found in boxes_in(sample, setting)]
    counts = padded(rows, 0)
    confident = (counts[..., 1] >= CONFIDENT) & (counts[..., 2].astype(int) & 1 > 0)
    hits = confident.sum(axis=1).astype(np.float64)
    return ImageScores(counts, np.abs(hits - hits[0]))


def padded(arrays: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
    """Arrays that may differ in length along an axis as one, filled up with -1, which is no class."""
    longest = max(array.shape[axis] for array in arrays)
    widths = [[(0, longest - array.shape[axis] if a == axis else 0) for a in range(array.ndim)] for array in arrays]
    return np.stack([np.pad(array, width, constant_values=-1) for array, width in zip(arrays, widths, strict=True)])
