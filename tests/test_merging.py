"""Merging, through the public function, on local files."""

from __future__ import annotations

import itertools
from pathlib import Path

import calls
import numpy as np
import pytest
from conftest import Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import Arrays, stored, to_slots, write
from merged import merged, tiny, write_header
from safetensors import safe_open
from safetensors.numpy import load_file

from hf_lwmm.checkpoints.dtypes import narrow, widen
from hf_lwmm.errors import AlignmentError, MergeError, PlanError
from hf_lwmm.methods.schedule import layerwise_weights

pytestmark = pytest.mark.usefixtures("without_plots")

MIT_B0 = {
    "transformers": ("transformers_segformer_b0_hub_legacy", "segformer."),
    "runtime": ("transformers_segformer_b0_runtime", "segformer."),
    "nvidia": ("nvlabs_segformer_b0", "backbone."),
    "mmseg": ("mmseg1x_segformer_b0", "backbone."),
    "smp": ("smp_segformer_mit_b0", "encoder."),
}


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
    bn = [f"block.1.bn.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
    assert order[:5] == ["block.1.conv.weight", *bn]
    assert order[-1] == "classifier.weight" and np.array_equal(result[order[-1]], models[0][order[-1]])


@pytest.fixture(scope="module")
def backbones() -> dict[tuple[str, int], Arrays]:
    """The backbones of two models, each in every layout."""
    return {
        (layout, seed): stored(system, seed, keep=prefix)
        for layout, (system, prefix) in MIT_B0.items()
        for seed in (1, 2)
    }


@pytest.fixture(scope="module")
def expected(backbones: dict[tuple[str, int], Arrays], tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """The slots of their merge in one layout."""
    return to_slots(merged(tmp_path_factory.mktemp("nvidia"), backbones["nvidia", 1], backbones["nvidia", 2]))


@pytest.mark.parametrize(("first", "second"), list(itertools.product(MIT_B0, repeat=2)))
def test_any_mix_of_layouts_gives_the_same_slots(
    first: str, second: str, backbones: dict[tuple[str, int], Arrays], expected: Arrays, tmp_path: Path
) -> None:
    result = to_slots(merged(tmp_path, backbones[first, 1], backbones[second, 2]))
    assert len(result) == 192 and result.keys() == expected.keys()
    for slot, values in expected.items():
        assert values.tobytes() == result[slot].tobytes(), slot


@pytest.mark.parametrize("order", ["depth", "file"])
@pytest.mark.parametrize("granularity", ["parameter", "module", "block", "stage"])
def test_positions_are_as_coarse_as_asked(granularity: str, order: str, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", stored("nvlabs_segformer_b0", i, shrink=8)) for i in (1, 2)]
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


def test_batch_norms_of_unequal_training_merge_and_keep_the_anchors_counter(tmp_path: Path) -> None:
    first, second = tiny(1), tiny(2)
    result = merged(tmp_path, first, second)
    assert result["block.1.bn.num_batches_tracked"] == 100
    name = "block.1.bn.running_mean"
    low, high = np.minimum(first[name], second[name]), np.maximum(first[name], second[name])
    assert ((low <= result[name]) & (result[name] <= high)).all() and not np.array_equal(result[name], first[name])


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


def test_of_several_models_the_one_that_differs_is_refused_by_name(tmp_path: Path) -> None:
    step = {"layer0.steps": np.array(1, np.int64)}
    paths = []
    for name, width, more in (("one", 3, {}), ("two", 3, {}), ("odd", 7, step)):
        arrays = {f"layer{i}.weight": np.ones((width, 2), np.float32) for i in range(3)}
        paths.append(write(tmp_path / f"{name}.safetensors", arrays | more))
    with pytest.raises(AlignmentError, match=r"one.safetensors and odd.safetensors share 0 of 18 weights") as error:
        calls.plan(paths)
    assert "layer1.weight: [3, 2] against [7, 2]" in str(error.value) and "(4 slots differ)" in str(error.value)
    assert "layer0.steps: no such slot against []" in str(error.value)


def test_an_error_of_several_lines_is_printed_as_lines_and_no_name_makes_one(run: Run, tmp_path: Path) -> None:
    write_header(tmp_path / "a\nError: b.safetensors", "nvlabs_segformer_b0")
    write_header(tmp_path / "r.safetensors", "torchvision_resnet101")
    code, _, err = run("merge", "a\nError: b.safetensors", "r.safetensors", "--output", "out")
    first, *others = err.splitlines()
    assert code == 1 and first.startswith("Error: a\\nError: b.safetensors and r.safetensors have different ")
    assert others[0].startswith("  a\\nError: b.safetensors: MiT-B0")
    assert others[1].startswith("  r.safetensors: ResNet")
    assert len(others) == 7 and "slots differ" in others[-1]


def test_a_small_backbone_inside_a_larger_one_is_refused(tmp_path: Path) -> None:
    large = stored("nvlabs_segformer_b0", 1, keep="backbone.", shrink=8)
    small = {name: array for name, array in large.items() if ".block1.1." not in name}
    with pytest.raises(AlignmentError, match="different backbones"):
        merged(tmp_path, small, large)


def test_an_unknown_head_leaves_the_backbone_mergeable(tmp_path: Path) -> None:
    fpn, segformer = stored("smp_fpn_mit_b0", 1, shrink=8), stored("nvlabs_segformer_b0", 2, shrink=8)
    result = merged(tmp_path, fpn, segformer)
    assert np.array_equal(result["decoder.p5.weight"], fpn["decoder.p5.weight"])
    assert not np.array_equal(result["encoder.patch_embed1.proj.weight"], fpn["encoder.patch_embed1.proj.weight"])


def test_share_any_merges_what_some_have(tmp_path: Path) -> None:
    models = [tiny(1, 3), tiny(2, 3), tiny(3, 5)]
    models[2]["block.1.conv.weight"] = np.zeros((4, 4, 1, 1), np.float32)
    strict = merged(tmp_path, *models)
    assert np.array_equal(strict["block.1.conv.weight"], models[0]["block.1.conv.weight"])
    loose = merged(tmp_path, *models, share="any")
    plan = calls.plan([tmp_path / f"model{i}.safetensors" for i in range(3)], share="any")
    partial = next(shared for shared in plan.alignment.shared if shared.slot == "block.1.conv.weight")
    assert partial.members == (0, 1) and (partial.position, plan.alignment.positions) == (1, 16)
    assert plan.slot_weights(partial) == {0: pytest.approx(1 - 15 / 32), 1: pytest.approx(15 / 32)}
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
    planned = calls.plan([path, path])
    assert [any("named twice" in warning for warning in each.warnings) for each in (result, planned)] == [True] * 2


def test_a_base_that_is_one_of_the_models_is_warned_of(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{seed}.safetensors", tiny(seed)) for seed in (1, 2))
    options = {"method": "task-arithmetic", "base": one}
    for found in (calls.plan([one, two], **options), calls.merge([one, two], output=tmp_path / "out", **options)):
        assert any("is the base and also a model to merge" in warning for warning in found.warnings)
    apart = calls.merge(
        [one, two], method="task-arithmetic", base=write(tmp_path / "b.safetensors", tiny(3)), output=tmp_path / "apart"
    )
    assert not any("is the base" in warning for warning in apart.warnings)


def test_a_base_that_is_another_branch_of_a_model_is_no_model(tmp_path: Path) -> None:
    both = {f"{branch}.{name}": value for branch, seed in (("student", 1), ("teacher", 2))
            for name, value in tiny(seed).items()}  # fmt: skip
    path = write(tmp_path / "a.safetensors", both)
    for branch, same in (("student", True), ("teacher", False)):
        found = calls.plan([path, path], method="task-arithmetic", base=path, branch=branch)
        assert any("is the base" in warning for warning in found.warnings) == same


def test_one_model_or_a_foreign_anchor_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", tiny(1))
    other = write(tmp_path / "b.safetensors", tiny(2))
    with pytest.raises(PlanError, match="at least two"):
        calls.merge([path], output=tmp_path / "out")
    with pytest.raises(PlanError, match="not among the models"):
        calls.merge([path, path], anchor=other, output=tmp_path / "out")


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


def _folders(root: Path, *names: str) -> list[Path]:
    """A folder of each name with a model of its own."""
    for seed, name in enumerate(names, 1):
        (root / name).mkdir(parents=True)
        write(root / name / "model.safetensors", tiny(seed))
    return [root / name for name in names]


@pytest.mark.parametrize("anchor", ["2", "night", "runs/night", "./runs/night"])
def test_an_anchor_may_be_a_number_or_any_label(anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = _folders(tmp_path, "runs/day", "runs/night")
    assert calls.plan(["runs/day", "runs/night"], anchor).alignment.anchor == 1
    assert calls.plan(models, anchor).alignment.anchor == 1


def test_an_anchor_that_fits_several_models_or_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = _folders(tmp_path, "a/best", "b/best")
    with pytest.raises(PlanError, match="fits several models; give its number among them, from 1"):
        calls.plan(models, "best")
    assert calls.plan(models, "b/best").alignment.anchor == 1
    with pytest.raises(PlanError, match="The anchor 3 is not among the models"):
        calls.plan(models, "3")
