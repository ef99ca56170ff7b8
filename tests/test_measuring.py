"""Measurements for methods, against gradients and products taken by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import lwmm, merge
from conftest import Run
from manifests import write
from safetensors.torch import load_file, save_file
from tiny import NAMES, scene, segformer, tree

import hf_lwmm
from hf_lwmm.errors import DatasetError, MergeError, PlanError
from hf_lwmm.networks import BottleneckConfig, BottleneckForImageClassification

pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return segformer(folder / "one", 1), segformer(folder / "two", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("data"), 3)


def some(data: Path, limit: int = 2, split: str | None = None) -> hf_lwmm.ImageSource:
    return hf_lwmm.ImageSource(data, split, limit=limit)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Three images, two of one class and one of another."""
    for number, name in enumerate(("sky", "sky", "car")):
        (tmp_path / "classes/validation" / name).mkdir(parents=True, exist_ok=True)
        scene(number)[0].save(tmp_path / "classes/validation" / name / f"{number}.png")
    return tmp_path / "classes"


def test_fisher_information_of_a_classifier_is_of_its_images_labels(classes: Path, tmp_path: Path) -> None:
    config = BottleneckConfig(
        depths=(1, 1, 1, 1), width=8, block="basic", bottleneck_size=8, id2label=dict(enumerate(NAMES))
    )
    BottleneckForImageClassification(config).save_pretrained(tmp_path / "model")
    hf_lwmm.measure(tmp_path / "model", some(classes, 3, "validation"), tmp_path / "f.safetensors")
    loaded = hf_lwmm.load(tmp_path / "model")
    weight, squares = loaded.model.feat_embed_layer.bottleneck.weight, []
    for number, row in enumerate((NAMES.index("sky"), NAMES.index("sky"), NAMES.index("car"))):
        pixels = loaded.image_processor(scene(number)[0], return_tensors="pt")["pixel_values"]
        loss = torch.nn.functional.cross_entropy(loaded.model(pixels).logits, torch.tensor([row]))
        squares.append(torch.autograd.grad(loss, weight)[0] ** 2)
    (found,) = (t for t in load_file(tmp_path / "f.safetensors").values() if t.shape == weight.shape)
    torch.testing.assert_close(found, torch.stack(squares).mean(0), rtol=1e-3, atol=1e-9)
    with pytest.raises(PlanError, match="has no image labels, which Fisher information of model needs"):
        hf_lwmm.measure(tmp_path / "model", tree(tmp_path / "maps", 2), tmp_path / "g.safetensors")


def test_fisher_information_is_the_mean_squared_gradient(
    run: Run, models: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    loaded = hf_lwmm.load(models[0])
    code, _, err = run("measure", models[0], "--data", data, "--limit", 2, "--output", tmp_path / "f.safetensors")
    assert code == 0, err
    found = load_file(tmp_path / "f.safetensors")
    squares = []
    for seed in range(2):
        image, label = scene(seed)
        pixels = loaded.image_processor(image, return_tensors="pt")["pixel_values"]
        logits = torch.nn.functional.interpolate(loaded.model(pixels).logits, label.shape, mode="bilinear")
        target = torch.from_numpy(label.astype(np.int64))[None]
        loss = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
        weight = loaded.model.decode_head.classifier.weight
        squares.append(torch.autograd.grad(loss, weight)[0] ** 2)
    torch.testing.assert_close(found["segformer.classifier.weight"], torch.stack(squares).mean(0), rtol=1e-3, atol=1e-9)
    other = tmp_path / "g.safetensors"
    measured = hf_lwmm.measure(hf_lwmm.load(models[1]), some(data), other)
    assert (measured.path, measured.kind, measured.model) == (other, "fisher", "two")
    assert (measured.images.data, measured.images.split, measured.images.limit) == (data.name, "train", 2)
    plan = merge(
        models, method="fisher", measurements=[tmp_path / "f.safetensors", other], output=tmp_path / "merged"
    ).plan
    assert plan.method.name == "fisher" and hf_lwmm.load(tmp_path / "merged").classes == NAMES


def test_gram_matrices_are_of_the_layers_inputs(models: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, target in zip(models, files, strict=True):
        assert hf_lwmm.measure(path, some(data), target, kind="grams").images.limit == 2
    found = load_file(files[0])
    loaded = hf_lwmm.load(models[0])
    inputs: list[torch.Tensor] = []
    loaded.model.decode_head.classifier.register_forward_pre_hook(lambda layer, given: inputs.append(given[0]))
    total = 0
    for seed in range(2):
        loaded.model(loaded.image_processor(scene(seed)[0], return_tensors="pt")["pixel_values"])
        rows = inputs[-1][0].flatten(1).T
        total = total + rows.T @ rows / 2
    torch.testing.assert_close(found["segformer.classifier.weight"], total, rtol=1e-3, atol=1e-3)
    merge(models, method="regmean", measurements=files, output=tmp_path / "merged")
    assert hf_lwmm.load(tmp_path / "merged").classes == NAMES


@pytest.mark.parametrize("padding, mode", [("same", "zeros"), ("same", "reflect"), ("valid", "zeros"), (1, "circular")])
def test_gram_matrices_of_convolutions_have_what_is_filled_in(
    padding: int | str, mode: str, data: Path, tmp_path: Path
) -> None:
    conv = torch.nn.Conv2d(3, len(NAMES), 3, padding=padding, padding_mode=mode, bias=False)
    save_file({"0.weight": conv.weight}, tmp_path / "model.safetensors")
    own = hf_lwmm.NetworkOptions(network=lambda config, classes: torch.nn.Sequential(conv), labels=(NAMES,))
    model, target = tmp_path / "model.safetensors", tmp_path / "grams.safetensors"
    hf_lwmm.measure(model, some(data, 1), target, kind="grams", network=own)
    loaded = hf_lwmm.load(model, own)
    outputs = loaded.model(loaded.image_processor(scene(0)[0], return_tensors="pt")["pixel_values"]).logits
    rows, gram = conv.weight.flatten(1), load_file(target)["0.weight"]
    products = torch.einsum("ncyx,ndyx->cd", outputs, outputs)
    torch.testing.assert_close(rows @ gram @ rows.T, products, rtol=1e-3, atol=1e-2)


def test_grams_need_no_labels_and_fisher_does(
    models: tuple[Path, Path], data: Path, classes: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(data / "images", tmp_path / "pictures")
    done = lwmm("measure", models[0], "--data", bare, "--kind", "grams", "--limit", 1, "--output",
                tmp_path / "grams.safetensors")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Measured grams on 1 images; written to")
    done = lwmm("measure", models[0], "--data", bare, "--output", tmp_path / "fisher.safetensors")
    assert isinstance(done.exception, DatasetError) and "no images with labels" in str(done.exception)
    with pytest.raises(PlanError, match="has no pixel labels, which Fisher information of one needs"):
        hf_lwmm.measure(models[0], some(classes, split="validation"), tmp_path / "fisher.safetensors")
    assert not (tmp_path / "fisher.safetensors").exists()


def test_what_cannot_be_measured_is_refused_before_any_work(
    models: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match="--kind hessian is not one of fisher, grams"):
        hf_lwmm.measure(models[0], some(data), tmp_path / "h.safetensors", kind="hessian")
    with pytest.raises(PlanError, match=r"h\.bin: name a file that ends in \.safetensors"):
        hf_lwmm.measure(models[0], some(data), tmp_path / "h.bin")
    (tmp_path / "there.safetensors").write_bytes(b"kept")
    with pytest.raises(MergeError, match="exists already"):
        hf_lwmm.measure(models[0], some(data), tmp_path / "there.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == b"kept"
    hf_lwmm.measure(models[0], some(data), tmp_path / "there.safetensors", kind="grams", overwrite=True)
    assert load_file(tmp_path / "there.safetensors")


def test_measurements_of_another_model_are_refused(models: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    for path, file in zip(models, files, strict=True):
        hf_lwmm.measure(path, some(data, 1), file)
    result = merge(models, output=tmp_path / "out", method="fisher", measurements=files)
    assert not any("does not name the model" in warning for warning in result.warnings)
    message = r"two\.safetensors was measured on two, not on one\. Give one file for each model, in the models' order"
    with pytest.raises(PlanError, match=message):
        merge(models, output=tmp_path / "wrong", method="fisher", measurements=files[::-1])
    assert not (tmp_path / "wrong").exists()
    bare = write(tmp_path / "bare.safetensors", {name: values.numpy() for name, values in load_file(files[1]).items()})
    result = merge(models, output=tmp_path / "third", method="fisher", measurements=[files[0], bare])
    assert "bare.safetensors does not name the model that it was measured on; only shapes were checked." in (
        result.warnings
    )
    assert (tmp_path / "third/model.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()
