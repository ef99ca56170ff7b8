"""Measurements are of one of several networks in a file, and say so and what was assumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from calls import lwmm
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import NAMES, segformer, tree

import hf_lwmm
from hf_lwmm import ImageSource, NetworkOptions
from hf_lwmm.errors import PlanError

LABELS = ",".join(NAMES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with a student and a teacher each, a file of two networks, and data."""
    folder = tmp_path_factory.mktemp("world")
    one, two = (load_file(segformer(folder / name, seed) / "model.safetensors") for seed, name in ((1, "a"), (2, "b")))
    torch.save({"student": one, "teacher": two}, folder / "one.pth")
    torch.save({"student": two, "teacher": one}, folder / "two.pth")
    both = {f"{name}.{key}": t.clone() for name, found in (("first", one), ("second", two)) for key, t in found.items()}
    save_file(both, folder / "both.safetensors")
    tree(folder / "data", 2)
    return folder


def measured(world: Path, model: str, branch: str, target: Path) -> Path:
    hf_lwmm.measure(
        world / model, ImageSource(world / "data", limit=1), target,
        protocol=LABELS, network=NetworkOptions(branch=branch, labels=(LABELS,)),
    )  # fmt: skip
    return target


def test_measurements_of_another_branch_are_refused(world: Path, tmp_path: Path) -> None:
    files = [measured(world, f"{name}.pth", "teacher", tmp_path / f"{name}.safetensors") for name in ("one", "two")]
    command = ["merge", world / "one.pth", world / "two.pth", "--method", "fisher", "--labels", LABELS]
    command += [part for file in files for part in ("--measurements", file)]
    done = lwmm(*command, "--branch", "student", "--output", tmp_path / "wrong")
    assert isinstance(done.exception, PlanError)
    assert "one.safetensors was measured on the branch 'teacher' of one.pth, but the branch 'student' is merged" in (
        str(done.exception)
    )
    assert not (tmp_path / "wrong").exists()
    done = lwmm(*command, "--branch", "teacher", "--output", tmp_path / "right")
    assert done.exit_code == 0, done.output


def test_a_sweep_refuses_them_too(world: Path, tmp_path: Path) -> None:
    files = [measured(world, f"{name}.pth", "teacher", tmp_path / f"{name}.safetensors") for name in ("one", "two")]
    models = (world / "one.pth", world / "two.pth")
    command = ["sweep", *models, "--methods", "fisher", "--labels", LABELS, "--data", world / "data"]
    command += ["--output", tmp_path / "s.parquet"]
    done = lwmm(*command, *(part for file in files for part in ("--measurements", file)))
    assert isinstance(done.exception, PlanError)
    assert "one.safetensors was measured on the branch 'teacher' of one.pth, but the branch 'student' is merged" in (
        str(done.exception)
    )
    files.reverse()
    done = lwmm(*command, "--branch", "teacher", *(part for file in files for part in ("--measurements", file)))
    assert isinstance(done.exception, PlanError)
    assert "two.safetensors was measured on two.pth, not on one.pth. Give one file for each" in str(done.exception)
    assert not (tmp_path / "s.parquet").exists()


def test_measurements_without_a_branch_are_read_as_before(world: Path, tmp_path: Path) -> None:
    files = [measured(world, f"{name}.pth", "teacher", tmp_path / f"{name}.safetensors") for name in ("one", "two")]
    for file in files:
        with safe_open(file, "pt") as stored:
            metadata = {name: text for name, text in stored.metadata().items() if name != "branch"}
        save_file(load_file(file), file, metadata)
    done = lwmm("merge", world / "one.pth", world / "two.pth", "--method", "fisher", "--labels", LABELS,
                "--measurements", files[0], "--measurements", files[1], "--output", tmp_path / "merged")  # fmt: skip
    assert done.exit_code == 0, done.output


def test_one_of_several_networks_in_a_file_is_measured(world: Path, tmp_path: Path) -> None:
    alone = measured(world, "b/model.safetensors", "student", tmp_path / "alone.safetensors")
    second = measured(world, "both.safetensors", "second", tmp_path / "second.safetensors")
    expected, found = load_file(alone), load_file(second)
    assert expected.keys() == found.keys() and all(torch.equal(expected[slot], found[slot]) for slot in expected)


def test_a_network_that_is_loaded_keeps_its_branch(world: Path, tmp_path: Path) -> None:
    loaded = hf_lwmm.load(world / "both.safetensors", NetworkOptions(branch="first", labels=(LABELS,)))
    hf_lwmm.measure(loaded, ImageSource(world / "data", limit=1), tmp_path / "f.safetensors", kind="grams")
    with safe_open(tmp_path / "f.safetensors", "pt") as stored:
        assert stored.metadata()["branch"] == "first"


def test_what_was_assumed_is_told(world: Path, tmp_path: Path) -> None:
    command = ("--data", world / "data", "--limit", 1, "--labels", LABELS)
    done = lwmm("measure", world / "both.safetensors", *command, "--branch", "first", "--output",
                tmp_path / "f.safetensors")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "both.safetensors: took the" in done.stderr
    assert "its ids were taken for both.safetensors's (--protocol)" in done.stderr
    assert done.stdout.startswith("Measured fisher on 1 images; written to")


def test_the_numbering_of_ids_is_told(tmp_path: Path) -> None:
    model, data = segformer(tmp_path / "model", 1), tree(tmp_path / "data", 1)
    settings = {"image_processor_type": "SegformerImageProcessor", "do_resize": False, "do_reduce_labels": True}
    (model / "preprocessor_config.json").write_text(json.dumps(settings))
    found = hf_lwmm.measure(model, ImageSource(data, "validation"), tmp_path / "f.safetensors")
    assert any("do_reduce_labels), and so were ids read: 1 is the first class" in note for note in found.notes)
