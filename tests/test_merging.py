"""Merging, through the public function, on local files."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import calls
import numpy as np
import pytest
from huggingface_hub import HfApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import Arrays, slot_map, stored, to_slots, write
from safetensors import safe_open
from safetensors.numpy import load_file, save

import hf_lwmm
from hf_lwmm.checkpoints.dtypes import narrow, widen
from hf_lwmm.engine.streaming import write_merged
from hf_lwmm.errors import AlignmentError, CheckpointError, MergeError, PlanError
from hf_lwmm.files.scratch import tidy
from hf_lwmm.localhub import LocalHub
from hf_lwmm.methods.schedule import layerwise_weights
from hf_lwmm.planning.recipe import read_recipe

MIT_B0 = {
    "transformers": ("transformers_segformer_b0_hub_legacy", "segformer."),
    "runtime": ("transformers_segformer_b0_runtime", "segformer."),
    "nvidia": ("nvlabs_segformer_b0", "backbone."),
    "mmseg": ("mmseg1x_segformer_b0", "backbone."),
    "smp": ("smp_segformer_mit_b0", "encoder."),
}


def tiny(seed: int, classes: int = 3) -> Arrays:
    """A network that no layout knows: two blocks and a classifier."""
    draw = np.random.default_rng(seed)
    arrays = {}
    for block in (1, 2, 10):
        arrays[f"block.{block}.conv.weight"] = draw.standard_normal((4, 4, 3, 3)).astype(np.float32)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"block.{block}.bn.{leaf}"] = draw.uniform(0.5, 1.5, 4).astype(np.float32)
        arrays[f"block.{block}.bn.num_batches_tracked"] = np.array(100 * seed, np.int64)
    arrays["classifier.weight"] = draw.standard_normal((classes, 4)).astype(np.float32)
    return arrays


def merged(tmp_path: Path, *models: Arrays, **options: object) -> Arrays:
    paths = [write(tmp_path / f"model{i}.safetensors", model) for i, model in enumerate(models)]
    calls.merge(paths, output=tmp_path / "out", overwrite=True, **options)
    return load_file(tmp_path / "out" / "model.safetensors")


def test_every_weight_is_equation_one(tmp_path: Path) -> None:
    models = [tiny(seed) for seed in (1, 2, 3)]
    result = merged(tmp_path, *models)
    plan = calls.plan([tmp_path / f"model{i}.safetensors" for i in range(3)])
    weights = layerwise_weights(plan.alignment.positions, 3, 0)
    assert plan.alignment.positions == 16
    for shared in plan.alignment.shared:
        exact = sum(
            w * m[shared.slot].astype(np.float64) for w, m in zip(weights[shared.position - 1], models, strict=True)
        )
        np.testing.assert_allclose(result[shared.slot], exact, rtol=3e-7, atol=3e-7)
    order = [shared.slot for shared in plan.alignment.shared]
    assert [name.split(".")[1] for name in order[:-1]] == ["1"] * 5 + ["2"] * 5 + ["10"] * 5
    assert order[:4] == [f"block.1.bn.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
    assert order[-1] == "classifier.weight" and np.array_equal(result[order[-1]], models[0][order[-1]])


@pytest.mark.parametrize(("first", "second"), list(itertools.product(MIT_B0, repeat=2)))
def test_any_mix_of_layouts_gives_the_same_slots(first: str, second: str, tmp_path: Path) -> None:
    def backbone(layout: str, seed: int) -> Arrays:
        system, prefix = MIT_B0[layout]
        return stored(system, seed, keep=prefix)

    expected = to_slots(merged(tmp_path / "nvidia", backbone("nvidia", 1), backbone("nvidia", 2)))
    result = to_slots(merged(tmp_path / "mixed", backbone(first, 1), backbone(second, 2)))
    assert len(result) == 192 and result.keys() == expected.keys()
    for slot, values in expected.items():
        assert values.tobytes() == result[slot].tobytes(), slot


def test_heads_align_across_layouts(tmp_path: Path) -> None:
    systems = ("transformers_segformer_b0_hub_legacy", "nvlabs_segformer_b0", "smp_segformer_mit_b0")
    results = []
    for first, second in itertools.product(systems, repeat=2):
        values = to_slots(merged(tmp_path, stored(first, 1), stored(second, 2)))
        results.append({s: v.tobytes() for s, v in values.items() if not s.startswith("segformer.unused")})
    for result in results:
        integers = {s for s in result if s.endswith("num_batches_tracked")}
        assert {s: v for s, v in result.items() if s not in integers} == {
            s: v for s, v in results[0].items() if s not in integers
        }


@pytest.mark.parametrize("order", ["depth", "file"])
@pytest.mark.parametrize("granularity", ["parameter", "module", "block", "stage"])
def test_positions_are_as_coarse_as_asked(granularity: str, order: str, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", stored("nvlabs_segformer_b0", i)) for i in (1, 2)]
    plan = calls.plan(paths, granularity=granularity, order=order)
    # 95 modules but for k and v (stored as one), the four projections side by side, 8 blocks, 4 stages and a head.
    expected = {"parameter": 2 * 92 - 1 + 2, "module": 92, "block": 8 + 8 + 6, "stage": 5}
    positions = {shared.slot: shared.position for shared in plan.alignment.shared}
    assert max(positions.values()) == plan.alignment.positions == len(set(positions.values()))
    assert plan.alignment.positions == expected[granularity]
    if order == "depth":
        assert positions["mit.stage0.block0.norm1.weight"] <= positions["mit.stage1.embed.proj.weight"]
    elif granularity != "stage":
        assert positions["mit.stage3.embed.proj.weight"] < positions["mit.stage0.block0.norm1.weight"]


def test_a_model_merged_with_itself_is_itself(tmp_path: Path) -> None:
    model = tiny(1)
    for copies in (2, 3, 5):
        result = merged(tmp_path, *[model] * copies)
        assert all(values.tobytes() == model[name].tobytes() for name, values in result.items())


def test_key_order_in_a_file_changes_nothing(tmp_path: Path) -> None:
    import torch

    results = []
    for reverse in (False, True):
        paths = []
        for seed in (1, 2):
            state = {n: torch.from_numpy(a) for n, a in sorted(tiny(seed).items(), reverse=reverse)}
            paths.append(tmp_path / f"{seed}{reverse}.pth")
            torch.save(state, paths[-1])
        calls.merge(paths, output=tmp_path / f"out{reverse}")
        results.append((tmp_path / f"out{reverse}" / "model.safetensors").read_bytes())
    assert results[0] == results[1]


def test_the_file_is_what_safetensors_would_write(tmp_path: Path) -> None:
    arrays = merged(tmp_path, tiny(1), tiny(2))
    written = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert written == save(arrays, metadata={"format": "pt"})


def test_batch_norms_of_unequal_training_merge_and_keep_the_anchors_counter(tmp_path: Path) -> None:
    first, second = tiny(1), tiny(2)
    result = merged(tmp_path, first, second)
    assert result["block.1.bn.num_batches_tracked"] == 100
    name = "block.1.bn.running_mean"
    low, high = np.minimum(first[name], second[name]), np.maximum(first[name], second[name])
    assert ((low <= result[name]) & (result[name] <= high)).all() and not np.array_equal(result[name], first[name])


def test_heads_of_other_sizes_stay_the_anchors(tmp_path: Path) -> None:
    anchor = tiny(1, classes=19)
    result = merged(tmp_path, anchor, tiny(2, classes=150))
    assert np.array_equal(result["classifier.weight"], anchor["classifier.weight"])
    assert not np.array_equal(result["block.1.conv.weight"], anchor["block.1.conv.weight"])


def test_weights_differ_from_layer_to_layer(tmp_path: Path) -> None:
    zeros = {name: np.zeros_like(array) for name, array in tiny(1).items()}
    ones = {name: np.ones_like(array) for name, array in tiny(1).items()}
    result = merged(tmp_path, zeros, ones)
    values = {float(a.flat[0]) for name, a in result.items() if "num_batches" not in name}
    assert len(values) == 16 and max(values) < 0.5 and min(values) == 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_output_has_the_anchors_dtype_unless_told(dtype: str, tmp_path: Path) -> None:
    first = {n: a if a.dtype == np.int64 else a.astype(dtype) for n, a in tiny(1).items()}
    result = merged(tmp_path, first, tiny(2))
    assert {str(a.dtype) for a in result.values()} == {dtype, "int64"}
    told = merged(tmp_path, first, tiny(2), dtype="float32")
    assert {str(a.dtype) for a in told.values()} == {"float32", "int64"}
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_bfloat16_goes_in_and_out(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    models = []
    for seed in (1, 2):
        model = {n: torch.from_numpy(a) for n, a in tiny(seed).items()}
        models.append({n: t.bfloat16() if t.is_floating_point() else t for n, t in model.items()})
        save_torch(models[-1], tmp_path / f"{seed}.safetensors", metadata={"format": "pt"})
    calls.merge([tmp_path / "1.safetensors", tmp_path / "2.safetensors"], output=tmp_path / "out")
    result = load_torch(tmp_path / "out" / "model.safetensors")
    plan = calls.plan([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
    for shared in plan.alignment.shared:
        first, second = (model[shared.slot].float() for model in models)
        weight = np.float32(plan.slot_weights(shared)[1])
        assert torch.equal(result[shared.slot], (first + (second - first) * weight).bfloat16()), shared.slot


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=50))
def test_bfloat16_rounds_as_torch_does(values: list[float]) -> None:
    import torch

    array = np.array(values, np.float32)
    ours = np.frombuffer(narrow(array, "BF16").tobytes(), np.uint16)
    theirs = torch.from_numpy(array).bfloat16()
    finite = np.isfinite(array) & np.isfinite(theirs.float().numpy())
    assert np.array_equal(ours[finite], theirs.view(torch.int16).numpy().view(np.uint16)[finite])
    back = np.empty_like(array)
    widen(ours.view(np.uint8), "BF16", back)
    assert np.array_equal(np.isnan(back), np.isnan(array)) and np.array_equal(np.isinf(back), np.isinf(array))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["anchor", "other", "kept"])
def test_a_value_that_is_not_finite_stops_the_merge(bad: float, where: str, tmp_path: Path) -> None:
    first, second = tiny(1, classes=4), tiny(2, classes=5)
    name = "classifier.weight" if where == "kept" else "block.2.conv.weight"
    (second if where == "other" else first)[name].flat[7] = bad
    with pytest.raises(MergeError, match=name.replace(".", r"\.")):
        merged(tmp_path, first, second)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model0.safetensors", "model1.safetensors"]
    result = merged(tmp_path, first, second, allow_nonfinite=True)
    assert not np.isfinite(result[name]).all()


def test_a_value_that_does_not_fit_the_dtype_stops_the_merge(tmp_path: Path) -> None:
    first = tiny(1)
    first["block.1.conv.weight"].flat[0] = 1e6
    with pytest.raises(MergeError, match="does not fit"):
        merged(tmp_path, first, tiny(2), dtype="float16")


def test_large_outputs_are_sharded_as_transformers_reads_them(tmp_path: Path) -> None:
    whole = merged(tmp_path, tiny(1), tiny(2))
    paths = [tmp_path / "model0.safetensors", tmp_path / "model1.safetensors"]
    calls.merge(paths, output=tmp_path / "sharded", max_shard_size=700)
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == whole.keys() and len(set(index["weight_map"].values())) > 2
    for name, file in index["weight_map"].items():
        assert np.array_equal(load_file(tmp_path / "sharded" / file)[name], whole[name])
    again = calls.merge([tmp_path / "sharded", tmp_path / "out"], output=tmp_path / "again")
    assert all(np.array_equal(a, whole[n]) for n, a in load_file(again.folder / "model.safetensors").items())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("nvlabs_segformer_b0", "nvlabs_segformer_b5"),
        ("transformers_segformer_b0_hub_legacy", "daformer_mitb5"),
        ("nvlabs_segformer_b0", "torchvision_resnet101"),
    ],
)
def test_different_networks_are_refused_by_name(first: str, second: str, tmp_path: Path) -> None:
    paths = [write_header(tmp_path / f"{i}.safetensors", system) for i, system in enumerate((first, second))]
    with pytest.raises(AlignmentError, match="merging needs the same architecture") as error:
        calls.merge(paths, output=tmp_path / "out")
    assert str(error.value).count("against") >= 3 and "MiT-B0" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_small_backbone_inside_a_larger_one_is_refused(tmp_path: Path) -> None:
    large = stored("nvlabs_segformer_b0", 1, keep="backbone.")
    small = {name: array for name, array in large.items() if ".block1.1." not in name}
    with pytest.raises(AlignmentError, match="different backbones"):
        merged(tmp_path, small, large)


def write_header(path: Path, system: str) -> Path:
    """A file with the system's names and shapes, all zeros, taking no disk space."""
    from manifests import manifest

    from hf_lwmm.checkpoints.safetensors_file import TensorInfo, encode_header

    infos = {n: TensorInfo("I64" if "int" in d else "F32", s) for n, s, d in manifest(system)}
    head, _ = encode_header(infos)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(info.nbytes for info in infos.values()))
    return path


def test_an_unknown_head_leaves_the_backbone_mergeable(tmp_path: Path) -> None:
    fpn, segformer = stored("smp_fpn_mit_b0", 1), stored("nvlabs_segformer_b0", 2)
    result = merged(tmp_path, fpn, segformer)
    assert np.array_equal(result["decoder.p5.weight"], fpn["decoder.p5.weight"])
    assert not np.array_equal(result["encoder.patch_embed1.proj.weight"], fpn["encoder.patch_embed1.proj.weight"])


def labelled(folder: Path, arrays: Arrays, labels: list[str]) -> Path:
    write(folder / "model.safetensors", arrays)
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(labels))}))
    return folder


def with_classes(system: str, seed: int, rows: int) -> Arrays:
    arrays = stored(system, seed)
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
        calls.merge([one, path], output=tmp_path / "out", overwrite=True, alpha=0.5, start=0.9)
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
    first, second = stored("nvlabs_segformer_b0", 1), stored("nvlabs_segformer_b0", 2)
    result = merged(tmp_path, first, second, head="anchor")
    changed = {name.split(".")[0] for name in result if not np.array_equal(result[name], first[name])}
    assert changed == {"backbone"}


def test_share_any_merges_what_some_have(tmp_path: Path) -> None:
    models = [tiny(1, 3), tiny(2, 3), tiny(3, 5)]
    models[2]["block.1.conv.weight"] = np.zeros((4, 4, 1, 1), np.float32)
    strict = merged(tmp_path, *models)
    assert np.array_equal(strict["block.1.conv.weight"], models[0]["block.1.conv.weight"])
    loose = merged(tmp_path, *models, share="any")
    plan = calls.plan([tmp_path / f"model{i}.safetensors" for i in range(3)], share="any")
    partial = next(shared for shared in plan.alignment.shared if shared.slot == "block.1.conv.weight")
    assert partial.members == (0, 1) and (partial.position, plan.alignment.positions) == (5, 16)
    assert plan.slot_weights(partial) == {0: pytest.approx(1 - 11 / 32), 1: pytest.approx(11 / 32)}
    assert not np.array_equal(loose["block.1.conv.weight"], strict["block.1.conv.weight"])


def test_the_anchor_may_stand_anywhere(tmp_path: Path) -> None:
    first, second = tiny(1), tiny(2)
    paths = [write(tmp_path / f"{name}.safetensors", m) for name, m in (("a", first), ("b", second))]
    calls.merge(paths, anchor=paths[1], output=tmp_path / "out")
    result = load_file(tmp_path / "out" / "model.safetensors")
    assert np.array_equal(result["classifier.weight"], second["classifier.weight"])


def test_the_same_model_twice_is_merged_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", tiny(1))
    result = calls.merge([path, path], output=tmp_path / "out")
    assert any("named twice" in warning for warning in result.warnings)


def test_one_model_or_a_foreign_anchor_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", tiny(1))
    other = write(tmp_path / "b.safetensors", tiny(2))
    with pytest.raises(PlanError, match="at least two"):
        calls.merge([path], output=tmp_path / "out")
    with pytest.raises(PlanError, match="not among the models"):
        calls.merge([path, path], anchor=other, output=tmp_path / "out")


def test_an_existing_folder_is_never_touched_unasked(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(MergeError, match="exists already"):
        calls.merge(paths, output=tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    broken = tiny(1)
    broken["block.1.conv.weight"].flat[0] = np.nan
    bad = write(tmp_path / "bad.safetensors", broken)
    with pytest.raises(MergeError, match="not finite"):
        calls.merge([paths[0], bad], output=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    calls.merge(paths, output=tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "mine.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors", "bad.safetensors", "out"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", stored("nvlabs_segformer_b0", i)) for i in (1, 2)]
    code = textwrap.dedent(
        f"""
        import resource, signal, sys
        import hf_lwmm
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            hf_lwmm.merge({[str(p) for p in paths]}, output={str(tmp_path / "out")!r})
        except hf_lwmm.HfLwmmError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "Could not write the weights" in done.stdout, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1_000_000


@pytest.mark.parametrize("moment", [".hf-lwmm-*", ".hf-lwmm-*/new/out/model.safetensors"])
def test_ctrl_c_leaves_nothing_behind(moment: str, tmp_path: Path) -> None:
    paths = [write_header(tmp_path / f"{i}.safetensors", "nvlabs_segformer_b5") for i in (1, 2)]
    command = [sys.executable, "-m", "hf_lwmm", "merge", *map(str, paths), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob(moment)):
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors and process.returncode in (0, 130), errors
    assert (tmp_path / "out").exists() == (process.returncode == 0)
    tidy(tmp_path)  # as the next run does, where a busy machine was too slow to do it in time
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != "out")
    assert left == ["1.safetensors", "2.safetensors"]


def test_the_safetensors_path_never_imports_torch(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{i}.safetensors", tiny(i))) for i in (1, 2)]
    code = (
        f"import sys, hf_lwmm; hf_lwmm.merge({paths}, output={str(tmp_path / 'out')!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_a_recipe_names_no_path_of_this_machine(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    calls.merge(paths, output=tmp_path / "out")
    for file in ("README.md", "hf_lwmm.yaml"):
        assert str(tmp_path) not in (tmp_path / "out" / file).read_text()


def test_merging_twice_gives_the_same_bytes_everywhere(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    contents = []
    for run in ("a", "b"):
        calls.merge(paths, output=tmp_path / run / "out")
        files = sorted(p for p in (tmp_path / run / "out").rglob("*") if p.is_file())
        contents.append({p.name: p.read_bytes() for p in files})
    assert contents[0] == contents[1] and "layer_weights.png" in contents[0]


def test_unused_classifiers_are_the_anchors(tmp_path: Path) -> None:
    first, second = stored("nvlabs_segformer_b0", 1), stored("nvlabs_segformer_b0", 2)
    result = merged(tmp_path, first, second)
    assert np.array_equal(result["decode_head.conv_seg.weight"], first["decode_head.conv_seg.weight"])
    assert "segformer.unused_classifier.weight" in slot_map("nvlabs_segformer_b0").slots


def test_slots_can_be_kept_by_whole_names(tmp_path: Path) -> None:
    first, second = tiny(1), tiny(2)
    for number in ("1", "2"):  # block.2.1 and block.2.10, as deep networks have them
        for model in (first, second):
            model[f"block.2.{number}.weight"] = model["block.1.conv.weight"] * float(number)
            model[f"block.2.{number}0.weight"] = model["block.2.conv.weight"] * float(number)
    result = merged(tmp_path, first, second, keep=["block.2.1"])
    same = {name for name in result if np.array_equal(result[name], first[name])}
    assert "block.2.1.weight" in same and not {"block.2.10.weight", "block.2.2.weight"} & same
    with pytest.raises(PlanError, match=r"block\.7 fits no slot"):
        merged(tmp_path, first, second, keep=["block.7"])
    with pytest.raises(PlanError, match="fits no slot"):
        merged(tmp_path, first, second, keep=["block.2.1.w"])


def test_classes_that_nobody_names_are_taken_to_agree_and_said_to_be(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", stored("nvlabs_segformer_b0", i)) for i in (1, 2)]
    result = calls.merge(paths, output=tmp_path / "out")
    assert any("does not name its classes" in warning for warning in result.warnings)
    assert "does not name its classes" in (tmp_path / "out" / "README.md").read_text()


def test_plans_and_results_show_themselves_in_notebooks(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    assert "16 depth positions" in calls.plan(paths)._repr_markdown_()
    result = calls.merge(paths, output=tmp_path / "out")
    assert result._repr_markdown_().strip().startswith("# out")
    assert len(repr(result)) < 600


def test_what_is_closed_cannot_be_read(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    decided = calls.plan(paths)
    result = calls.merge(paths, output=tmp_path / "out")
    for name, plan in (("decided", decided), ("merged", result.plan)):
        # Files that are opened now take the numbers of the descriptors that were closed.
        with contextlib.ExitStack() as others:
            for _ in range(8):
                others.enter_context((tmp_path / "1.safetensors").open("rb"))
            for checkpoint in plan.checkpoints:
                with pytest.raises(CheckpointError, match="was closed"):
                    checkpoint.slot_values("classifier.weight")
            (tmp_path / name).mkdir()
            with pytest.raises(CheckpointError, match="was closed"):
                write_merged(plan, tmp_path / name)


def test_a_torch_file_that_is_closed_cannot_be_read(tmp_path: Path) -> None:
    import torch

    torch.save({name: torch.from_numpy(array) for name, array in tiny(1).items()}, tmp_path / "1.pth")
    path = write(tmp_path / "2.safetensors", tiny(2))
    decided = calls.plan([tmp_path / "1.pth", path])
    with pytest.raises(CheckpointError, match="was closed"):
        decided.checkpoints[0].slot_values("classifier.weight")


def test_a_plan_of_remote_models_has_no_values(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("org/headers", exist_ok=True)
    api.upload_file(
        path_or_fileobj=write(tmp_path / "m.safetensors", tiny(1)),
        path_in_repo="model.safetensors",
        repo_id="org/headers",
    )
    decided = calls.plan(["org/headers", tmp_path / "m.safetensors"])
    with pytest.raises(CheckpointError, match="was closed"):
        decided.checkpoints[0].slot_values("classifier.weight")
