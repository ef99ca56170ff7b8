"""Measurements for methods, against gradients and products taken by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from tiny import NAMES, scene, segformer, tree

import hf_lwmm
from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import PlanError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return segformer(folder / "one", 1), segformer(folder / "two", 2)


def test_fisher_information_of_a_classifier_is_of_its_images_labels(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from hf_lwmm.networks import BottleneckConfig, BottleneckForImageClassification

    config = BottleneckConfig(
        depths=(1, 1, 1, 1), width=8, block="basic", bottleneck_size=8, id2label=dict(enumerate(NAMES))
    )
    BottleneckForImageClassification(config).save_pretrained(tmp_path / "model")
    for number, name in enumerate(("sky", "sky", "car")):
        (tmp_path / "data/validation" / name).mkdir(parents=True, exist_ok=True)
        scene(number)[0].save(tmp_path / "data/validation" / name / f"{number}.png")
    hf_lwmm_measure(tmp_path / "model", tmp_path / "data", tmp_path / "f.safetensors", count=3)
    loaded = hf_lwmm.load(tmp_path / "model")
    weight, squares = loaded.model.feat_embed_layer.bottleneck.weight, []
    for number, row in enumerate((NAMES.index("sky"), NAMES.index("sky"), NAMES.index("car"))):
        pixels = loaded.image_processor(scene(number)[0], return_tensors="pt")["pixel_values"]
        loss = torch.nn.functional.cross_entropy(loaded.model(pixels).logits, torch.tensor([row]))
        squares.append(torch.autograd.grad(loss, weight)[0] ** 2)
    (found,) = (t for t in load_file(tmp_path / "f.safetensors").values() if t.shape == weight.shape)
    torch.testing.assert_close(found, torch.stack(squares).mean(0), rtol=1e-3, atol=1e-9)
    with pytest.raises(PlanError, match="has no image labels, which Fisher information of model needs"):
        hf_lwmm_measure(tmp_path / "model", tree(tmp_path / "maps", 2), tmp_path / "g.safetensors")


def test_fisher_information_is_the_mean_squared_gradient(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    data = tree(tmp_path / "data", 3)
    loaded = hf_lwmm.load(models[0])
    code, _, err = run("measure", models[0], "--dataset", data, "--count", 2, "--output", tmp_path / "f.safetensors")
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
    hf_lwmm_measure(models[1], data, other)
    paths = list(models)
    plan = hf_lwmm.merge(
        paths, method="fisher", statistics=[tmp_path / "f.safetensors", other], output=tmp_path / "merged"
    ).plan
    assert plan.method.name == "fisher" and hf_lwmm.load(tmp_path / "merged").classes == NAMES
    with pytest.raises(PlanError, match="--kind hessian is none of fisher, grams"):
        hf_lwmm_measure(models[0], data, tmp_path / "h.safetensors", kind="hessian")


def hf_lwmm_measure(path: Path, data: Path, target: Path, **options: Any) -> int:
    from hf_lwmm.calibration.measurements import measure

    return measure(hf_lwmm.load(path), open_images(data), target, **{"count": 2, **options})


def test_gram_matrices_are_of_the_layers_inputs(models: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    data = tree(tmp_path / "data", 3)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, target in zip(models, files, strict=True):
        assert hf_lwmm_measure(path, data, target, kind="grams") == 2
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
    hf_lwmm.merge(models, method="regmean", statistics=files, output=tmp_path / "merged")
    assert hf_lwmm.load(tmp_path / "merged").classes == NAMES
