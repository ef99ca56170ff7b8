"""Intervals over groups of images: which images are drawn together, and what that does to an interval."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import lwmm
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import NAMES, scene, segformer, tree

import hf_lwmm
from hf_lwmm import EvaluationSpec, ImageSource
from hf_lwmm.data.groups import group_notes, groups_of
from hf_lwmm.data.loading import open_images
from hf_lwmm.data.samples import LabelledImages, Sample
from hf_lwmm.errors import DatasetError, MetricError
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.evaluation.report import report
from hf_lwmm.evaluation.task_metrics import METRICS
from hf_lwmm.metrics.bootstrap import interval, score_resamples, summed
from hf_lwmm.metrics.semantic import mean_iou


def named(names: list[str]) -> LabelledImages:
    def read(index: int) -> Sample:
        raise AssertionError("no picture is read to group the images")

    return LabelledImages("film, split val", len(names), read, listed=lambda column, count: names)


def film(name: str, frames: range) -> list[str]:
    return [f"{name}_{frame:06}.png" for frame in frames]


COLUMNS = {
    "film": Value("string"),
    "number": Value("float64"),
    "tags": List(Value("string")),
    "weather": ClassLabel(names=["dry", "wet"]),
    "key": Value("binary"),
}


def table(folder: Path, count: int = 4, **columns: list[Any]) -> Path:
    """A data set with a column of places beside images and labels."""

    def png(picture: Image.Image) -> dict[str, bytes]:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return {"bytes": buffer.getvalue()}

    scenes = [scene(seed) for seed in range(count)]
    rows = {
        "image": [png(image) for image, _ in scenes],
        "label": [png(Image.fromarray(label)) for _, label in scenes],
        "place": ["north", "south"] * (count // 2),
    }
    kinds = Features({"image": ImageFeature(), "label": ImageFeature(), "place": Value("string")})
    kinds |= {name: COLUMNS[name] for name in columns}
    folder.mkdir()
    Dataset.from_dict({**rows, **columns}, features=Features(kinds)).to_parquet(folder / "validation.parquet")
    return folder


def test_runs_of_frames_are_neighbours_in_one_film() -> None:
    names = film("0001TP", range(6690, 6690 + 30 * 62, 30)) + film("Seq05VD_f", range(0, 30 * 171, 30))
    shuffled = list(np.random.default_rng(0).permutation(names))
    found = groups_of(named(shuffled), "films")
    assert found is not None and found.count == 8 + 13 and str(found) == "21 runs of frames"
    runs: dict[int, list[int]] = {}
    for name, group in zip(shuffled, found.of_images, strict=True):
        runs.setdefault(int(group), []).append(names.index(name))
    for run in runs.values():
        assert max(run) - min(run) == len(run) - 1 and len({names[place][:4] for place in run}) == 1
        assert 7 <= len(run) <= 14


def test_films_in_folders_of_their_own_are_several(tmp_path: Path) -> None:
    for place in ("north", "south"):
        for kind in ("images", "labels"):
            (tmp_path / "val" / kind / place).mkdir(parents=True)
        for frame in range(4):
            image, label = scene(frame)
            image.save(tmp_path / "val/images" / place / f"frame_{frame}.png")
            Image.fromarray(label).save(tmp_path / "val/labels" / place / f"frame_{frame}.png")
    images = open_images(ImageSource(str(tmp_path), split="val"))
    found = groups_of(images, "films")
    assert found is not None and found.count == 4
    folders = [Path(name).parent.name for name in images.values()]
    assert all(len({folders[place] for place in np.flatnonzero(found.of_images == run)}) == 1 for run in range(4))


@given(st.lists(st.integers(1, 40), min_size=2, max_size=5))
def test_every_film_is_cut_into_about_its_root(lengths: list[int]) -> None:
    names = [name for place, length in enumerate(lengths) for name in film(f"film{place}", range(length))]
    found = groups_of(named(names), "films")
    assert found is not None and found.count == sum(max(round(length**0.5), 1) for length in lengths)
    assert set(found.of_images) == set(range(found.count))


def test_a_column_of_the_data_set_makes_groups(tmp_path: Path) -> None:
    images = open_images(table(tmp_path / "data"))
    assert images.columns == ("place",) and images.values() == ("0", "1", "2", "3")
    found = groups_of(images, "place")
    assert found is not None and found.of_images.tolist() == [0, 1, 0, 1] and str(found) == "2 groups of one place"
    with pytest.raises(DatasetError, match=r"has no column 'city'; it has place"):
        groups_of(images, "city")
    streamed = open_images(ImageSource(tmp_path / "data", streaming=True, limit=2))
    assert streamed.values("place") == ("north", "south")


def test_what_makes_no_groups_is_refused(tmp_path: Path) -> None:
    assert groups_of(named(["a"]), None) is None
    with pytest.raises(DatasetError, match=r"named by film and number, such as .*, not 'cat\.png'"):
        groups_of(named(["f_1.png", "cat.png"]), "films")
    with pytest.raises(DatasetError, match="puts all images into one group"):
        groups_of(named(film("f", range(2))), "films")
    with pytest.raises(DatasetError, match="has no column 'city'; a folder of files has none"):
        groups_of(open_images(tree(tmp_path / "tree")), "city")


def test_images_without_a_group_are_none(tmp_path: Path) -> None:
    """They would be drawn as one, though nothing says that they belong together."""
    film, number = ["a", None, " ", "b"], [1.0, 2.0, float("nan"), 1.0]
    images = open_images(table(tmp_path / "data", film=film, number=number))
    assert images.values("film") == ("a", "", " ", "b") and images.values("number") == ("1.0", "2.0", "", "1.0")
    with pytest.raises(DatasetError, match=r"2 of 4 images have no film, .* Fill the column"):
        groups_of(images, "film")
    with pytest.raises(DatasetError, match="1 of 4 images have no number"):
        groups_of(images, "number")


def test_empty_lists_and_no_classes_are_no_groups(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "tags": [["a"], [], ["b"], ["a"]],
        "weather": [0, -1, 1, -1],
        "key": [b"a", b"", b"b", b"b"],
    }
    images = open_images(table(tmp_path / "data", **columns))
    for column, without in (("tags", 1), ("weather", 2), ("key", 1)):
        with pytest.raises(DatasetError, match=f"{without} of 4 images have no {column}"):
            groups_of(images, column)


def test_frames_that_are_drawn_one_by_one_get_a_note() -> None:
    frames = named(film("a", range(9)))
    (note,) = group_notes(frames, None)
    assert "--groups films" in note
    assert group_notes(named(film("a", range(3))), None) and not group_notes(named(film("a", range(2))), None)
    assert group_notes(frames, "films") == [] == group_notes(named([f"{i:06}.png" for i in range(9)]), None)


def test_groups_are_drawn_whole() -> None:
    groups = np.array([0, 1, 1, 2, 0])

    def drawn(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
        for group in range(3):
            own = weights[:, groups == group]
            assert (own == own[:, :1]).all()
        assert weights.min() == 0 and weights.max() > 1
        return weights.sum(axis=1)

    sizes = score_resamples(np.zeros((5, 1)), drawn, groups)
    assert set(sizes) == {3, 4, 5, 6}  # three groups of two, two and one
    with pytest.raises(MetricError, match="groups of 5 images, but counts of 4"):
        score_resamples(np.zeros((4, 1)), drawn, groups)


def test_an_interval_over_runs_of_like_frames_is_wider() -> None:
    draw = np.random.default_rng(3)
    hits = np.repeat(draw.integers(20, 80, 8), 8)  # eight scenes of eight frames that are all alike
    counts = np.stack([np.stack([hits, 100 - hits, 0 * hits], axis=1)] * 2, axis=1)
    score = summed(mean_iou)
    single = interval(score_resamples(counts, score))
    runs = interval(score_resamples(counts, score, np.repeat(np.arange(8), 8)))
    assert 2 < (runs.high - runs.low) / (single.high - single.low) < 4  # by the root of eight


def test_a_merge_is_compared_with_the_best_parent_and_the_anchor() -> None:
    hits = np.array([[5, 6, 5, 6], [8, 8, 7, 9], [9, 8, 8, 9]])
    counts = np.stack([np.stack([hits, 10 - hits, 0 * hits], axis=2)] * 2, axis=2)
    classes = ScoredClasses(NAMES[:2], (0, 1))
    found = report(METRICS["semantic"], "d", ["a", "b", "merge"], counts, classes, kinds=["model", "model", "merge"])
    assert found.best_parent == 1 and found.models[1].to_best is None and found.models[2].merged
    merge = found.models[2]
    assert merge.to_best == pytest.approx(34 / 40 - 32 / 40) and merge.difference == pytest.approx(34 / 40 - 22 / 40)
    assert merge.to_best_interval is not None and merge.to_best_interval.low <= 0.05 <= merge.to_best_interval.high
    assert merge.to_best_interval == interval(merge.resamples - found.models[1].resamples)  # paired
    text = found.to_markdown()
    assert "The best parent is b." in text and "| merge | 85.00 |" in text and "| +5.00 |" in text
    models = found.to_dict()["models"]
    assert found.to_dict()["best_parent"] == "b" and models[2]["to_best_parent"] == pytest.approx(0.05)
    plain = report(METRICS["semantic"], "d", ["a", "b", "c"], counts, classes)
    assert plain.best_parent == 2 and "best parent" not in plain.to_markdown()  # nothing is a merge


def test_the_command_tells_merges_from_parents_and_draws_groups(tmp_path: Path) -> None:
    models = [segformer(tmp_path / name, seed) for seed, name in enumerate(("one", "two"), 1)]
    merged, data = tmp_path / "merged", table(tmp_path / "data")
    assert lwmm("merge", *models, "--output", merged).exit_code == 0
    done = lwmm("evaluate", merged, *models, "--data", data, "--groups", "place", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["intervals_over"] == "2 groups of one place"
    scores = {model["model"]: model for model in found["models"]}
    assert found["best_parent"] == max(("one", "two"), key=lambda name: scores[name]["mean"])
    best = scores[found["best_parent"]]
    assert scores["merged"]["to_best_parent"] == pytest.approx(scores["merged"]["mean"] - best["mean"])
    again = hf_lwmm.evaluate([merged, *models], data, evaluation=EvaluationSpec(groups="place"))
    assert again is not None and again.models[0].to_best == scores["merged"]["to_best_parent"]
    wrong = lwmm("evaluate", merged, "--data", data, "--groups", "films")
    assert wrong.exit_code == 1 and "named by film and number" in str(wrong.exception)
