"""Metrics against cityscapesScripts (which has panopticapi's PQ too), and by their laws."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as official_pq
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official_iou
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from hf_lwmm.data.annotations import PanopticMap
from hf_lwmm.data.runs import Runs, run_ends, shared_areas
from hf_lwmm.errors import MetricError
from hf_lwmm.metrics.classification import (
    average_accuracy,
    class_accuracy,
    classification_counts,
    overall_accuracy,
)
from hf_lwmm.metrics.panoptic import mean_pq, panoptic_counts, panoptic_scores
from hf_lwmm.metrics.semantic import confusion, iou, mean_iou, semantic_counts, semantic_scores

CLASSES = 19
TRAIN_ID = np.full(256, 255, np.uint8)
for _label in cityscapes_labels:
    if _label.id >= 0 and not _label.ignoreInEval:
        TRAIN_ID[_label.id] = _label.trainId
SYNTHIA_16 = [c for c in range(CLASSES) if c not in (9, 14, 16)]


@pytest.fixture(scope="module", autouse=True)
def _compiled_loops() -> None:
    """Compile the loops first, which takes longer than hypothesis lets an example take."""
    label = np.zeros((1, 2), np.uint8)
    confusion(label, label, CLASSES)
    shared_areas(Runs.of(label), Runs.of(label))


sizes = st.tuples(st.integers(1, 9), st.integers(1, 40))
with_files = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def smooth_pairs(draw: st.DrawFn, values: int) -> tuple[np.ndarray, np.ndarray]:
    """Two uint8 maps of one size below `values`: rectangles, then single pixels."""
    height, width = draw(sizes)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    known = random.integers(values, size=draw(st.integers(1, 8)))
    maps = []
    for _ in range(2):
        painted = np.full((height, width), random.choice(known), np.uint8)
        for _ in range(draw(st.integers(0, 6))):
            top, left = random.integers(height), random.integers(width)
            painted[top : top + random.integers(1, height + 1), left : left + random.integers(1, width + 1)] = (
                random.choice(known)
            )
        noisy = random.random((height, width)) < draw(st.sampled_from([0, 0.1, 1]))
        painted[noisy] = random.integers(values, size=int(noisy.sum()))
        maps.append(painted)
    return maps[0], maps[1]


def slow_confusion(label: np.ndarray, prediction: np.ndarray, classes: int, ignore: int) -> np.ndarray:
    table = np.zeros((classes, classes + 1), np.int64)
    for true, guess in zip(label.reshape(-1).tolist(), prediction.reshape(-1).tolist(), strict=True):
        if true != ignore:
            table[true, guess if 0 <= guess < classes else classes] += 1
    return table


@with_files
@given(st.lists(smooth_pairs(34), min_size=1, max_size=3))
def test_iou_is_that_of_cityscapesscripts(tmp_path: Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    args = copy.copy(official_iou.args)
    args.evalInstLevelScore = args.evalPixelAccuracy = False
    matrix = official_iou.generateMatrix(args)
    total = np.zeros((CLASSES, 3), np.int64)
    for label, prediction in pairs:
        Image.fromarray(label).save(tmp_path / "label.png")
        Image.fromarray(prediction).save(tmp_path / "prediction.png")
        files = str(tmp_path / "prediction.png"), str(tmp_path / "label.png")
        official_iou.evaluatePair(*files, matrix, {}, {}, args)
        total += semantic_counts(confusion(TRAIN_ID[label], TRAIN_ID[prediction], CLASSES))
    scored = [label for label in cityscapes_labels if label.id >= 0 and not label.ignoreInEval]
    expected = {label.name: official_iou.getIouScoreForLabel(label.id, matrix, args) for label in scored}
    scores = semantic_scores(total)
    assert np.array_equal(scores.iou, list(expected.values()), equal_nan=True)
    average = official_iou.getScoreAverage(expected, args)
    assert scores.mean_iou == pytest.approx(average, rel=1e-14, nan_ok=True)


@given(smooth_pairs(12), st.integers(1, 12), st.sampled_from([255, 254, 3]))
def test_every_pixel_that_is_not_ignored_is_counted_once(
    pair: tuple[np.ndarray, np.ndarray], classes: int, ignore: int
) -> None:
    label, prediction = pair
    label = np.where(label < classes, label, np.uint8(ignore))
    table = confusion(label, prediction, classes, ignore=ignore)
    assert table.dtype == np.int64
    assert np.array_equal(table, slow_confusion(label, prediction, classes, ignore))
    assert table.sum() == (label != ignore).sum()


@pytest.mark.parametrize("classes", [1, 2, 150, 254, 255])
def test_large_and_noisy_maps_are_counted_like_small_ones(classes: int) -> None:
    random = np.random.default_rng(0)
    label = np.repeat(random.integers(classes, size=(700, 101), dtype=np.uint8), 9, axis=1)
    prediction = np.where(random.random(label.shape) < 0.1, random.integers(256, size=label.shape), label)
    label[random.random(label.shape) < 0.01] = 255
    expected = slow_confusion(label, prediction, classes, 255)
    assert np.array_equal(confusion(label, prediction.astype(np.uint8), classes), expected)


@given(smooth_pairs(19), st.sampled_from(["int8", "int16", "int32", "int64", "uint16", "uint64"]))
def test_other_integers_and_layouts_give_the_same(pair: tuple[np.ndarray, np.ndarray], dtype: str) -> None:
    label, prediction = pair
    expected = confusion(label, prediction, CLASSES)
    assert np.array_equal(confusion(label.astype(dtype), prediction.astype(dtype), CLASSES), expected)
    assert np.array_equal(confusion(np.asfortranarray(label), np.asfortranarray(prediction), CLASSES), expected)
    assert np.array_equal(confusion(label[:, ::-1], prediction[:, ::-1], CLASSES), expected)


def test_a_prediction_outside_the_classes_is_a_miss() -> None:
    label = np.zeros((2, 4), np.uint8)
    for outside in (np.uint8(2), np.uint8(255), np.int64(-1), np.int64(256), np.int64(2**40)):
        prediction = np.zeros((2, 4), outside.dtype)
        prediction[0] = outside
        scores = semantic_scores(semantic_counts(confusion(label, prediction, 2)))
        assert scores.iou[0] == 0.5 and scores.pixel_accuracy == 0.5


def test_negative_ignore_labels_are_left_out() -> None:
    label = np.array([[0, 1, -100, -100]])
    assert confusion(label, np.array([[0, 0, 1, 1]]), 2, ignore=-100).tolist() == [[1, 0, 0], [1, 0, 0]]


def test_an_absent_class_is_nan_and_does_not_count_and_a_phantom_one_is_zero() -> None:
    label, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 2]])
    scores = semantic_scores(semantic_counts(confusion(label, prediction, 4)))
    assert np.array_equal(scores.iou, [1, 0.5, 0, np.nan], equal_nan=True)
    assert np.array_equal(scores.accuracy, [1, 0.5, np.nan, np.nan], equal_nan=True)
    assert (scores.mean_iou, scores.mean_accuracy, scores.pixel_accuracy) == (0.5, 0.75, 0.75)


def test_an_image_without_labels_has_no_score() -> None:
    label = np.full((3, 3), 255, np.uint8)
    scores = semantic_scores(semantic_counts(confusion(label, np.zeros_like(label), 3)))
    assert np.isnan([scores.mean_iou, scores.mean_accuracy, scores.pixel_accuracy]).all()


@given(smooth_pairs(19))
def test_a_protocol_chooses_among_the_classes(pair: tuple[np.ndarray, np.ndarray]) -> None:
    counts = semantic_counts(confusion(*pair, CLASSES))
    every, part = semantic_scores(counts), semantic_scores(counts, SYNTHIA_16)
    assert np.array_equal(part.iou, every.iou[SYNTHIA_16], equal_nan=True)
    chosen = np.isin(pair[0], SYNTHIA_16)
    if chosen.any():
        assert part.pixel_accuracy == (pair[0] == pair[1])[chosen].mean()


@pytest.mark.parametrize(
    ("label", "prediction", "classes", "text"),
    [
        (np.zeros((4, 8), np.uint8), np.zeros((2, 4), np.uint8), 2, "4x8.*2x4"),
        (np.full((4, 8), 7, np.uint8), np.zeros((4, 8), np.uint8), 2, "value 7"),
        (np.full((4, 8), -1, np.int64), np.zeros((4, 8), np.uint8), 2, "value -1"),
        (np.full((4, 8), 256, np.int64), np.zeros((4, 8), np.uint8), 2, "value 256"),
        (np.zeros((4, 8)), np.zeros((4, 8), np.uint8), 2, "integers"),
        (np.zeros((4, 8), np.uint8), np.zeros((4, 8), np.float32), 2, "integers"),
        (np.zeros((4, 8), np.uint8), np.zeros((4, 8), np.uint8), 256, "255 classes"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(
    label: np.ndarray, prediction: np.ndarray, classes: int, text: str
) -> None:
    with pytest.raises(MetricError, match=text):
        confusion(label, prediction, classes)


# Runs


@given(smooth_pairs(4), st.sampled_from([bool, np.uint8, np.int16, np.int32, np.int64, np.uint64]))
def test_runs_hold_every_pixel_once(pair: tuple[np.ndarray, np.ndarray], dtype: type) -> None:
    pair = pair[0].astype(dtype), pair[1].astype(dtype)
    first, second = Runs.of(pair[0]), Runs.of(pair[1])
    assert np.array_equal(first.paint(first.ids), pair[0]) and np.array_equal(second.paint(second.ids), pair[1])
    assert (np.diff(first.ids.astype(int)) != 0).all()
    codes = Runs.of(pair[0].astype(int) * 256 + pair[1].astype(int))
    for channels in (pair, (*pair, pair[0])):
        assert np.array_equal(run_ends(np.stack(channels, axis=-1)), codes.ends)
    rows, columns, areas = shared_areas(first, second)
    assert np.array_equal(rows, np.unique(pair[0])) and np.array_equal(columns, np.unique(pair[1]))
    assert areas.tolist() == [[((pair[0] == r) & (pair[1] == c)).sum() for c in columns] for r in rows]


# Panoptic quality. Ids up to 2**24, some segments without pixels, some pixels without a segment, crowds, void.
PQ_CLASSES = 3
IDS = [0, 1, 2, 3, 255, 256, 70_000, 2**24 - 1]


@st.composite
def panoptic_pairs(draw: st.DrawFn) -> tuple[PanopticMap, PanopticMap]:
    shape = draw(sizes)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = np.array(IDS)[np.sort(random.integers(len(IDS), size=shape), axis=draw(st.integers(0, 1)))]
    guess = np.where(random.random(shape) < draw(st.sampled_from([0, 0.2, 0.6])), random.choice(IDS, size=shape), ids)
    listed = draw(st.permutations(IDS[1:]))[: draw(st.integers(0, 7))]
    kinds = st.integers(0, PQ_CLASSES - 1)
    classes = {number: draw(kinds) for number in listed}
    crowds = frozenset(number for number in listed if draw(st.booleans()) and draw(st.booleans()))
    found = [number for number in np.unique(guess).tolist() if number]
    same = draw(st.booleans())
    guessed = {number: classes[number] if same and number in classes else draw(kinds) for number in found}
    return PanopticMap(Runs.of(ids), classes, crowds), PanopticMap(Runs.of(guess), guessed)


def save(panoptic: PanopticMap, path: Path) -> dict[str, object]:
    """The map as a COCO panoptic PNG, and its annotation."""
    ids = panoptic.runs.paint(panoptic.runs.ids)
    Image.fromarray(np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)).save(path)
    return {
        "file_name": path.name,
        "image_id": 0,
        "segments_info": [
            {"id": i, "category_id": c, "iscrowd": int(i in panoptic.crowds), "area": int((ids == i).sum())}
            for i, c in panoptic.classes.items()
        ],
    }


@with_files
@given(st.lists(panoptic_pairs(), min_size=1, max_size=3))
def test_pq_is_that_of_panopticapi(tmp_path: Path, pairs: list[tuple[PanopticMap, PanopticMap]]) -> None:
    categories = {c: {"id": c, "isthing": c % 2} for c in range(PQ_CLASSES)}
    total = np.zeros((PQ_CLASSES, 4))
    expected = official_pq.PQStat()
    for truth, prediction in pairs:
        annotations = [(save(truth, tmp_path / "truth.png"), save(prediction, tmp_path / "prediction.png"))]
        expected += official_pq.pq_compute_single_core(0, annotations, str(tmp_path), str(tmp_path), categories)
        total += panoptic_counts(truth, prediction, PQ_CLASSES)
    found = [expected[c] for c in range(PQ_CLASSES)]
    assert total.tolist() == [[c.iou, c.tp, c.fp, c.fn] for c in found]
    for things, chosen in ((None, range(PQ_CLASSES)), (True, [1]), (False, [0, 2])):
        scores = panoptic_scores(total, chosen)
        occurring = ~np.isnan(scores.pq)
        assert occurring.tolist() == [found[c].tp + found[c].fp + found[c].fn > 0 for c in chosen]
        if not occurring.any():
            assert np.isnan([scores.mean_pq, scores.mean_sq, scores.mean_rq]).all()
            continue
        mean, per_class = expected.pq_average(categories, things)
        assert (scores.mean_pq, scores.mean_sq, scores.mean_rq) == pytest.approx(
            (mean["pq"], mean["sq"], mean["rq"]), rel=1e-14
        )
        for row, c in enumerate(chosen):
            if occurring[row]:
                assert per_class[c] == {"pq": scores.pq[row], "sq": scores.sq[row], "rq": scores.rq[row]}


def test_of_several_crowds_only_the_last_excuses() -> None:
    truth = Runs.of(np.array([[1, 1, 1, 1, 2, 2, 2, 2, 3, 3]]))
    prediction = PanopticMap(Runs.of(np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]])), {1: 0, 2: 0})
    for last in (1, 2):
        listed = {3 - last: 0, last: 0, 3: 0}
        counts = panoptic_counts(PanopticMap(truth, listed, frozenset({1, 2})), prediction, 1)
        assert counts.tolist() == [[0, 0, 1, 1]]


def test_a_map_matches_itself_whatever_its_ids() -> None:
    codes = np.array([[0, 0, 1001, 1001], [0, 255, 1002, 2000]])
    panoptic = PanopticMap.of_codes(Runs.of(codes), 1000, void=255)
    assert panoptic.classes == {0: 0, 1001: 1, 1002: 1, 2000: 2}
    counts = panoptic_counts(panoptic, panoptic, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [2, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    scores = panoptic_scores(counts)
    assert np.array_equal(scores.pq, [1, 1, 1, np.nan], equal_nan=True)
    assert (scores.mean_pq, scores.mean_sq, scores.mean_rq) == (1, 1, 1)


def ones(height: int, width: int) -> Runs:
    return Runs.of(np.ones((height, width), int))


@pytest.mark.parametrize(
    ("truth", "prediction", "text"),
    [
        (PanopticMap(ones(4, 8), {1: 0}), PanopticMap(ones(2, 4), {1: 0}), "4x8.*2x4"),
        (PanopticMap(ones(4, 8), {1: 9}), PanopticMap(ones(4, 8), {1: 0}), "truth.*class 9"),
        (PanopticMap(ones(4, 8), {1: 0}), PanopticMap(ones(4, 8), {1: -1}), "prediction.*class -1"),
        (PanopticMap(ones(4, 8), {1: 0}), PanopticMap(ones(4, 8), {}), "id 1"),
        (PanopticMap(ones(4, 8), {1: 0}), PanopticMap(ones(4, 8), {1: 0, 2: 0}), "segment 2"),
        (PanopticMap(ones(4, 8), {0: 0}), PanopticMap(ones(4, 8), {1: 0}), "id 0.*void"),
    ],
)
def test_panoptic_maps_that_cannot_be_compared_are_refused(
    truth: PanopticMap, prediction: PanopticMap, text: str
) -> None:
    with pytest.raises(MetricError, match=text):
        panoptic_counts(truth, prediction, PQ_CLASSES)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 6)), min_size=1))
def test_accuracies_are_means_over_classes_and_over_images(pairs: list[tuple[int, int]]) -> None:
    labels, predictions = np.array(pairs).T
    counts = classification_counts(labels, predictions, 5)
    total = counts.sum(axis=0)
    right = labels == predictions
    per_class = [right[labels == c].mean() if (labels == c).any() else np.nan for c in range(5)]
    assert np.array_equal(class_accuracy(total), per_class, equal_nan=True)
    assert average_accuracy(total) == pytest.approx(np.nanmean(per_class)) and overall_accuracy(total) == right.mean()


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(MetricError, match="from -1 to 2"):
        classification_counts(np.array([2, -1]), np.array([0, 0]), 3)
    with pytest.raises(MetricError, match="2 labels but 1"):
        classification_counts(np.array([2, 1]), np.array([0]), 3)


per_image = arrays(np.int64, st.tuples(st.integers(1, 12), st.just(4), st.just(3)), elements=st.integers(0, 1000))


@given(per_image)
def test_statistics_hold_for_one_data_set_and_for_many(counts: np.ndarray) -> None:
    total = counts.sum(axis=0)
    assert np.array_equal(mean_iou(counts)[0], semantic_scores(counts[0]).mean_iou, equal_nan=True)
    assert np.array_equal(iou(total), semantic_scores(total).iou, equal_nan=True)
    quality = np.concatenate([counts, counts[..., :1]], axis=-1)
    assert np.array_equal(mean_pq(quality)[-1], panoptic_scores(quality[-1]).mean_pq, equal_nan=True)
    for accuracy in (average_accuracy, overall_accuracy):
        assert np.array_equal(accuracy(counts[..., :2])[0], accuracy(counts[0, :, :2]), equal_nan=True)
