"""Merging classifiers: heads, rows and label sets."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import calls
import numpy as np
import pytest
from manifests import Arrays, slot_map, stored, to_slots, write
from merged import merged, tiny
from safetensors.numpy import load_file

import hf_lwmm
from hf_lwmm.recipes.recipe import read_recipe

pytestmark = pytest.mark.usefixtures("without_plots")


def test_heads_align_across_layouts(tmp_path: Path) -> None:
    systems = ("transformers_segformer_b0_hub_legacy", "nvlabs_segformer_b0", "smp_segformer_mit_b0")
    anchors, others = ({system: stored(system, seed) for system in systems} for seed in (1, 2))
    results = []
    for first, second in itertools.product(systems, repeat=2):
        values = to_slots(merged(tmp_path, anchors[first], others[second]))
        results.append({s: v.tobytes() for s, v in values.items() if not s.startswith("segformer.unused")})
    for result in results:
        integers = {s for s in result if s.endswith("num_batches_tracked")}
        assert {s: v for s, v in result.items() if s not in integers} == {
            s: v for s, v in results[0].items() if s not in integers
        }


def test_heads_of_other_sizes_stay_the_anchors(tmp_path: Path) -> None:
    anchor = tiny(1, classes=19)
    result = merged(tmp_path, anchor, tiny(2, classes=150))
    assert np.array_equal(result["classifier.weight"], anchor["classifier.weight"])
    assert not np.array_equal(result["block.1.conv.weight"], anchor["block.1.conv.weight"])


def labelled(folder: Path, arrays: Arrays, labels: list[str]) -> Path:
    write(folder / "model.safetensors", arrays)
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(labels))}))
    return folder


def with_classes(system: str, seed: int, rows: int) -> Arrays:
    arrays = stored(system, seed, shrink=8)
    for leaf in ("weight", "bias"):
        arrays[f"decode_head.classifier.{leaf}"] = arrays[f"decode_head.classifier.{leaf}"][:rows]
    return arrays


def test_classifiers_merge_only_between_equal_label_sets(tmp_path: Path) -> None:
    system, name = "transformers_segformer_b0_hub_legacy", "decode_head.classifier.weight"
    labels = [f"c{i}" for i in range(19)]
    first, second = with_classes(system, 1, 19), with_classes(system, 2, 19)
    one = labelled(tmp_path / "one", first, labels)
    same = labelled(tmp_path / "same", second, labels)
    other = labelled(tmp_path / "other", second, labels[::-1])
    for path, shared in ((same, True), (other, False)):
        done = calls.merge([one, path], output=tmp_path / "out", overwrite=True, alpha=0.5, start=0.9)
        kept = "The classifier stays one's: other has another label set (--head by-label matches rows by name)"
        assert (kept in done.notes) != shared
        result = load_file(tmp_path / "out" / "model.safetensors")
        assert np.array_equal(result[name], first[name]) != shared
        plan = calls.plan([one, path])
        assert any("another label set" in entry.reason for entry in plan.alignment.unshared) != shared


def test_rows_of_a_classifier_are_matched_by_label(tmp_path: Path) -> None:
    system, name = "transformers_segformer_b0_hub_legacy", "decode_head.classifier.weight"
    first, second = with_classes(system, 1, 4), with_classes(system, 2, 3)
    one = labelled(tmp_path / "one", first, ["road", "sky", "car", "tree"])
    two = labelled(tmp_path / "two", second, ["car", "road", "bus"])
    calls.merge([one, two], output=tmp_path / "out", head="by-label")
    result = load_file(tmp_path / "out" / "model.safetensors")[name]
    plan = calls.plan([one, two], head="by-label")
    weight = next(plan.slot_weights(s)[1] for s in plan.alignment.shared if s.slot == "segformer.classifier.weight")
    for row, source in enumerate((1, None, 0, None)):
        mine = first[name][row]
        expected = mine if source is None else mine + (second[name][source] - mine) * np.float32(weight)
        assert np.array_equal(result[row], expected)


@pytest.mark.parametrize("method", ["slerp", "task-arithmetic", "model-stock", "wise"])
def test_rows_that_only_the_anchor_has_stay_its_own_by_every_method(method: str, tmp_path: Path) -> None:
    system, name = "transformers_segformer_b0_hub_legacy", "decode_head.classifier.weight"
    first = with_classes(system, 1, 3)
    one = labelled(tmp_path / "one", first, ["road", "sky", "car"])
    two = labelled(tmp_path / "two", with_classes(system, 2, 2), ["car", "road"])
    base = labelled(tmp_path / "base", with_classes(system, 3, 3), ["road", "sky", "car"])
    given = {} if method == "slerp" else {"base": base}
    calls.merge([one, two], output=tmp_path / "out", method=method, head="by-label", **given)
    result = load_file(tmp_path / "out" / "model.safetensors")[name]
    assert [np.array_equal(*rows) for rows in zip(result, first[name], strict=True)] == [False, True, False]


def test_named_label_sets_tell_gtas_classes_from_synthias(tmp_path: Path) -> None:
    from hf_lwmm.labels import label_sets

    system, name = "hrda_mitb5", "decode_head.head.conv_seg.weight"
    paths, models = [], []
    for seed, rows in ((1, 19), (2, 16)):
        arrays = stored(system, seed, shrink=16)
        arrays = {n: a[:rows] if a.shape[:1] == (19,) else a for n, a in arrays.items()}
        models.append(arrays)
        paths.append(write(tmp_path / f"{rows}.safetensors", arrays))
    unlabelled = calls.plan(paths)
    assert not any("classifier" in s.slot for s in unlabelled.alignment.shared)
    labels = ["cityscapes19", "synthia16"]
    excluded = calls.plan(paths, labels=labels)
    reasons = {u.slot: u.reason for u in excluded.alignment.unshared if u.model == 0 and "classifier" in u.slot}
    assert "another label set (--head by-label" in reasons["daformer.classifier.weight"]
    command = [sys.executable, "-m", "hf_lwmm", "merge", *map(str, paths), "--output", str(tmp_path / "out")]
    command += ["--head", "by-label", "--ramp", "step", "--labels", "cityscapes19", "--labels", "synthia16"]
    done = subprocess.run([*command, "--start", "0.98", "--granularity", "block"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = load_file(tmp_path / "out" / "model.safetensors")[name]
    common = {i for i, c in enumerate(label_sets()["cityscapes19"].classes) if c in label_sets()["synthia16"].classes}
    assert len(common) == 16 and common == {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18}
    slot = "daformer.classifier.weight"
    options = {"head": "by-label", "ramp": "step", "start": 0.98, "granularity": "block", "labels": labels}
    decided = calls.plan(paths, **options)
    weight = next(decided.slot_weights(s)[1] for s in decided.alignment.shared if s.slot == slot)
    for row, label in enumerate(label_sets()["cityscapes19"].classes):
        mine = models[0][name][row]
        if row in common:
            theirs = models[1][name][label_sets()["synthia16"].classes.index(label)]
            mine = mine + (theirs - mine) * np.float32(weight)
        assert np.array_equal(result[row], mine), label


def test_label_sets_come_from_files_too_and_must_fit(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        arrays = with_classes("transformers_segformer_b0_hub_legacy", seed, 3)
        paths.append(write(tmp_path / f"{seed}.safetensors", arrays))
    (tmp_path / "classes.txt").write_text("road\nsky\n\ncar\n")
    from_file = calls.plan(paths, labels=[tmp_path / "classes.txt"])
    assert from_file.checkpoints[0].classes == ("road", "sky", "car") and not from_file.alignment.notes
    assert from_file.knobs == calls.plan(paths, labels=["road,sky,car"]).knobs
    calls.merge(paths, output=tmp_path / "out", labels=[tmp_path / "classes.txt"])
    recipe = read_recipe((tmp_path / "out" / "hf_lwmm.yaml").read_text())
    assert recipe.knobs.labels == (("road", "sky", "car"),)
    assert "--labels road,sky,car" in (tmp_path / "out" / "README.md").read_text()
    for labels, message in (
        (["voc"], r"--labels voc \(21 classes\) fits no model"),
        (["cityscape"], "cityscape is not a label set .*cityscapes19.* no such file"),
        ([tmp_path / "1.safetensors"], "cannot be read as a file"),
        (["road,road,car"], "list of classes names a class twice"),
    ):
        with pytest.raises(hf_lwmm.HfLwmmError, match=message):
            calls.plan(paths, labels=labels)


def test_head_anchor_merges_the_backbone_alone(tmp_path: Path) -> None:
    first, second = (stored("nvlabs_segformer_b0", seed, shrink=8) for seed in (1, 2))
    result = merged(tmp_path, first, second, head="anchor")
    changed = {name.split(".")[0] for name in result if not np.array_equal(result[name], first[name])}
    assert changed == {"backbone"}


def test_unused_classifiers_are_the_anchors(tmp_path: Path) -> None:
    first, second = (stored("nvlabs_segformer_b0", seed, shrink=8) for seed in (1, 2))
    result = merged(tmp_path, first, second)
    assert np.array_equal(result["decode_head.conv_seg.weight"], first["decode_head.conv_seg.weight"])
    assert "segformer.unused_classifier.weight" in slot_map("nvlabs_segformer_b0").slots


def test_classes_that_nobody_names_are_taken_to_agree_and_said_to_be(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", stored("nvlabs_segformer_b0", i, shrink=8)) for i in (1, 2)]
    result = calls.merge(paths, output=tmp_path / "out")
    said = "No model names its classes; rows of one place were taken for the same class."
    assert sum(said in warning for warning in result.warnings) == 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert said in card and "those of the others" not in card
