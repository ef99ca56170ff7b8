"""`sweep --confirm`: the winner's score on images that did not choose it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from calls import lwmm, merge
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from tiny import scene, segformer, tree

import hf_lwmm
from hf_lwmm import ImageSource, SweepAxes, SweepRun
from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.evaluation.report import EvaluationReport, report
from hf_lwmm.evaluation.task_metrics import METRICS
from hf_lwmm.localhub import LocalHub
from hf_lwmm.sweeping.confirmation import Confirmation


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and data with the splits val and test."""
    folder = tmp_path_factory.mktemp("world")
    for seed, name in enumerate(("one", "two"), 1):
        segformer(folder / name, seed)
    tree(folder / "data", 4, "images/val", "labels/val")
    tree(folder / "data", 6, "images/test", "labels/test")
    for kind in ("images", "labels"):
        (folder / "data" / kind / "test" / "0.png").unlink()  # begins with another scene than val
    tree(folder / "one tree", 2)
    return folder


def test_the_winner_is_scored_on_a_split_that_did_not_choose_it(world: Path, tmp_path: Path) -> None:
    models, images = [world / "one", world / "two"], ImageSource(world / "data", split="val")
    axes, run = SweepAxes(anchors="first", methods=("isotropic",)), SweepRun(confirm="test")
    found = hf_lwmm.sweep(models, images, tmp_path / "a.parquet", axes=axes, run=run)
    again = found.confirmation
    assert isinstance(again, Confirmation) and again.report.images == 5 and again.split == "test"
    own = again.report.models[again.winner]
    assert own.name == found.best.name and own.merged == (found.best.candidate.kind == "merge")
    merge(models, method="isotropic", output=tmp_path / "merged")
    scored = hf_lwmm.evaluate([*models, tmp_path / "merged"], ImageSource(world / "data", split="test"))
    assert scored is not None
    by_name = dict(zip(["one", "two", "isotropic of one*, two"], scored.models, strict=True))
    for each in again.report.models:
        assert each.mean == by_name[each.name].mean
    assert own.to_best == by_name[own.name].to_best
    assert (
        f"On test (5 images), which did not choose it, {found.best.name} has {100 * own.mean:.2f} mIoU" in found.remarks
    )
    assert "The best of 3 was chosen by these very scores" in found.remarks
    plain = hf_lwmm.sweep(models, images, tmp_path / "a.parquet", axes=axes)
    assert plain.confirmation is None and "score it on other images (--confirm SPLIT)." in plain.remarks


def test_the_command_reports_the_confirmation(world: Path, tmp_path: Path) -> None:
    command = ["sweep", world / "one", world / "two", "--data", world / "data", "--split", "val", "--anchors", "first"]
    done = lwmm(*command, "--confirm", "test", "--target", "new", "--output", tmp_path / "a.parquet", "--json")
    assert done.exit_code == 0, done.stderr
    assert "Advice: --method isotropic" in done.stderr
    found = json.loads(done.stdout)
    assert (
        found["confirmation"]["split"] == "test"
        and found["confirmation"]["winner"] == found["candidates"][0]["candidate"]
    )
    assert found["advice"]["method"] == "isotropic" and np.isfinite(found["confirmation"]["models"][0]["mean"])


def test_a_confirmation_says_at_which_commit_the_data_were(hub: LocalHub, world: Path, tmp_path: Path) -> None:
    rows = {split: [scene(seed) for seed in seeds] for split, seeds in {"validation": (1, 2), "test": (3, 4)}.items()}
    for split, scenes in rows.items():
        columns = {"image": [image for image, _ in scenes], "label": [Image.fromarray(label) for _, label in scenes]}
        features = Features({"image": ImageFeature(), "label": ImageFeature()})
        Dataset.from_dict(columns, features=features).push_to_hub("org/confirming", split=split)
    models, run = [world / "one", world / "two"], SweepRun(confirm="test")
    found = hf_lwmm.sweep(models, "org/confirming", tmp_path / "a.parquet", run=run)
    assert found.confirmation is not None and found.confirmation.report.commit == found.data.commit is not None


def test_images_that_choose_confirm_nothing(world: Path, tmp_path: Path) -> None:
    models, output = [world / "one", world / "two"], tmp_path / "a.parquet"
    with pytest.raises(
        PlanError, match=r"--confirm validation: 4 of the 4 images of data, split validation choose the winner"
    ):
        images = ImageSource(world / "data", split="val")
        hf_lwmm.sweep(models, images, output, run=SweepRun(confirm="validation"))
    with pytest.raises(DatasetError, match="no images with labels of the split dev"):
        hf_lwmm.sweep(models, ImageSource(world / "data", split="val"), output, run=SweepRun(confirm="dev"))
    assert not output.exists()


def test_slices_and_sums_of_splits_confirm_with_rows_of_their_own_alone(world: Path, tmp_path: Path) -> None:
    models, folder = [world / "one", world / "two"], tmp_path / "rows"
    folder.mkdir()
    for split, seeds in {"validation": range(6), "test": range(6, 9)}.items():
        scenes = [scene(seed) for seed in seeds]
        columns = {"image": [image for image, _ in scenes], "label": [Image.fromarray(label) for _, label in scenes]}
        features = Features({"image": ImageFeature(), "label": ImageFeature()})
        Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")

    def swept(split: str, confirm: str, limit: int | None = None) -> Confirmation | None:
        images = ImageSource(folder, split=split, limit=limit)
        return hf_lwmm.sweep(
            models,
            images,
            tmp_path / "a.parquet",
            axes=SweepAxes(methods=("isotropic",)),
            run=SweepRun(confirm=confirm),
        ).confirmation

    refused = {
        "validation[4:]": "2 of the 2",
        "test+validation[:1]": "1 of the 4",
        "validation+validation": "12 of the 12",
        "all": "6 of the 9",
    }
    for confirm, shared in refused.items():
        with pytest.raises(PlanError, match=f"{shared} images of .* choose the winner"):
            swept("validation", confirm)
    with pytest.raises(PlanError, match="1 of the 3 images"):
        swept("validation[:50%]", "validation[2:5]")
    halves = swept("validation[:50%]", "validation[50%:]")
    assert halves is not None and halves.report.images == 3
    (tmp_path / "a.parquet").unlink()
    rest = swept("validation", "validation[2:]", limit=2)
    assert rest is not None and rest.report.images == 2


def test_links_to_images_that_choose_confirm_nothing(world: Path, tmp_path: Path) -> None:
    tree(tmp_path / "data", 3, "images/val", "labels/val")
    tree(tmp_path / "data", 2, "images/test", "labels/test")
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind / "test" / "1.png").unlink()
        (tmp_path / "data" / kind / "test" / "9.png").symlink_to(tmp_path / "data" / kind / "val" / "2.png")
    with pytest.raises(PlanError, match="--confirm test: 1 of the 2 images of data, split test choose the winner"):
        images, run = ImageSource(tmp_path / "data", split="val"), SweepRun(confirm="test")
        hf_lwmm.sweep([world / "one", world / "two"], images, tmp_path / "a.parquet", run=run)


def test_copies_of_the_images_that_choose_confirm_nothing_but_one_like_them_does(world: Path, tmp_path: Path) -> None:
    tree(tmp_path / "data", 3, "images/val", "labels/val")
    tree(tmp_path / "data", 3, "images/test", "labels/test")
    models, images = [world / "one", world / "two"], ImageSource(tmp_path / "data", split="val")
    with pytest.raises(PlanError, match="split test holds the images that choose the winner"):
        hf_lwmm.sweep(models, images, tmp_path / "a.parquet", run=SweepRun(confirm="test"))
    for split, count, scenes in (("longer", 4, (0, 5, 2, 6)), ("other", 3, (0, 1, 7))):
        tree(tmp_path / "data", count, f"images/{split}", f"labels/{split}")
        for place, seed in enumerate(scenes):
            scene(seed)[0].save(tmp_path / "data" / "images" / split / f"{place}.png")
        axes, run = SweepAxes(methods=("isotropic",), anchors="first"), SweepRun(confirm=split)
        found = hf_lwmm.sweep(models, images, tmp_path / f"{split}.parquet", axes=axes, run=run)
        assert found.confirmation is not None and found.confirmation.report.images == count


def test_a_folder_without_splits_confirms_nothing_and_says_which_folders_would(world: Path, tmp_path: Path) -> None:
    models, flat, output = [world / "one", world / "two"], world / "one tree", tmp_path / "a.parquet"
    with pytest.raises(PlanError, match=r"--confirm test: .*one tree has no splits, so .* all its images") as raised:
        hf_lwmm.sweep(models, ImageSource(flat), output, run=SweepRun(confirm="test"))
    for folder in ("test/images", "test/labels", "val/images", "val/labels"):
        assert f"{flat}/{folder}" in str(raised.value)
    with pytest.raises(PlanError, match=r"tree/test/images .*tree/val/images .*; then --confirm test\."):
        hf_lwmm.sweep(models, ImageSource(flat), output, run=SweepRun(confirm="val"))
    tree_of = tmp_path / "divided"
    tree(tree_of, 2, "val/images", "val/labels")
    tree(tree_of, 3, "test/images", "test/labels")
    assert [open_images(ImageSource(tree_of, split=split)).count for split in ("val", "test")] == [2, 3]
    assert open_images(flat).name == "one tree" and open_images(tree_of).name == "divided, split validation"


def test_the_verdict_on_a_winning_merge_is_that_of_the_images_that_did_not_choose_it() -> None:
    """Also where those that chose it were too few to tell."""

    def on(few: int) -> EvaluationReport:
        hits = np.array([[2] * few, [8] * few])
        counts = np.stack([hits, 10 - hits, 0 * hits], axis=-1)[:, :, None]
        classes = ScoredClasses(("road",), (0,))
        return report(METRICS["semantic"], "d", ["a", "merge"], counts, classes, kinds=["model", "merge"])

    assert on(4).verdict is not None and not on(4).verdict.merged
    found = Confirmation("test", on(8), 1).verdict
    assert found is not None and found.merged and found.sentence == "Take merge: +60.0 (60.0 to 60.0) over a, on test."
    assert Confirmation("test", on(8), 0).verdict is None  # of a model that won, those that chose it tell more
