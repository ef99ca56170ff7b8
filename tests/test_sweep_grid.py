"""The candidates of a sweep, and the verdict on their scores."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import NAMES

from hf_lwmm import (
    Knobs,
    Layerwise,
    SweepAxes,
    SweepReport,
)
from hf_lwmm.errors import PlanError
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.sweeping.grid import Candidate, Skipped, merges, read_candidate, short_labels
from hf_lwmm.sweeping.ranking import rank
from hf_lwmm.sweeping.scorer import Scored, SweepData


@pytest.mark.parametrize(
    ("subsets", "anchors", "count"),
    [("all", "all", 3 * 2 + 3), ("all", "first", 4), ("pairs", "all", 6), ("pairs", "first", 3), ("whole", "all", 3)],
)
def test_a_grid_has_every_combination_once(subsets: str, anchors: str, count: int) -> None:
    axes = SweepAxes(
        subsets=subsets, anchors=anchors, methods=("layerwise", "isotropic", "ties"), start=(0, 0.5), alpha=(None, 0.6),
        bn_stats=("linear", "anchor"), options=("density=0.2,0.4,0.6",),
    )  # fmt: skip
    found = merges(3, axes)
    assert len(found) == len({each.key for each in found}) == count * (2 * 2 * 2 + 2 + 3 * 2)
    assert len({each.name("abc") for each in found}) == len(found)
    assert all(
        each.anchor in each.models and read_candidate(json.loads(json.dumps(each.to_dict()))) == each for each in found
    )


def test_equal_merges_are_one_candidate_with_one_name() -> None:
    axes = SweepAxes(methods=("ties",), options=("density=0.2,0.4", "density=0.2"), fixed=Knobs(method="slerp"))
    assert [each.name("ab") for each in merges(2, axes)] == [
        "ties of a*, b", "ties of a*, b, density=0.4", "ties of a, b*", "ties of a, b*, density=0.4"
    ]  # fmt: skip
    fixed = Knobs(granularity="block", keep=("mit.stage0", "mit.stage1"), branch="teacher", labels=("cityscapes19",))
    name = "layerwise of a*, b, granularity=block, keep=mit.stage0+mit.stage1, bn_stats=pooled, start=0.25"
    assert merges(2, SweepAxes(start=(0.25,), bn_stats=("pooled",), fixed=fixed))[0].name("ab") == name


def ranked(*hits: list[int], times: int = 2) -> SweepReport:
    """A report over candidates that get given numbers of 10 pixels of each image right, all of one class.

    Each of these images is there so many times.
    """
    scored = []
    for place, given in enumerate(hits):
        own = given * times
        counts = np.zeros((len(own), 2, 3))
        counts[:, 0] = [(hit, 10 - hit, 0) for hit in own]
        knobs = Knobs(method=Layerwise(start=0.1 * place))
        candidate = Candidate("model", (place,), place) if place < 2 else Candidate("merge", (0, 1), 0, knobs)
        scored.append(Scored(candidate, counts, 1.0, "semantic", NAMES[:2]))
    data = SweepData("d", times * len(hits[0]), "", None, ScoredClasses(NAMES[:2], (0, 1)))
    skipped = [Skipped(Candidate("merge", (0, 1), 1, Knobs()), "no")]
    return rank(scored, skipped, data, ["a", "b"], Path("x"))


def test_an_ensemble_that_leads_is_no_model_to_confirm_and_equal_merges_count_once() -> None:
    counts = {"ensemble": 9, "merge": 8, "model": 2}
    scored = []
    for candidate in (
        Candidate("model", (0,), 0),
        Candidate("model", (1,), 1),
        *(Candidate("merge", (0, 1), anchor, Knobs(method="isotropic")) for anchor in (0, 1)),
        Candidate("ensemble", (0, 1), 0),
    ):
        hits = counts[candidate.kind]
        scored.append(Scored(candidate, np.array([[[hits, 10 - hits, 0.0]]] * 4), 1.0, "semantic", NAMES[:1]))
    data = SweepData("d", 4, "", None, ScoredClasses(NAMES[:1], (0,)))
    found = rank(scored, [], data, ["a", "b"], Path("x"))
    assert found.best.candidate.kind == "ensemble" and found.best_model.name == "isotropic of a*, b"
    assert "isotropic of a*, b 80.00, a 20.00" in repr(found) and "4 candidates" in repr(found)


def test_the_verdict_says_whether_the_best_can_be_told_from_the_next() -> None:
    near = ranked([5, 6, 5, 6], [1, 1, 1, 1], [6, 5, 6, 6], [5, 6, 6, 5])
    assert near.best.name == "layerwise of a*, b, start=0.2" and near.rows[1].ties_with_best
    assert "these images do not tell them apart" in near.remarks
    assert "2 candidates are not distinguishable from the best (marked =)" in near.remarks
    assert "The best of 4 was chosen by these very scores" in near.remarks
    assert [cells[0] for cells in near.cells()] == ["1", "2 =", "3 =", "4"]
    assert not near.rows[-1].ties_with_best and "- no (layerwise of a, b*)" in near.to_markdown()
    far = ranked([2, 2, 3, 2], [1, 1, 1, 1], [8, 9, 8, 9])
    assert "tell them apart" not in far.remarks and "leads a by" in far.remarks
    few = ranked([2, 2, 3, 2, 2], [1, 1, 1, 1, 1], [8, 9, 8, 9, 8], times=1)
    assert ", but 5 images are too few to tell: it takes at least 6." in few.remarks
    assert far.rows[1].difference is None and far.best.difference == pytest.approx(34 / 40 - 9 / 40)
    assert far.rows[1].to_anchor is None and near.best.to_anchor == pytest.approx(23 / 40 - 22 / 40)
    assert near.best.to_anchor_interval is not None and near.best.to_anchor_interval.low <= 0.025


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"subsets": "triples"}, "--subsets triples is not one of all, pairs, whole"),
        ({"anchors": "last"}, "--anchors last is not one of all, first"),
        ({"methods": ["soup"]}, "--methods soup is not one of layerwise"),
        ({"options": ["density=1"]}, "--option density: none of the methods layerwise has this option"),
        ({"options": ["start=0.5"]}, "--option start: none of the methods layerwise has this option"),
        ({"options": ["densty=1"], "methods": ["ties"]}, "has this option. Did you mean density?"),
        ({"options": ["density"], "methods": ["ties"]}, "--option density: write NAME=VALUE,..., such as density=0.2"),
        ({"options": ["density=1,"], "methods": ["ties"]}, "--option density=1,: has nothing where a value should be"),
        ({"options": ["density=2"], "methods": ["ties"]}, "--option density 2.0 must be above 0 and at most 1"),
        ({"options": ["density=x"], "methods": ["ties"]}, "--option density must be a number, not 'x'"),
        ({"options": ["seed=0.5"], "methods": ["dare"]}, "--option seed must be a whole number, not '0.5'"),
        ({"start": []}, "--start lists nothing"),
        ({"start": [1]}, "--start 1.0 must be at least 0 and below 1"),
        ({"ramp": ["sine"]}, "--ramp sine is not one of linear, cosine, step, power:P"),
    ],
)
def test_axes_without_a_meaning_are_refused(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        SweepAxes(**axes)


def test_merges_that_do_not_depend_on_their_anchor_are_listed_once() -> None:
    counts = {"same": [6, 6, 5], "one": [5, 5, 5], "two": [4, 4, 4]}

    def scored(candidate: Candidate, hits: str) -> Scored:
        found = np.zeros((3, 2, 3))
        found[:, 0] = [(hit, 10 - hit, 0) for hit in counts[hits]]
        return Scored(candidate, found, 1.0, "semantic", NAMES[:2])

    even, odd = (merges(2, SweepAxes(methods=("isotropic",))), merges(2, SweepAxes(start=(0.5,))))
    alone = [scored(Candidate("model", (place,), place), "one") for place in (0, 1)]
    every = [*alone, *(scored(each, "same") for each in even), scored(odd[0], "one"), scored(odd[1], "two")]
    data = SweepData("d", 3, "", None, ScoredClasses(NAMES[:2], (0, 1)))
    found = rank(every, [], data, ["org/a@1234567", "org/b@7654321"], Path("x"))
    first, second = found.rows[:2]
    assert (first.rank, second.rank, second.repeats, first.repeats) == (1, 1, True, False)
    assert [cells[0].split()[0] for cells in found.cells()] == ["1", "2", "3", "4", "5"]
    assert found.cells()[0][1] == "isotropic of a*, b (the same with the anchor b)"
    assert found.summary.startswith("5 candidates on") and "The best of 5 was" in found.remarks
    assert found.key.startswith("A star marks the anchor; ")
    assert found.key.endswith("; a is org/a@1234567; b is org/b@7654321.")
    assert len(found.records()) == 6 and found.to_dict()["models"] == ["org/a@1234567", "org/b@7654321"]


def test_marks_are_explained_where_they_occur() -> None:
    near = ranked([5, 6, 5, 6], [1, 1, 1, 1], [6, 5, 6, 6], [5, 6, 6, 5])
    assert near.key == "A star marks the anchor; = marks what these images do not tell apart from the best."
    assert f"\n\n{near.key}\n\n" in near.to_markdown()


@pytest.mark.parametrize(
    ("labels", "short"),
    [
        (["org/a@1234567", "org/b@7654321"], ["a", "b"]),
        (["org/a@1234567", "me/a@7654321"], ["org/a", "me/a"]),
        (["org/a@1234567", "org/a@7654321"], ["org/a@1234567", "org/a@7654321"]),
        (["one", "two (2)"], ["one", "two (2)"]),
    ],
)
def test_labels_are_short_where_nothing_is_lost(labels: list[str], short: list[str]) -> None:
    assert list(short_labels(labels)) == short
