"""Weights and BatchNorm statistics that are decided on images, against short formulas and by trying all."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from hf_lwmm.data.pictures import open_unlabelled_images
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import write
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny import NAMES, scene, segformer, tree
from transformers import SegformerForSemanticSegmentation, ViTConfig, ViTForImageClassification
from typer.testing import CliRunner

import hf_lwmm
from hf_lwmm.api.merge import load_recipe
from hf_lwmm.calibration.measurements import measure
from hf_lwmm.cli import app
from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import AlignmentError, DatasetError, PlanError
from hf_lwmm.methods import make_method
from hf_lwmm.methods.greedy_soup import GreedySoup
from hf_lwmm.methods.schedule import layerwise_weights
from hf_lwmm.networks import DeepLabV2Config, DeepLabV2ForSemanticSegmentation
from hf_lwmm.planning.provenance import Tuning, read_image_provenance

FEW = {"images": 3, "passes": 24}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [segformer(folder / name, seed) for seed, name in enumerate(("one", "two", "three"), 1)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images with their labels."""
    return tree(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bare(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images alone."""
    return Path(shutil.copytree(data / "images", tmp_path_factory.mktemp("bare") / "pictures"))


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def lwmm(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


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
    result = hf_lwmm.merge(models[:3], method="greedy-soup", tune_data=data, output=tmp_path / "soup")
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
    result = hf_lwmm.merge([models[0], other], method="greedy-soup", tune_data=data, output=tmp_path / "soup")
    anchor, merged = tensors(models[0]), tensors(tmp_path / "soup")
    assert {name: values.shape for name, values in merged.items()} == {n: v.shape for n, v in anchor.items()}
    for name in ("decode_head.classifier.weight", "decode_head.classifier.bias"):
        assert np.array_equal(merged[name], anchor[name])
    assert hf_lwmm.load(tmp_path / "soup").classes == NAMES
    assert result.recipe.tuning is not None and result.recipe.tuning.weights.shape[1] == 2


def test_a_weight_of_one_is_that_model_bit_for_bit(models: list[Path], tmp_path: Path) -> None:
    positions = hf_lwmm.plan(models[:2]).alignment.positions
    alone = np.tile([0.0, 1.0], (positions, 1))
    hf_lwmm.merge(models[:2], method="greedy-soup", tuning=Tuning(alone), output=tmp_path / "out")
    second = tensors(models[1])
    assert all(np.array_equal(values, second[name]) for name, values in tensors(tmp_path / "out").items())


def test_what_lacks_a_slot_leaves_its_part_to_the_anchor(models: list[Path], tmp_path: Path) -> None:
    names = ("sky", "tree", "road", "bicycle")
    other = segformer(tmp_path / "other", 7, names)
    paths = [models[0], models[1], other]
    positions = hf_lwmm.plan(paths, head="by-label").alignment.positions
    weights = np.tile([0.2, 0.5, 0.3], (positions, 1))
    hf_lwmm.merge(paths, method="greedy-soup", head="by-label", tuning=Tuning(weights), output=tmp_path / "out")
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
    """What adaptive lowers, of a written network."""
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
    hf_lwmm.merge(paths, output=tmp_path / "layerwise")
    options = {"images": 5, "passes": 30, "penalty": 0.01}
    result = hf_lwmm.merge(paths, method="adaptive", options=options, tune_data=bare, output=tmp_path / "adapted")
    decided = result.recipe.tuning
    assert decided is not None and decided.images is not None and decided.images.images == 5
    assert decided.images.local and decided.images.name == "pictures" and decided.images.commit is None
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


@pytest.mark.parametrize("knobs", [{}, {"head": "by-label"}, {"head": "anchor", "bn": "anchor"}])
def test_what_is_tried_is_what_is_written(
    knobs: dict[str, Any], models: list[Path], bare: Path, tmp_path: Path
) -> None:
    half = SegformerForSemanticSegmentation.from_pretrained(models[0], dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    paths = [segformer(tmp_path / "other", 7, ("sky", "tree", "road", "bicycle")), tmp_path / "half", models[1]]
    options = {"images": 5, "passes": 20, "penalty": 0.01}
    result = hf_lwmm.merge(
        paths, anchor=paths[1], method="adaptive", options=options, tune_data=bare, output=tmp_path / "out",
        dtype="float32", **knobs,
    )  # fmt: skip
    assert result.plan.tuning is not None
    before, after = (float(number) for number in re.findall(r"(?:from|to) (-?\d\.\d+)", result.plan.tuning.notes[0]))
    assert after < before
    assert after == pytest.approx(uncertainty(tmp_path / "out", [scene(seed)[0] for seed in range(5)]), abs=2e-4)


def test_a_huge_penalty_leaves_equation_1(models: list[Path], bare: Path, tmp_path: Path) -> None:
    plain = hf_lwmm.merge(models[:3], anchor=models[1], output=tmp_path / "layerwise")
    options = {**FEW, "penalty": 1e9}
    result = hf_lwmm.merge(
        models[:3], anchor=models[1], method="adaptive", options=options, tune_data=bare, output=tmp_path / "adapted"
    )
    assert plain.plan.layer_weights is not None and result.plan.layer_weights is not None
    np.testing.assert_allclose(result.plan.layer_weights, plain.plan.layer_weights, atol=3e-6)
    expected = tensors(tmp_path / "layerwise")
    for name, values in tensors(tmp_path / "adapted").items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_adaptive_is_decided_by_its_seed(models: list[Path], bare: Path, tmp_path: Path) -> None:
    def weights(seed: int) -> np.ndarray:
        options = {"images": 2, "passes": 8, "crop": 32, "seed": seed}
        result = hf_lwmm.merge(
            models[:2], method="adaptive", options=options, tune_data=bare, output=tmp_path / "out", overwrite=True
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
    tuned = {"tune_data": data, "tune_options": {"split": "train"}, "options": options}
    hf_lwmm.merge([models[0], models[0]], method=method, output=tmp_path / "out", **tuned)
    same = tensors(models[0])
    assert all(np.array_equal(values, same[name]) for name, values in tensors(tmp_path / "out").items())


def deeplab(folder: Path, seed: int, eps: float) -> Path:
    """A tiny DeepLabV2 whose BatchNorm is frozen, without an epsilon, if `eps` is 0."""
    torch.manual_seed(seed)
    config = DeepLabV2Config(
        depths=(1, 1, 1, 1), width=4, block="basic", batch_norm_eps=eps, id2label=dict(enumerate(NAMES))
    )
    network = DeepLabV2ForSemanticSegmentation(config)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.startswith("layer6") and tensor.ndim == 4:
            tensor.normal_(0, 0.5)
    network.save_pretrained(folder)
    return folder


def test_batchnorm_statistics_go_with_the_adapted_weights(bare: Path, tmp_path: Path) -> None:
    paths = [deeplab(tmp_path / "a", 1, 1e-5), deeplab(tmp_path / "b", 2, 1e-5)]
    result = hf_lwmm.merge(
        paths, method="adaptive", options={**FEW, "penalty": 0.01}, tune_data=bare, output=tmp_path / "out"
    )
    name = "bn1.running_var"
    row = next(s for s in result.plan.alignment.shared if s.slot == "resnet.stem.bn.running_var").position - 1
    assert result.plan.layer_weights is not None
    w = result.plan.layer_weights[row]
    expected = w[0] * tensors(paths[0])[name] + w[1] * tensors(paths[1])[name]
    np.testing.assert_allclose(tensors(tmp_path / "out")[name], expected, rtol=1e-6)
    before, after = (float(number) for number in re.findall(r"(?:from|to) (-?\d\.\d+)", result.plan.tuning.notes[0]))  # type: ignore[union-attr]
    assert after < before


# BatchNorm


@pytest.mark.parametrize("method", ["layerwise", "isotropic", "slerp"])
def test_recalibration_estimates_the_running_statistics_alone(
    method: str, models: list[Path], bare: Path, tmp_path: Path
) -> None:
    hf_lwmm.merge(models[:2], method=method, output=tmp_path / "linear")
    result = hf_lwmm.merge(models[:2], method=method, bn="recalibrate", bn_data=bare, output=tmp_path / "estimated")
    linear, estimated = tensors(tmp_path / "linear"), tensors(tmp_path / "estimated")
    changed = {name for name, values in estimated.items() if not np.array_equal(values, linear[name])}
    assert changed == {"decode_head.batch_norm.running_mean", "decode_head.batch_norm.running_var"}
    loaded = hf_lwmm.load(tmp_path / "linear")
    seen: list[torch.Tensor] = []
    norm: Any = loaded.model.decode_head.batch_norm
    norm.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for seed in range(5):
            loaded.model(loaded.image_processor(scene(seed)[0], return_tensors="pt")["pixel_values"])
    for name, statistic in (("mean", torch.mean), ("var", torch.var)):
        expected = torch.stack([statistic(each, (0, 2, 3)) for each in seen]).mean(0)
        np.testing.assert_allclose(estimated[f"decode_head.batch_norm.running_{name}"], expected, rtol=2e-4, atol=1e-5)
    assert result.recipe.recalibration is not None and result.recipe.recalibration.images == 5
    assert "estimated with the merged network on `pictures` (a local folder), split train (5 images)" in result.card
    assert "--bn-data pictures --bn-split train --bn-limit 5" in result.card


@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_layers_are_recalibrated_behind_each_other_as_update_bn_does(eps: float, bare: Path, tmp_path: Path) -> None:
    paths = [deeplab(tmp_path / "a", 1, eps), deeplab(tmp_path / "b", 2, eps)]
    hf_lwmm.merge(paths, output=tmp_path / "linear")
    hf_lwmm.merge(paths, bn="recalibrate", bn_data=bare, bn_options={"limit": 3}, output=tmp_path / "estimated")
    loaded = hf_lwmm.load(tmp_path / "linear")
    twin = DeepLabV2ForSemanticSegmentation(copy.deepcopy(loaded.model.config).__class__(
        **{**loaded.model.config.to_dict(), "batch_norm_eps": 1e-5}
    ))  # fmt: skip
    twin.load_state_dict(loaded.model.state_dict(), strict=False)
    pixels = [
        loaded.image_processor(Image.open(path), return_tensors="pt")["pixel_values"]
        for path in sorted(bare.iterdir())[:3]
    ]
    torch.optim.swa_utils.update_bn(pixels, twin)  # a network without dropout
    state = twin.state_dict()
    for name, values in tensors(tmp_path / "estimated").items():
        if name.endswith("running_var"):
            np.testing.assert_allclose(values, state[name].numpy() + (1e-5 if eps == 0 else 0), rtol=1e-3, atol=1e-6)
        elif name.endswith("running_mean"):
            np.testing.assert_allclose(values, state[name].numpy(), rtol=1e-3, atol=1e-5)
    before, after = (hf_lwmm.load(tmp_path / name).model for name in ("linear", "estimated"))
    with torch.no_grad():
        assert after(pixels[0]).logits.isfinite().all() and not torch.equal(
            before(pixels[0]).logits, after(pixels[0]).logits
        )


def test_statistics_that_the_type_cannot_hold_are_refused(models: list[Path], bare: Path, tmp_path: Path) -> None:
    loud, fuse = [], "decode_head.linear_fuse.weight"
    for path in models[:2]:
        loud.append(Path(shutil.copytree(path, tmp_path / path.name)))
        values = tensors(path)
        save_file({**values, fuse: 2000 * values[fuse]}, loud[-1] / "model.safetensors", {"format": "pt"})
    options = {"bn": "recalibrate", "bn_data": bare, "bn_options": {"limit": 1}, "output": tmp_path / "out"}
    with pytest.raises(PlanError, match=r"float16 cannot hold \(.*running_var\); write them in another type"):
        hf_lwmm.merge(loud, dtype="float16", **options)
    assert not (tmp_path / "out").exists()
    hf_lwmm.merge(loud, **options)


def test_images_without_a_variance_are_refused(tmp_path: Path) -> None:
    paths = [deeplab(tmp_path / "a", 1, 1e-5), deeplab(tmp_path / "b", 2, 1e-5)]
    (tmp_path / "small").mkdir()
    scene(1)[0].resize((2, 2)).save(tmp_path / "small/0.png")
    for path in paths:
        settings = json.dumps({"image_processor_type": "SegformerImageProcessor", "do_resize": False})
        (path / "preprocessor_config.json").write_text(settings)
    with pytest.raises(PlanError, match=r"small, split train: --bn recalibrate cannot estimate a variance where"):
        hf_lwmm.merge(paths, bn="recalibrate", bn_data=tmp_path / "small", output=tmp_path / "out")


# Recipes


def test_decided_weights_travel_and_are_merged_again_without_the_data(
    hub: Any, api: Any, models: list[Path], bare: Path, tmp_path: Path
) -> None:
    for path in models[:2]:
        api.create_repo(f"local/{path.name}", exist_ok=True)
        api.upload_folder(folder_path=path, repo_id=f"local/{path.name}")
    pictures = Path(shutil.copytree(bare, tmp_path / "pictures"))
    command = ["merge", "local/one", "local/two", "--method", "adaptive", "--tune-data", pictures, "--push"]
    done = lwmm(*command, "local/adapted", "--set", "images=2", "--set", "passes=10")
    assert done.exit_code == 0, done.output
    assert "Weights decided on pictures, split train (5 images):" in done.stderr
    shutil.rmtree(pictures)
    again = hf_lwmm.reproduce("local/adapted")
    assert again.same, again
    card = api.hf_hub_download("local/adapted", "README.md")
    text = Path(card).read_text()
    assert "Its weights were decided on `pictures` (a local folder), split train (5 images)." in text
    assert "--tune-data pictures --tune-split train --tune-limit 5" in text and str(tmp_path) not in text
    # The recipe merges in another type, too, and from the same weights.
    recipe = api.hf_hub_download("local/adapted", "hf_lwmm.yaml")
    done = lwmm("merge", "--recipe", recipe, "--dtype", "float16", "--output", tmp_path / "half")
    assert done.exit_code == 0, done.output
    exact = load_file(api.hf_hub_download("local/adapted", "model.safetensors"))
    for name, values in tensors(tmp_path / "half").items():
        np.testing.assert_allclose(values.astype(np.float32), exact[name], rtol=2e-3, atol=1e-4)
    # Of another anchor they mean nothing.
    done = lwmm("merge", "--recipe", recipe, "--anchor", "local/two", "--output", tmp_path / "other")
    assert isinstance(done.exception, PlanError) and "name them with --tune-data" in str(done.exception)


def test_statistics_are_estimated_again_on_the_same_commit(
    hub: Any, api: Any, models: list[Path], tmp_path: Path
) -> None:
    for path in models[:2]:
        api.create_repo(f"local/{path.name}", exist_ok=True)
        api.upload_folder(folder_path=path, repo_id=f"local/{path.name}")
    rows = Dataset.from_dict({"image": [scene(seed)[0] for seed in range(3)]}, Features({"image": ImageFeature()}))
    rows.push_to_hub("local/unlabelled", split="train")
    options = {"bn": "recalibrate", "bn_data": "local/unlabelled", "bn_options": {"limit": 2}}
    result = hf_lwmm.merge(["local/one", "local/two"], push="local/estimated", **options)
    facts = result.recipe.recalibration
    assert facts is not None and facts.commit == api.dataset_info("local/unlabelled").sha and facts.images == 2
    Dataset.from_dict({"image": [scene(9)[0]] * 2}, Features({"image": ImageFeature()})).push_to_hub(
        "local/unlabelled", split="train"
    )
    assert hf_lwmm.reproduce("local/estimated").same
    recipe = api.hf_hub_download("local/estimated", "hf_lwmm.yaml")
    done = lwmm("merge", "--recipe", recipe, "--output", tmp_path / "again")
    assert done.exit_code == 0, done.output
    written = Path(api.hf_hub_download("local/estimated", "model.safetensors"))
    assert (tmp_path / "again/model.safetensors").read_bytes() == written.read_bytes()
    done = lwmm("merge", "--recipe", recipe, "--output", tmp_path / "fewer", "--bn-limit", 1)
    assert done.exit_code == 0, done.output
    facts = load_recipe(tmp_path / "fewer/hf_lwmm.yaml").recalibration
    assert facts is not None and facts.images == 1 and facts.commit == result.recipe.recalibration.commit


def test_statistics_of_a_local_folder_cannot_be_estimated_again(
    hub: Any, api: Any, models: list[Path], bare: Path
) -> None:
    for path in models[:2]:
        api.create_repo(f"local/{path.name}", exist_ok=True)
        api.upload_folder(folder_path=path, repo_id=f"local/{path.name}")
    hf_lwmm.merge(["local/one", "local/two"], push="local/here", bn="recalibrate", bn_data=bare)
    with pytest.raises(PlanError, match="estimated on the images of pictures, which was a local folder"):
        hf_lwmm.reproduce("local/here")
    done = lwmm("merge", "--recipe", api.hf_hub_download("local/here", "hf_lwmm.yaml"))
    assert isinstance(done.exception, PlanError) and "name them with --bn-data" in str(done.exception)


def test_a_configuration_of_a_data_set_is_chosen(hub: Any, models: list[Path], tmp_path: Path) -> None:
    features = Features({"image": ImageFeature()})
    for config, seeds in (("day", (1, 2)), ("dusk", (3, 4, 5))):
        rows = Dataset.from_dict({"image": [scene(seed)[0] for seed in seeds]}, features)
        rows.push_to_hub("local/hours", config, split="train")
    few = ("--set", "images=2", "--set", "passes=4", "--protocol", "cityscapes19", "--output")
    command = ("merge", *models[:2], "--method", "adaptive", "--tune-data", "local/hours", *few)
    done = lwmm(*command, tmp_path / "out", "--config", "dusk")
    assert done.exit_code == 0, done.output
    images = load_recipe(tmp_path / "out/hf_lwmm.yaml").tuning.images
    assert (images.images, images.options) == (3, {"config": "dusk"})  # and no protocol, which means labels
    done = lwmm(*command, tmp_path / "none")
    assert isinstance(done.exception, DatasetError)
    assert str(done.exception) == "local/hours: has several configurations; choose one with --config: ['day', 'dusk']."
    done = lwmm("measure", models[0], "--dataset", "local/hours", "--kind", "grams", "--count", 1, "--config", "day",
                "--output", tmp_path / "grams.safetensors")  # fmt: skip
    assert done.exit_code == 0, done.output


# Whose statistics


def test_statistics_of_another_model_are_refused(models: list[Path], data: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    for path, file in zip(models, files, strict=False):
        measure(hf_lwmm.load(path), open_images(data), file, count=1)
    fitting = {"method": "fisher", "statistics": files}
    result = hf_lwmm.merge(models[:2], output=tmp_path / "out", **fitting)
    assert not any("does not say which model" in warning for warning in result.warnings)
    message = r"two\.safetensors was measured of two, not of one\. Give one file for each model, in the models' order"
    with pytest.raises(PlanError, match=message):
        hf_lwmm.merge(models[:2], output=tmp_path / "wrong", method="fisher", statistics=files[::-1])
    assert not (tmp_path / "wrong").exists()
    bare = write(tmp_path / "bare.safetensors", load_file(files[1]))
    result = hf_lwmm.merge(models[:2], output=tmp_path / "third", method="fisher", statistics=[files[0], bare])
    assert "bare.safetensors does not say which model it was measured of; only its shapes were checked." in (
        result.warnings
    )
    assert (tmp_path / "third/model.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()


def test_grams_need_no_labels_and_fisher_does(models: list[Path], bare: Path, tmp_path: Path) -> None:
    done = lwmm("measure", models[0], "--dataset", bare, "--kind", "grams", "--count", 1, "--output",
                tmp_path / "grams.safetensors")  # fmt: skip
    assert done.exit_code == 0, done.output
    done = lwmm("measure", models[0], "--dataset", bare, "--output", tmp_path / "fisher.safetensors")
    assert isinstance(done.exception, DatasetError) and "no images with labels" in str(done.exception)
    with pytest.raises(PlanError, match="has no pixel labels, which Fisher information of one needs"):
        measure(hf_lwmm.load(models[0]), open_unlabelled_images(bare), tmp_path / "fisher.safetensors")


# Images without labels


def test_images_are_found_beside_labels_in_splits_and_alone(data: Path, bare: Path, tmp_path: Path) -> None:
    assert [open_unlabelled_images(data).read(i).name for i in range(5)] == [f"{i}.png" for i in range(5)]
    assert open_unlabelled_images(bare).count == 5 and open_unlabelled_images(bare).name == "pictures, split train"
    for folder in ("leftImg8bit/val/ulm", "images/train", "train/images", "val/labels"):
        (tmp_path / folder).mkdir(parents=True)
        scene(1)[0].save(tmp_path / folder / f"{folder.replace('/', '-')}_leftImg8bit.png")
    assert open_unlabelled_images(tmp_path, "validation").read(0).name.startswith("leftImg8bit-val-ulm")
    assert open_unlabelled_images(tmp_path, "train").read(0).name.startswith("train-images")
    with pytest.raises(DatasetError, match="neither a folder here nor org/name"):
        open_unlabelled_images("nothing-here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty, split train: cannot be opened"):
        open_unlabelled_images(tmp_path / "empty")
    (tmp_path / "none").mkdir()
    Dataset.from_dict({"image": []}, Features({"image": ImageFeature()})).to_parquet(
        tmp_path / "none/train-00000-of-00001.parquet"
    )
    with pytest.raises(DatasetError, match="none, split train: cannot be opened"):
        open_unlabelled_images(tmp_path / "none")


# What cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "greedy-soup"}, "greedy-soup decides its weights on labelled images: name them with --tune-data"),
        ({"method": "adaptive"}, "adaptive decides its weights on unlabelled images: name them with --tune-data"),
        ({"tune_data": "x"}, "--method layerwise decides nothing on images; leave out --tune-data"),
        ({"bn": "recalibrate"}, "estimates BatchNorm's statistics on images: name them with --bn-data"),
        ({"bn_data": "x"}, "--bn linear looks at no images; leave out --bn-data, or use --bn recalibrate"),
        ({"method": "task-arithmetic"}, "--method task-arithmetic needs --base, the pre-training"),
        ({"method": "slerp"}, "--method slerp merges 2 models, not 3"),
        (
            {"method": "adaptive", "tune_data": "x", "options": {"images": 0}},
            "option images of adaptive must be a whole number, at least 1, not 0",
        ),
        (
            {"method": "adaptive", "tune_data": "x", "options": {"penalty": -1}},
            "option penalty of adaptive must not be negative, as -1 is",
        ),
        (
            {"method": "greedy-soup", "tuning": Tuning(np.full((3, 3), 1 / 3))},
            "are for 3 positions and 3 models, but this merge has 109 positions and 3 models",
        ),
        ({"tuning": Tuning(np.full((109, 3), 1 / 3))}, "layerwise has weights of its own"),
    ],
)
def test_what_is_missing_or_useless_is_said(
    options: dict[str, Any], message: str, models: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        hf_lwmm.merge(models[:3], output=tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_one_model_and_other_shapes_are_refused(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="Merging needs at least two models"):
        hf_lwmm.merge(models[:1], output=tmp_path / "out")
    shapes = [{"a.weight": (4, 3)}, {"a.weight": (5, 3)}]
    paths = [
        write(tmp_path / f"{i}.safetensors", {n: np.ones(s, np.float32) for n, s in each.items()})
        for i, each in enumerate(shapes)
    ]
    with pytest.raises(AlignmentError, match="share 0 of 12 weights; merging needs the same architecture"):
        hf_lwmm.merge(paths, output=tmp_path / "out")


def test_labels_are_needed_where_models_are_scored(models: list[Path], bare: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="--method greedy-soup needs labelled images") as caught:
        hf_lwmm.merge(models[:2], method="greedy-soup", tune_data=bare, output=tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_networks_that_cannot_be_tuned_are_refused(models: list[Path], bare: Path, tmp_path: Path) -> None:
    arrays = [{"a.weight": np.full((4, 3), float(i), np.float32)} for i in range(2)]
    unknown = [write(tmp_path / f"{i}.safetensors", each) for i, each in enumerate(arrays)]
    with pytest.raises(PlanError, match="has no BatchNorm, so --bn recalibrate has nothing to do"):
        hf_lwmm.merge(unknown, bn="recalibrate", bn_data=bare, output=tmp_path / "out")
    with pytest.raises(hf_lwmm.HfLwmmError, match="there is no network for unknown network"):
        hf_lwmm.merge(unknown, method="adaptive", tune_data=bare, output=tmp_path / "out")
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16,
                       patch_size=8, id2label=dict(enumerate(NAMES)))  # fmt: skip
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        ViTForImageClassification(config).save_pretrained(tmp_path / name)
        settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
        (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(PlanError, match="--method adaptive looks at class maps; a is a classification network"):
        hf_lwmm.merge([tmp_path / "a", tmp_path / "b"], method="adaptive", tune_data=bare, output=tmp_path / "out")
    with pytest.raises(PlanError, match="adaptive: one cannot see 1 x 1 pixels: "):
        options = {**FEW, "crop": 1}
        hf_lwmm.merge(models[:2], method="adaptive", options=options, tune_data=bare, output=tmp_path / "out")
    (tmp_path / "dots").mkdir()
    Image.new("RGB", (1, 1)).save(tmp_path / "dots/0.png")
    with pytest.raises(PlanError, match="dots, split train: one cannot see 1 x 1 pixels: "):
        hf_lwmm.merge(models[:2], bn="recalibrate", bn_data=tmp_path / "dots", output=tmp_path / "out")
    lone = [segformer(tmp_path / f"lone {seed}", seed, ("road",)) for seed in range(2)]
    with pytest.raises(PlanError, match="--method adaptive needs several classes; lone 0 knows one"):
        hf_lwmm.merge(lone, method="adaptive", tune_data=bare, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_plans_say_that_images_decide(models: list[Path], tmp_path: Path) -> None:
    shown = lwmm("plan", *models[:2], "--method", "adaptive")
    assert shown.exit_code == 0 and "adaptive decides the weights on unlabelled images" in shown.stderr
    dry = lwmm("merge", *models[:2], "--method", "greedy-soup", "--tune-data", tmp_path, "--dry-run", "--json")
    assert dry.exit_code == 0 and "greedy-soup decides the weights on labelled images (--tune-data)" in dry.stderr
    assert all(row["weights"] is None for row in json.loads(dry.stdout)["shared"])
    listed = {row["method"]: row for row in json.loads(lwmm("methods", "--json").stdout)}
    assert listed["greedy-soup"]["needs"] == ["labelled images (--tune-data)"]
    assert listed["adaptive"]["options"] == make_method("adaptive", {}).options


@pytest.mark.parametrize(
    "tuning",
    ["[]", "{rows: [{to: 2, weights: [0.5, 0.6]}]}", "{rows: [{to: x, weights: [1, 0]}]}", "{rows: [{weights: [1]}]}"],
)
def test_damaged_weights_in_a_recipe_are_refused(tuning: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"models: [a/b, c/d]\nmethod: greedy-soup\ntuning: {tuning}\n")
    with pytest.raises(PlanError, match=r"r\.yaml, tuning: needs `rows`, each with `to`"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{dataset: a/b, images: many}", "`images` must be a whole number, not 'many'"),
        ("{split: train}", "needs at least `dataset`"),
        ("text", "needs at least `dataset`"),
    ],
)
def test_damaged_facts_in_a_recipe_are_refused(entry: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"models: [a/b, c/d]\nrecalibration: {entry}\n")
    with pytest.raises(PlanError, match=rf"r\.yaml, recalibration: {message}"):
        load_recipe(tmp_path / "r.yaml")


def test_facts_of_a_recipe_by_hand_leave_open_what_they_do_not_say() -> None:
    assert read_image_provenance({"dataset": "a/b"}, "r.yaml").reading == {"split": None, "limit": None}
