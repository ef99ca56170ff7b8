"""Layer weights that are decided on images, against short formulas and by trying all."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import lwmm, merge, plan
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import write
from PIL import Image
from tiny import NAMES, deeplab, scene, segformer, tensors
from transformers import SegformerForSemanticSegmentation, ViTConfig, ViTForImageClassification

import hf_lwmm
from hf_lwmm.errors import AlignmentError, DatasetError, LayoutError, PlanError
from hf_lwmm.methods import make_method
from hf_lwmm.methods.greedy_soup import GreedySoup
from hf_lwmm.methods.schedule import layerwise_weights
from hf_lwmm.planning.provenance import Tuning

FEW = {"images": 3, "passes": 24}


# Greedy soup


def averaged(models: list[Path], target: Path) -> Path:
    """The plain average of all weights, by torch alone."""
    networks = [SegformerForSemanticSegmentation.from_pretrained(folder) for folder in models]
    states = [network.state_dict() for network in networks]
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([state[name].double() for state in states]).mean(0))
    networks[0].save_pretrained(target)
    return target


def test_greedy_soup_takes_in_what_does_no_harm(models: list[Path], data: Path, tmp_path: Path) -> None:
    def score(members: tuple[int, ...]) -> float:
        folder = tmp_path / "-".join(map(str, members))
        found = hf_lwmm.evaluate([averaged([models[i] for i in members], folder)], data)
        assert found is not None
        return found.models[0].mean

    alone = [score((model,)) for model in range(3)]
    order = sorted(range(3), key=lambda model: -alone[model])
    soup, best = order[:1], alone[order[0]]
    for model in order[1:]:
        if (now := score((*soup, model))) >= best:
            soup, best = [*soup, model], now
    result = merge(models[:3], method="greedy-soup", tune_images=data, output=tmp_path / "soup")
    decided = result.recipe.tuning
    assert decided is not None and decided.weights.shape == (result.plan.alignment.positions, 3)
    np.testing.assert_allclose(decided.weights, np.tile(np.isin(range(3), soup) / len(soup), (len(decided.weights), 1)))
    merged = hf_lwmm.evaluate([tmp_path / "soup"], data)
    assert merged is not None and merged.models[0].mean == pytest.approx(best, abs=2e-3)
    assert merged.models[0].mean >= max(alone) - 1e-12
    expected = tensors(averaged([models[i] for i in soup], tmp_path / "expected"))
    for name, values in tensors(tmp_path / "soup").items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


class Table:
    """Trials whose scores are a table of sets of models."""

    anchor, positions, count = 0, 3, 0

    def __init__(self, models: int, seed: int) -> None:
        self.names = [f"model {i}" for i in range(models)]
        self.seed = seed
        self.asked: list[frozenset[int]] = []

    def of(self, members: frozenset[int]) -> float:
        return float(np.random.default_rng([self.seed, sum(1 << i for i in members)]).integers(0, 6)) / 6

    def score(self, weights: np.ndarray) -> float:
        members = frozenset(np.flatnonzero(weights[0]).tolist())
        assert (weights == weights[0]).all() and np.allclose(weights[0][list(members)], 1 / len(members))
        self.asked.append(members)
        return self.of(members)


@given(models=st.integers(2, 5), seed=st.integers(0, 999))
@settings(max_examples=60)
def test_a_soup_never_scores_below_the_best_model(models: int, seed: int) -> None:
    table = Table(models, seed)
    weights, notes = GreedySoup().decide(table)  # type: ignore[arg-type]
    members = frozenset(np.flatnonzero(weights[0]).tolist())
    assert table.of(members) >= max(table.of(frozenset({model})) for model in range(models))
    assert len(table.asked) == 2 * models - 1 and len(notes) == models
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_the_anchor_keeps_its_head_and_may_stay_outside_the_soup(
    models: list[Path], data: Path, tmp_path: Path
) -> None:
    other = segformer(tmp_path / "other", 7, ("road", "sky", "tree", "bicycle"))
    result = merge([models[0], other], method="greedy-soup", tune_images=data, output=tmp_path / "soup")
    anchor, merged = tensors(models[0]), tensors(tmp_path / "soup")
    assert {name: values.shape for name, values in merged.items()} == {n: v.shape for n, v in anchor.items()}
    for name in ("decode_head.classifier.weight", "decode_head.classifier.bias"):
        assert np.array_equal(merged[name], anchor[name])
    assert hf_lwmm.load(tmp_path / "soup").classes == NAMES
    assert result.recipe.tuning is not None and result.recipe.tuning.weights.shape[1] == 2


def test_a_weight_of_one_is_that_model_bit_for_bit(models: list[Path], tmp_path: Path) -> None:
    positions = plan(models[:2]).alignment.positions
    alone = np.tile([0.0, 1.0], (positions, 1))
    merge(models[:2], method="greedy-soup", tuning=Tuning(alone), output=tmp_path / "out")
    second = tensors(models[1])
    assert all(np.array_equal(values, second[name]) for name, values in tensors(tmp_path / "out").items())


def test_what_lacks_a_slot_leaves_its_part_to_the_anchor(models: list[Path], tmp_path: Path) -> None:
    names = ("sky", "tree", "road", "bicycle")
    other = segformer(tmp_path / "other", 7, names)
    paths = [models[0], models[1], other]
    positions = plan(paths, head="by-label").alignment.positions
    weights = np.tile([0.2, 0.5, 0.3], (positions, 1))
    merge(paths, method="greedy-soup", head="by-label", tuning=Tuning(weights), output=tmp_path / "out")
    a, b, c = (tensors(path)["decode_head.classifier.weight"].astype(np.float64) for path in paths)
    rows = [names.index(name) if name in names else None for name in NAMES]
    expected = [
        0.2 * a[i] + 0.5 * b[i] + 0.3 * c[row] if row is not None else 0.5 * a[i] + 0.5 * b[i]
        for i, row in enumerate(rows)
    ]
    merged = tensors(tmp_path / "out")["decode_head.classifier.weight"]
    np.testing.assert_allclose(merged, np.stack(expected), rtol=1e-5, atol=1e-6)


# Adaptive


def uncertainty(folder: Path, pictures: list[Image.Image], balance: float = 1.0) -> float:
    """Return what adaptive lowers, of a written network."""
    loaded = hf_lwmm.load(folder)
    total = 0.0
    for picture in pictures:
        with torch.no_grad():
            p = loaded.model(loaded.image_processor(picture, return_tensors="pt")["pixel_values"]).logits.softmax(1)
        pixels = -(p * p.log()).sum(1).mean()
        mean = p.mean((0, 2, 3))
        total += float(pixels + balance * (mean * mean.log()).sum()) / math.log(p.shape[1]) / len(pictures)
    return total


def test_adaptive_lowers_the_uncertainty_near_equation_1(models: list[Path], bare: Path, tmp_path: Path) -> None:
    paths, pictures = models[:3], [scene(seed)[0] for seed in range(5)]
    merge(paths, output=tmp_path / "layerwise")
    options = {"images": 5, "passes": 30, "penalty": 0.01}
    result = merge(paths, method="adaptive", option=options, tune_images=bare, output=tmp_path / "adapted")
    decided = result.recipe.tuning
    assert decided is not None and decided.images is not None and decided.images.limit == 5
    assert decided.images.local and decided.images.data == "pictures" and decided.images.commit is None
    np.testing.assert_allclose(decided.weights.sum(axis=1), 1, atol=1e-12)
    assert decided.weights.min() >= 0 and decided.weights[-1].tolist() == [1, 0, 0]
    before, after = (float(number) for number in re.findall(r"(?:from|to) (-?\d\.\d+)", decided.notes[0]))
    # What the notes say is of the networks that layerwise and adaptive write.
    assert before == pytest.approx(uncertainty(tmp_path / "layerwise", pictures), abs=2e-4)
    assert after == pytest.approx(uncertainty(tmp_path / "adapted", pictures), abs=2e-4)
    start = layerwise_weights(len(decided.weights), 3, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(decided.weights > 0, decided.weights * np.log(decided.weights / start), 0)
    assert after + 0.01 * terms.sum(axis=1).mean() < before


@pytest.mark.parametrize("knobs", [{}, {"head": "by-label"}, {"head": "anchor", "bn_stats": "anchor"}])
def test_what_is_tried_is_what_is_written(
    knobs: dict[str, Any], models: list[Path], bare: Path, tmp_path: Path
) -> None:
    half = SegformerForSemanticSegmentation.from_pretrained(models[0], dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    paths = [segformer(tmp_path / "other", 7, ("sky", "tree", "road", "bicycle")), tmp_path / "half", models[1]]
    options = {"images": 5, "passes": 20, "penalty": 0.01}
    result = merge(
        paths, anchor=paths[1], method="adaptive", option=options, tune_images=bare, output=tmp_path / "out",
        dtype="float32", **knobs,
    )  # fmt: skip
    assert result.plan.tuning is not None
    before, after = (float(number) for number in re.findall(r"(?:from|to) (-?\d\.\d+)", result.plan.tuning.notes[0]))
    assert after < before
    assert after == pytest.approx(uncertainty(tmp_path / "out", [scene(seed)[0] for seed in range(5)]), abs=2e-4)


def test_a_huge_penalty_leaves_equation_1(models: list[Path], bare: Path, tmp_path: Path) -> None:
    plain = merge(models[:3], anchor=models[1], output=tmp_path / "layerwise")
    options = {**FEW, "penalty": 1e9}
    result = merge(
        models[:3], anchor=models[1], method="adaptive", option=options, tune_images=bare, output=tmp_path / "adapted"
    )
    assert plain.plan.layer_weights is not None and result.plan.layer_weights is not None
    np.testing.assert_allclose(result.plan.layer_weights, plain.plan.layer_weights, atol=3e-6)
    expected = tensors(tmp_path / "layerwise")
    for name, values in tensors(tmp_path / "adapted").items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_adaptive_is_decided_by_its_seed(models: list[Path], bare: Path, tmp_path: Path) -> None:
    def weights(seed: int) -> np.ndarray:
        options = {"images": 2, "passes": 8, "crop": 32, "seed": seed}
        result = merge(
            models[:2], method="adaptive", option=options, tune_images=bare, output=tmp_path / "out", overwrite=True
        )
        assert result.plan.layer_weights is not None
        return result.plan.layer_weights

    first = weights(1)
    assert np.array_equal(first, weights(1)) and not np.array_equal(first, weights(2))


@pytest.mark.parametrize("method", ["greedy-soup", "adaptive"])
def test_a_model_merged_with_itself_comes_out_as_it_went_in(
    method: str, models: list[Path], data: Path, tmp_path: Path
) -> None:
    options = FEW if method == "adaptive" else {}
    tuned = {"tune_images": hf_lwmm.ImageSource(data, "train"), "option": options}
    merge([models[0], models[0]], method=method, output=tmp_path / "out", **tuned)
    same = tensors(models[0])
    assert all(np.array_equal(values, same[name]) for name, values in tensors(tmp_path / "out").items())


def test_batchnorm_statistics_go_with_the_adapted_weights(bare: Path, tmp_path: Path) -> None:
    paths = [deeplab(tmp_path / "a", 1, 1e-5), deeplab(tmp_path / "b", 2, 1e-5)]
    result = merge(paths, method="adaptive", option={**FEW, "penalty": 0.01}, tune_images=bare, output=tmp_path / "out")
    name = "bn1.running_var"
    row = next(s for s in result.plan.alignment.shared if s.slot == "resnet.stem.bn.running_var").position - 1
    assert result.plan.layer_weights is not None
    w = result.plan.layer_weights[row]
    expected = w[0] * tensors(paths[0])[name] + w[1] * tensors(paths[1])[name]
    np.testing.assert_allclose(tensors(tmp_path / "out")[name], expected, rtol=1e-6)
    before, after = (float(number) for number in re.findall(r"(?:from|to) (-?\d\.\d+)", result.plan.tuning.notes[0]))  # type: ignore[union-attr]
    assert after < before


# What cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "greedy-soup"}, "greedy-soup decides its weights on labelled images: name them with --tune-data"),
        ({"method": "adaptive"}, "adaptive decides its weights on unlabelled images: name them with --tune-data"),
        ({"tune_images": "x"}, "--method layerwise decides nothing on images; leave out --tune-data"),
        ({"method": "task-arithmetic"}, "--method task-arithmetic needs --base, the pre-training"),
        ({"method": "slerp"}, "--method slerp merges 2 models, not 3"),
        (
            {"method": "adaptive", "tune_images": "x", "option": {"images": 0}},
            "--option images 0 must be at least 1",
        ),
        (
            {"method": "adaptive", "tune_images": "x", "option": {"images": 1.5}},
            "--option images must be a whole number, not 1.5",
        ),
        (
            {"method": "adaptive", "tune_images": "x", "option": {"penalty": -1}},
            "--option penalty -1.0 must be at least 0",
        ),
        (
            {"method": "greedy-soup", "tuning": Tuning(np.full((3, 3), 1 / 3))},
            "are for 3 positions and 3 models, but this merge has 109 positions and 3 models",
        ),
        ({"tuning": Tuning(np.full((109, 3), 1 / 3))}, "layerwise has weights of its own"),
        ({"evaluation": hf_lwmm.EvaluationSpec(flip=True, protocol="nosuch")}, "--protocol needs --eval-data"),
        (
            {"method": "adaptive", "tune_images": "x", "evaluation": hf_lwmm.EvaluationSpec(flip=True)},
            "--flip needs --eval-data",
        ),
        (
            {"method": "greedy-soup", "tune_images": "x", "evaluation": hf_lwmm.EvaluationSpec(examples=3)},
            "--examples needs --eval-data",
        ),
        (
            {"network": hf_lwmm.NetworkOptions(compute_dtype="bfloat16")},
            "--compute-dtype needs --eval-data, --tune-data or --bn-data",
        ),
        ({"network": hf_lwmm.NetworkOptions(branch="teacher")}, r"takes it from its knobs, as Knobs\(branch=\.\.\.\)"),
    ],
)
def test_what_is_missing_or_useless_is_said(
    options: dict[str, Any], message: str, models: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        merge(models[:3], output=tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_one_model_and_other_shapes_are_refused(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="Merging needs at least two models"):
        merge(models[:1], output=tmp_path / "out")
    shapes = [{"a.weight": (4, 3)}, {"a.weight": (5, 3)}]
    paths = [
        write(tmp_path / f"{i}.safetensors", {n: np.ones(s, np.float32) for n, s in each.items()})
        for i, each in enumerate(shapes)
    ]
    with pytest.raises(AlignmentError, match="share 0 of 12 weights; merging needs the same architecture"):
        merge(paths, output=tmp_path / "out")


def test_labels_are_needed_where_models_are_scored(models: list[Path], bare: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="--method greedy-soup needs labelled images") as caught:
        merge(models[:2], method="greedy-soup", tune_images=bare, output=tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_networks_that_cannot_be_tuned_are_refused(models: list[Path], bare: Path, tmp_path: Path) -> None:
    arrays = [{"a.weight": np.full((4, 3), float(i), np.float32)} for i in range(2)]
    unknown = [write(tmp_path / f"{i}.safetensors", each) for i, each in enumerate(arrays)]
    with pytest.raises(hf_lwmm.HfLwmmError, match="there is no network for unknown network"):
        merge(unknown, method="adaptive", tune_images=bare, output=tmp_path / "out")
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16,
                       patch_size=8, id2label=dict(enumerate(NAMES)))  # fmt: skip
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        ViTForImageClassification(config).save_pretrained(tmp_path / name)
        settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
        (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(PlanError, match="--method adaptive looks at class maps; a is a classification network"):
        merge([tmp_path / "a", tmp_path / "b"], method="adaptive", tune_images=bare, output=tmp_path / "out")
    with pytest.raises(PlanError, match="adaptive: one cannot take 1 x 1 pixels: "):
        options = {**FEW, "crop": 1}
        merge(models[:2], method="adaptive", option=options, tune_images=bare, output=tmp_path / "out")
    network = hf_lwmm.NetworkOptions(system="advent")
    with pytest.raises(LayoutError, match=r"^one: --system advent does not apply"):
        merge(models[:2], method="adaptive", tune_images=bare, network=network, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_plans_say_that_images_decide(models: list[Path], tmp_path: Path) -> None:
    shown = lwmm("plan", *models[:2], "--method", "adaptive")
    assert shown.exit_code == 0 and "adaptive decides the layer weights on unlabelled images" in shown.stderr
    dry = lwmm("merge", *models[:2], "--method", "greedy-soup", "--tune-data", tmp_path, "--dry-run", "--json")
    assert dry.exit_code == 0 and "greedy-soup decides the layer weights on labelled images (--tune-data)" in dry.stderr
    assert all(row["weights"] is None for row in json.loads(dry.stdout)["shared"])
    listed = {row["method"]: row for row in json.loads(lwmm("methods", "--json").stdout)}
    assert listed["greedy-soup"]["needs"] == ["labelled images (--tune-data)"]
    assert listed["adaptive"]["options"] == make_method("adaptive", {}).options
