"""Every merge method against its formula, written out a second time on small tensors."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calls
import numpy as np
import pytest
import yaml
from conftest import Run
from manifests import Arrays, to_slots, write
from manifests import stored as stored_in_full
from safetensors.numpy import load_file

from hf_lwmm.errors import PlanError
from hf_lwmm.methods import METHODS
from hf_lwmm.planning.provenance import Tuning

pytestmark = pytest.mark.usefixtures("without_plots")

SHAPES = {"block.0.conv.weight": (6, 5, 3, 3), "block.0.conv.bias": (6,), "block.1.fc.weight": (7, 6)}
SHAPES |= {"head.weight": (3, 7)}
BASED = [name for name, method in METHODS.items() if "base" in method.needs]


def stored(system: str, seed: int, keep: str = "") -> Arrays:
    """A system's tensors, in narrow layers."""
    return stored_in_full(system, seed, keep, shrink=8, least=32)


def network(seed: int, scale: float = 1.0) -> Arrays:
    draw = np.random.default_rng(seed)
    return {name: (scale * draw.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


BASE = network(0)
MODELS = [{name: BASE[name] + change for name, change in network(seed, 0.1).items()} for seed in (1, 2, 3)]


def merge(tmp_path: Path, models: list[Arrays], base: Arrays | None = None, **options: object) -> Arrays:
    paths = [write(tmp_path / f"model{i}.safetensors", model) for i, model in enumerate(models)]
    if base is not None:
        options["base"] = write(tmp_path / "base.safetensors", base)
    for name in ("fisher", "grams"):
        if name in options:
            files = options.pop(name)
            options["measurements"] = [write(tmp_path / f"{name}{i}.safetensors", file) for i, file in enumerate(files)]
    calls.merge(paths, output=tmp_path / "out", overwrite=True, format="safetensors", **options)
    return load_file(tmp_path / "out" / "model.safetensors")


def stack(name: str, models: list[Arrays] = MODELS) -> np.ndarray:
    return np.stack([model[name].astype(np.float64) for model in models])


def vectors(name: str) -> np.ndarray:
    return stack(name) - BASE[name]


def trimmed(vector: np.ndarray, density: float) -> np.ndarray:
    threshold = np.sort(np.abs(vector).reshape(-1))[vector.size - int(density * vector.size) :].min(initial=np.inf)
    return np.where(np.abs(vector) >= threshold, vector, 0)


def ties(name: str) -> np.ndarray:
    kept = np.stack([trimmed(vector, 0.4) for vector in vectors(name)])
    elected = np.where(kept.sum(0) >= 0, kept > 0, kept < 0)
    return BASE[name] + 0.7 * (kept * elected).sum(0) / np.maximum(elected.sum(0), 1)


def breadcrumbs(name: str) -> np.ndarray:
    total = np.zeros_like(BASE[name], np.float64)
    for vector in vectors(name):
        rank = np.abs(vector).reshape(-1).argsort().argsort().reshape(vector.shape)
        top, keep = int(0.1 * vector.size), int(0.5 * vector.size)
        total += np.where((rank < vector.size - top) & (rank >= vector.size - top - keep), vector, 0)
    return BASE[name] + 0.4 * total


def model_stock(name: str) -> np.ndarray:
    v = [vector.reshape(-1) for vector in vectors(name)]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(v, 2)]
    t = 3 * np.mean(cosines) / (1 + 2 * np.mean(cosines))
    return t * stack(name).mean(0) + (1 - t) * BASE[name]


def lines(name: str) -> np.ndarray:
    depth = list(SHAPES).index(name) / (len(SHAPES) - 1)
    return BASE[name] + (0.2 + 0.5 * depth) * vectors(name).sum(0)


FORMULAS: dict[str, tuple[dict[str, float], Callable[[str], np.ndarray]]] = {
    "isotropic": ({}, lambda name: stack(name).mean(0)),
    "task-arithmetic": ({"scale": 0.3}, lambda name: BASE[name] + 0.3 * vectors(name).sum(0)),
    "lines": ({"first": 0.2, "rise": 0.5}, lines),
    "ties": ({"scale": 0.7, "density": 0.4}, ties),
    "breadcrumbs": ({"density": 0.5, "outliers": 0.1}, breadcrumbs),
    "model-stock": ({}, model_stock),
    "wise": ({"t": 0.7}, lambda name: 0.3 * BASE[name] + 0.7 * stack(name).mean(0)),
}


@pytest.mark.parametrize("method", FORMULAS)
def test_a_method_is_its_formula(method: str, tmp_path: Path) -> None:
    options, formula = FORMULAS[method]
    base = BASE if method in BASED else None
    result = merge(tmp_path, MODELS, base, method=method, option=options)
    for name in SHAPES:
        np.testing.assert_allclose(result[name], formula(name), rtol=1e-6, atol=1e-6, err_msg=name)


def test_dare_is_task_arithmetic_on_a_random_part(tmp_path: Path) -> None:
    options = {"scale": 0.5, "density": 0.5, "seed": 1}
    result = merge(tmp_path, MODELS[:1] * 2, BASE, method="dare", option=options)
    name = "block.0.conv.weight"
    counts = (result[name] - BASE[name]) / vectors(name)[0]  # 0, 1 or 2 of two equal vectors survive, each times 1
    assert set(np.round(counts, 3).reshape(-1)) == {0, 1, 2}
    assert abs(counts.mean() - 1) < 0.2
    assert np.array_equal(merge(tmp_path, MODELS[:1] * 2, BASE, method="dare", option=options)[name], result[name])
    other = merge(tmp_path, MODELS[:1] * 2, BASE, method="dare", option={**options, "seed": 2})
    assert not np.array_equal(other[name], result[name])
    whole = merge(tmp_path, MODELS, BASE, method="dare", option={"scale": 0.3, "density": 1})
    arithmetic = merge(tmp_path, MODELS, BASE, method="task-arithmetic", option={"scale": 0.3})
    np.testing.assert_allclose(whole[name], arithmetic[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_goes_along_the_arc(t: float, tmp_path: Path) -> None:
    result = merge(tmp_path, [network(1), network(2)], method="slerp", option={"t": t})
    for name in SHAPES:
        a, b = (network(seed)[name].astype(np.float64).reshape(-1) for seed in (1, 2))
        angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        expected = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        np.testing.assert_allclose(result[name].reshape(-1), expected, rtol=1e-6, atol=1e-6)


def test_fisher_weighs_every_element(tmp_path: Path) -> None:
    fisher = [{n: np.abs(a) * (i + 1) for n, a in network(10 + i, 1e-5).items()} for i in range(3)]
    del fisher[1]["head.weight"]
    result = merge(tmp_path, MODELS, method="fisher", fisher=fisher)
    for name in list(SHAPES)[:-1]:
        weights = np.maximum(np.stack([file[name] for file in fisher]).astype(np.float64), 1e-6)
        expected = (weights * stack(name)).sum(0) / weights.sum(0)
        np.testing.assert_allclose(result[name], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result["head.weight"], stack("head.weight").mean(0), rtol=1e-6, atol=1e-6)


def test_regmean_agrees_best_with_every_models_outputs(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    inputs = {name: draw.standard_normal((3, 40, int(np.prod(SHAPES[name][1:])))) for name in ("head.weight",)}
    inputs["block.0.conv.weight"] = draw.standard_normal((3, 60, 45))
    grams = [{n: (x[i].T @ x[i]).astype(np.float32) for n, x in inputs.items()} for i in range(3)]
    result = merge(tmp_path, MODELS, method="regmean", grams=grams, option={"shrink": 1})
    for name, x in inputs.items():
        weights = stack(name).reshape(3, SHAPES[name][0], -1)
        targets = np.concatenate([x[i] @ weights[i].T for i in range(3)])
        best = np.linalg.lstsq(np.concatenate(list(x)), targets, rcond=None)[0].T
        np.testing.assert_allclose(result[name].reshape(best.shape), best, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result["block.0.conv.bias"], stack("block.0.conv.bias").mean(0), rtol=1e-6, atol=1e-6)


# Between a base and models


@pytest.mark.parametrize("system", ["nvlabs_segformer_b0", "torchvision_resnet101"])
def test_wise_ends_exactly_at_the_base_and_at_a_single_model(system: str, tmp_path: Path) -> None:
    keep = "layer1." if system == "torchvision_resnet101" else ""
    model, base = (stored(system, seed, keep=keep) for seed in (1, 3))
    for t, end in ((0, base), (1, model)):
        found = merge(tmp_path, [model], base, method="wise", option={"t": t})
        assert found.keys() == model.keys()
        for name, values in end.items():
            if "conv_seg" not in name and "num_batches" not in name:  # never used, and no float
                assert np.array_equal(found[name], values), (t, name)  # running statistics are among them


def test_wise_ends_at_the_plain_average_of_several_models(tmp_path: Path) -> None:
    models, base = [stored("nvlabs_segformer_b0", seed) for seed in (1, 2, 4)], stored("nvlabs_segformer_b0", 3)
    average = merge(tmp_path, models, method="isotropic")
    found = merge(tmp_path, models, base, method="wise", option={"t": 1})
    assert all(np.array_equal(found[name], values) for name, values in average.items())


def test_wise_interpolates_running_statistics_too(tmp_path: Path) -> None:
    models, base = [stored("nvlabs_segformer_b0", seed) for seed in (1, 2)], stored("nvlabs_segformer_b0", 3)
    mean, variance = (f"decode_head.linear_fuse.bn.running_{leaf}" for leaf in ("mean", "var"))
    shares = np.array([0.25, 0.25, 0.5])

    def mixed(name: str, power: int = 1) -> np.ndarray:
        every = np.stack([model[name].astype(np.float64) for model in (*models, base)])
        return shares @ every**power

    linear = merge(tmp_path, models, base, method="wise")
    np.testing.assert_allclose(linear[variance], mixed(variance), rtol=1e-6)
    pooled = merge(tmp_path, models, base, method="wise", bn_stats="pooled")
    np.testing.assert_allclose(pooled[mean], mixed(mean), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(pooled[variance], mixed(variance) + mixed(mean, 2) - mixed(mean) ** 2, rtol=1e-5)


def test_only_wise_takes_a_single_model(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{seed}.safetensors", network(seed)) for seed in range(2)]
    with pytest.raises(PlanError, match="at least two models"):
        calls.merge(paths[:1], output=tmp_path / "out", method="task-arithmetic", base=paths[1])
    with pytest.raises(PlanError, match="needs --base"):
        calls.merge(paths[:1], output=tmp_path / "out", method="wise")
    done = calls.lwmm("merge", paths[0], "--base", paths[1], "--method", "wise", "--output", tmp_path / "out")
    assert done.exit_code == 0 and "Merged 1 model at" in done.stdout, done.stderr
    recipe = written_recipe(tmp_path / "out")
    assert recipe["method"] == {"name": "wise", "t": 0.5} and recipe["base"]["local"] == "1.safetensors"
    assert "1 checkpoint, merged with `wise`" in (tmp_path / "out" / "README.md").read_text()


def written_recipe(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "hf_lwmm.yaml").read_text())
    return found


# BatchNorm


def test_the_choices_for_bn_stats(tmp_path: Path) -> None:
    models = [stored("nvlabs_segformer_b0", seed) for seed in (1, 2)]
    for seed, model in enumerate(models):
        name = "decode_head.linear_fuse.bn.running_mean"
        model[name] = model[name] + seed
    mean, variance = "segformer.fuse.bn.running_mean", "segformer.fuse.bn.running_var"
    one, other = (to_slots(model) for model in models)
    results = {bn: to_slots(merge(tmp_path, models, bn_stats=bn)) for bn in ("linear", "pooled", "anchor")}
    weight = (results["linear"][mean] - one[mean]) / (other[mean] - one[mean])
    h = float(np.median(weight))
    assert 0 < h < 0.5 and np.allclose(weight, h, atol=1e-3)
    pooled = (1 - h) * (one[variance] + one[mean] ** 2) + h * (other[variance] + other[mean] ** 2)
    pooled -= ((1 - h) * one[mean] + h * other[mean]) ** 2
    np.testing.assert_allclose(results["pooled"][variance], pooled, rtol=1e-4)
    assert np.array_equal(results["pooled"][mean], results["linear"][mean])
    assert np.array_equal(results["anchor"][variance], one[variance]) and np.array_equal(
        results["anchor"][mean], one[mean]
    )
    same = {s: v for s, v in results["linear"].items() if "running" not in s}
    assert all(np.array_equal(v, results[bn][s]) for bn in ("pooled", "anchor") for s, v in same.items())


def test_task_vectors_of_bn_stats_are_never_taken(tmp_path: Path) -> None:
    models = [stored("nvlabs_segformer_b0", seed) for seed in (1, 2)]
    base = stored("nvlabs_segformer_b0", 3)
    result = merge(tmp_path, models, base, method="task-arithmetic", option={"scale": 5})
    name = "decode_head.linear_fuse.bn.running_var"
    np.testing.assert_allclose(result[name], (models[0][name] + models[1][name]) / 2, rtol=1e-6)
    assert result[name].min() > 0


# In every layout, with differing heads


@pytest.mark.parametrize("method", list(METHODS))
def test_methods_give_the_same_slots_whatever_the_layout(method: str, tmp_path: Path) -> None:
    systems = ("nvlabs_segformer_b0", "transformers_segformer_b0_hub_legacy", "mmseg1x_segformer_b0")
    results = []
    for first, second in (systems[:2], (systems[1], systems[0]), (systems[0], systems[2])):
        options: dict[str, object] = {"method": method, "head": "anchor"}
        models = [stored(first, 1), stored(second, 2)]
        if "base" in METHODS[method].needs:
            options["base"] = stored(systems[1], 3)
        if METHODS[method].needs & {"fisher", "grams"}:
            kind = "fisher" if "fisher" in METHODS[method].needs else "grams"
            options[kind] = [measurements(to_slots(model), kind) for model in models]
        if METHODS[method].needs & {"labels", "images"}:
            share = np.random.default_rng(4).uniform(0, 1, positions(tmp_path, models))
            options["tuning"] = Tuning(np.stack([share, 1 - share], axis=1))
        results.append(to_slots(merge(tmp_path, models, **options)))
    for result in results[1:]:
        for name, values in results[0].items():
            if name.startswith("mit."):
                assert np.array_equal(values, result[name]), name
    assert not np.array_equal(
        results[0]["mit.stage1.block0.mlp.fc1.weight"], to_slots(models[0])["mit.stage1.block0.mlp.fc1.weight"]
    )


def positions(tmp_path: Path, models: list[Arrays]) -> int:
    paths = [write(tmp_path / f"model{i}.safetensors", model) for i, model in enumerate(models)]
    return calls.plan(paths, head="anchor").alignment.positions


def measurements(slots: Arrays, kind: str) -> Arrays:
    floats = {name: array for name, array in slots.items() if name.startswith("mit.")}
    if kind == "fisher":
        return {name: np.abs(array) for name, array in floats.items()}
    kernels = {n: a.reshape(len(a), -1) for n, a in floats.items() if n.endswith(("fc1.weight", "q.weight"))}
    return {n: np.asarray(a.T @ a + np.eye(a.shape[1]), np.float32) for n, a in kernels.items()}


def test_slots_that_the_base_lacks_stay_the_anchors_and_are_named(run: Run, tmp_path: Path) -> None:
    models = [stored("nvlabs_segformer_b0", seed) for seed in (1, 2)]
    base = stored("nvlabs_segformer_b0", 3, keep="backbone.")
    paths = [write(tmp_path / f"{name}.safetensors", each) for name, each in zip("abc", (*models, base), strict=True)]
    code, _, err = run("merge", *paths[:2], "--method", "task-arithmetic", "--base", paths[2], "--dry-run")
    assert code == 0 and re.search(r"c\.safetensors: lacks \d+ of the \d+ shared slots \(.*\): they stay a\.s", err)
    result = merge(tmp_path, models, base, method="task-arithmetic")
    head = [name for name in result if name.startswith("decode_head") and "running" not in name]
    assert all(np.array_equal(result[name], models[0][name]) for name in head)
    name = "backbone.block1.0.mlp.fc1.weight"
    assert not np.array_equal(result[name], models[0][name])


# What cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ties"}, "--method ties needs --base, the pre-training that all models share"),
        ({"method": "tie"}, "--method tie is not one of layerwise, isotropic"),
        ({"method": "ties", "option": {"size": 1}}, "has no 'size'.* Known: scale, density"),
        ({"method": "ties", "option": {"density": 1.5}}, "--option density 1.5 must be above 0 and at most 1"),
        ({"method": "isotropic", "start": 0.5}, "--method isotropic: has no 'start'"),
        ({"method": "slerp"}, "--method slerp merges 2 models, not 3"),
        ({"method": "fisher"}, "takes one file of measurements for each of the 3 models"),
        ({"bn_stats": "mean"}, "--bn-stats mean is not one of linear, pooled, anchor"),
    ],
)
def test_what_a_method_lacks_is_said(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=message):
        merge(tmp_path, MODELS, **options)
    assert not (tmp_path / "out").exists()


def test_a_base_or_measurements_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none of the shared slots in the same shape, so it is not the models' base"):
        merge(tmp_path, MODELS, {"other.weight": np.ones(3, np.float32)}, method="ties")
    with pytest.raises(PlanError, match="isotropic makes no use of --base"):
        merge(tmp_path, MODELS, BASE, method="isotropic")
    wrong = [{**network(1), "head.weight": np.ones((2, 7), np.float32)}] * 3
    with pytest.raises(
        PlanError, match=r"measurements of another network: head.weight is \[2, 7\] there, but \[3, 7\]"
    ):
        merge(tmp_path, MODELS, method="fisher", fisher=wrong)
    with pytest.raises(PlanError, match="holds measurements of no slot"):
        merge(tmp_path, MODELS, method="fisher", fisher=[{"x.weight": np.ones(2, np.float32)}] * 3)


def test_method_options_and_base_travel_in_recipe_card_and_command(run: Run, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"model{i}.safetensors", model) for i, model in enumerate(MODELS)]
    base = write(tmp_path / "base.safetensors", BASE)
    command = ["merge", *paths, "--method", "ties", "--base", base, "--option", "density=0.4", "--output", "ties"]
    code, _, err = run(*command)
    assert code == 0, err
    card = (tmp_path / "ties" / "README.md").read_text()
    assert "merged with `ties` (Yadav et al. 2023, arXiv 2306.01708)" in card and "base.safetensors" in card
    assert (
        "--method ties --option density=0.4 --base base.safetensors" in card and "weight in the first layer" not in card
    )
    code, _, err = run("merge", "--recipe", "ties/hf_lwmm.yaml", "--output", "again")
    assert code == 0, err
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "ties/model.safetensors").read_bytes()
    code, _, err = run(*command, "--option", "density=much")
    assert code != 0 and "--option density must be a number, not 'much'" in err


def test_methods_are_listed_with_what_they_need(run: Run) -> None:
    code, out, _ = run("methods", "--json")
    rows = {row["method"]: row for row in json.loads(out)}
    assert code == 0 and set(rows) == set(METHODS) and rows["ties"]["needs"] == ["base"]
    assert (
        rows["fisher"]["needs"] == ["labelled images, gradients (--measurements)"]
        and rows["dare"]["options"]["density"] == 0.5
    )
