"""What a sweep refuses before it scores anything."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from sweeps import paths, write_world
from transformers import SegformerForSemanticSegmentation

import hf_lwmm
from hf_lwmm import (
    ImageSource,
    Knobs,
    MergeInputs,
    SweepAxes,
    SweepRun,
)
from hf_lwmm.errors import ExtraError, MergeError, PlanError, SweepError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_bad_input_is_refused_in_one_line(world: Path, tmp_path: Path) -> None:
    data, file, search, ties = world / "data", tmp_path / "x.parquet", SweepRun(search=2), SweepAxes(methods=("ties",))
    given: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("A sweep needs at least two models", 1, {}),
        ("None of these merges can be carried out: --method ties needs --base", 2, {"axes": ties}),
        ("--search tries start, alpha and ramp of layerwise", 2, {"run": search, "axes": SweepAxes(start=(0.5,))}),
        ("--search tries start", 2, {"run": search, "axes": SweepAxes(bn_stats=("linear", "anchor"))}),
        ("--keep no.slot fits no slot of one", 2, {"run": search, "axes": SweepAxes(fixed=Knobs(keep=("no.slot",)))}),
        (
            "--measurements takes one file for each of the 2 models, not 1", 2,
            {"inputs": MergeInputs(measurements=(world / "base",))},
        ),
        ("A sweep makes no use of tune_images", 2, {"inputs": MergeInputs(tune_images=data)}),
        (
            "no use of the network options in its inputs",
            2,
            {"inputs": MergeInputs(network=hf_lwmm.NetworkOptions(device="cuda"))},
        ),
        (
            "--method adaptive needs images of its own", 2, {"axes": SweepAxes(methods=("isotropic", "adaptive"))},
        ),
        (
            "--bn-stats recalibrate needs images of its own", 2,
            {"axes": SweepAxes(bn_stats=("linear", "recalibrate"))},
        ),
    )  # fmt: skip
    for message, count, options in given:
        with pytest.raises(PlanError, match=re.escape(message)) as caught:
            hf_lwmm.sweep(paths(world)[:count], data, file, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(MergeError, match="is a folder"):
        hf_lwmm.sweep(paths(world), data, tmp_path)
    assert not any(tmp_path.iterdir())


def test_without_ray_its_cluster_is_refused(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ExtraError, match=re.escape("--ray needs ray, which is not installed: pip install 'hf-lwmm[ray]'")
    ):
        hf_lwmm.sweep(paths(world), world / "data", tmp_path / "x.parquet", run=SweepRun(ray="nowhere:1"))
    assert not any(tmp_path.iterdir())


def test_without_optuna_a_search_is_refused(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ExtraError, match=re.escape("--search needs optuna, which is not installed: pip install")):
        hf_lwmm.sweep(paths(world), world / "data", tmp_path / "x.parquet", run=SweepRun(search=1))
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="--ray nowhere:1: no cluster there"):
        hf_lwmm.sweep(paths(world), world / "data", tmp_path / "x.parquet", run=SweepRun(ray="nowhere:1"))
    assert not any(tmp_path.iterdir())


def test_models_that_name_their_classes_differently_need_a_protocol(world: Path, tmp_path: Path) -> None:
    network = SegformerForSemanticSegmentation.from_pretrained(world / "two")
    network.config.id2label = {0: "car", 1: "road", 2: "sky"}
    network.save_pretrained(tmp_path / "turned")
    with pytest.raises(hf_lwmm.HfLwmmError, match="--protocol says which classes"):
        hf_lwmm.sweep(
            [world / "one", tmp_path / "turned"],
            ImageSource(world / "data", limit=1),
            tmp_path / "x.parquet",
            axes=SweepAxes(fixed=Knobs(head="anchor")),
        )
