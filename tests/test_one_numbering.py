"""Models whose scores are compared are scored with the same numbering of ids, whatever their order."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from calls import lwmm
from PIL import Image
from tiny import NAMES, segformer, tree

import hf_lwmm
from hf_lwmm import EvaluationSpec, ImageSource
from hf_lwmm.errors import DatasetError

PROCESSOR = {"image_processor_type": "SegformerImageProcessor", "do_resize": False}
REMEDY = r"from 1 for reduced, .*\(do_reduce_labels\), but from 0 for plain\. .*: --ids from-1 or --ids from-0\."


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that read labels from 0 and from 1, and data that fit both."""
    folder = tmp_path_factory.mktemp("world")
    for seed, (name, reduce) in enumerate((("plain", False), ("reduced", True), ("other", True))):
        segformer(folder / name, seed)
        (folder / name / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "do_reduce_labels": reduce}))
    for path in (tree(folder / "data", 2) / "labels").iterdir():
        label = np.array(Image.open(path))
        label[label == 255] = 0
        Image.fromarray(label).save(path)
    return folder


def paths(world: Path, *names: str) -> list[Path]:
    return [world / name for name in names]


@pytest.mark.parametrize("order", [*permutations(("plain", "reduced"))])
def test_models_that_number_ids_differently_are_refused_in_any_order(order: tuple[str, ...], world: Path) -> None:
    with pytest.raises(DatasetError, match=REMEDY):
        hf_lwmm.evaluate(paths(world, *order), world / "data")
    with pytest.raises(DatasetError, match=REMEDY):
        hf_lwmm.evaluate(paths(world, *order), world / "data", evaluation=EvaluationSpec(protocol=",".join(NAMES)))


@pytest.mark.parametrize("order", [*permutations(("plain", "reduced"))])
def test_a_merge_refuses_them_before_it_merges(
    order: tuple[str, ...], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_lwmm.api.merged_files.write_network", None)
    command = ("merge", *paths(world, *order), "--eval-data", world / "data", "--output", tmp_path / "out")
    done = lwmm(*command)
    assert isinstance(done.exception, DatasetError)
    assert "for all: --eval-ids from-1 or --eval-ids from-0." in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "said"), [
    (["--eval-data", "a/b/c"], "a/b/c: neither a folder here nor org/name"),
    (["--eval-data", "org/x", "--eval-ids", "cityscape"], "--eval-ids cityscape is not one of cityscapes, gta"),
    (["--method", "greedy-soup", "--tune-data", "org/x", "--tune-ids", "voc2"], "--tune-ids voc2 is not one of"),
])  # fmt: skip
def test_images_that_nothing_can_name_are_refused_first(options: list[str], said: str, tmp_path: Path) -> None:
    done = lwmm("merge", tmp_path / "no model", tmp_path / "no other", *options)
    assert isinstance(done.exception, DatasetError) and said in str(done.exception)


def test_a_merges_scores_tell_its_own_options(world: Path, tmp_path: Path) -> None:
    done = lwmm("merge", *paths(world, "reduced", "other"), "--eval-data", world / "data", "--json",
                "--output", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    notes = json.loads(done.stdout)["evaluation"]["notes"]
    assert any("(else --eval-ids from-0)" in note for note in notes) and not any(" --ids" in note for note in notes)


@pytest.mark.parametrize("scheme", ["from-0", "from-1"])
def test_the_named_numbering_settles_it_for_all(scheme: str, world: Path) -> None:
    scores = []
    for order in permutations(("plain", "reduced")):
        found = hf_lwmm.evaluate(paths(world, *order), ImageSource(world / "data", ids=scheme))
        assert found is not None
        scores.append({each.name: each.mean for each in found.models})
    assert scores[0] == scores[1]


def test_models_that_agree_are_read_as_they_say(world: Path) -> None:
    found = hf_lwmm.evaluate(paths(world, "reduced", "other"), world / "data")
    named = hf_lwmm.evaluate(paths(world, "reduced", "other"), ImageSource(world / "data", ids="from-1"))
    assert found is not None and named is not None
    assert [each.mean for each in found.models] == [each.mean for each in named.models]
    assert sum("takes 1 off every id" in note for note in found.notes) == 1


@pytest.mark.parametrize("order", [*permutations(("plain", "reduced"))])
def test_a_sweep_scores_all_candidates_with_one_numbering(order: tuple[str, ...], world: Path, tmp_path: Path) -> None:
    command = ("sweep", *paths(world, *order), "--data", world / "data", "--output", tmp_path / "s.parquet")
    done = lwmm(*command)
    assert isinstance(done.exception, DatasetError) and "--ids from-1 or --ids from-0." in str(done.exception)
    assert not (tmp_path / "s.parquet").exists()
    done = lwmm(*command, "--ids", "from-1", "--json")
    assert done.exit_code == 0, done.output
    swept = {each["candidate"]: each["score"] for each in json.loads(done.stdout)["candidates"]}
    found = hf_lwmm.evaluate(paths(world, *order), ImageSource(world / "data", ids="from-1"))
    assert found is not None and len(swept) == 4
    assert all(swept[each.name] == pytest.approx(each.mean) for each in found.models)


def test_a_sweep_of_models_that_agree_is_that_of_the_named_numbering(world: Path, tmp_path: Path) -> None:
    models, tables = paths(world, "reduced", "other"), []
    for ids in (None, "from-1"):
        found = hf_lwmm.sweep(models, ImageSource(world / "data", ids=ids), tmp_path / f"{ids}.parquet")
        tables.append({row.name: row.score for row in found.rows})
    assert tables[0] == tables[1] and len(tables[0]) == 4
