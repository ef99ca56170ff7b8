"""`sweep --confirm`: the winner's score on images that did not choose it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from calls import lwmm, merge
from tiny import segformer, tree

import hf_lwmm
from hf_lwmm import ImageSource, SweepAxes, SweepRun
from hf_lwmm.errors import DatasetError, PlanError
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


def test_images_that_choose_confirm_nothing(world: Path, tmp_path: Path) -> None:
    models, output = [world / "one", world / "two"], tmp_path / "a.parquet"
    for data, split in (("data", "validation"), ("one tree", "test")):  # another name, and a tree without splits
        images = ImageSource(world / data, split="val")
        with pytest.raises(PlanError, match=f"--confirm {split}: .* holds the images that choose the winner"):
            hf_lwmm.sweep(models, images, output, run=SweepRun(confirm=split))
    with pytest.raises(DatasetError, match="no images with labels of the split dev"):
        hf_lwmm.sweep(models, ImageSource(world / "data", split="val"), output, run=SweepRun(confirm="dev"))
    assert not output.exists()
