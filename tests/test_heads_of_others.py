"""Classifiers of networks that no layout knows: compared by the names of their classes, never filled at random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import merge
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

import hf_lwmm
from hf_lwmm.errors import CheckpointError, LayoutError, PlanError

NAMES = ("road", "sky", "car")
HEADS = ("decode_head.classifier", "auxiliary_head.classifier")


def upernet(folder: Path, names: tuple[str, ...] = NAMES, rows: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Save one UperNet, with the rows of its classifiers and their names in some order."""
    torch.manual_seed(0)
    backbone = ConvNextConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 8], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = UperNetConfig(
        backbone_config=backbone, hidden_size=16, pool_scales=[1], auxiliary_channels=8, auxiliary_in_channels=8,
        id2label={row: names[index] for row, index in enumerate(rows)},
    )  # fmt: skip
    network = UperNetForSemanticSegmentation(config)
    with torch.no_grad():
        for head in HEADS:
            module = network.get_submodule(head)
            module.weight.copy_(torch.randn(3, *module.weight.shape[1:])[list(rows)])
            module.bias.copy_(torch.tensor([1.0, 2.0, 3.0])[list(rows)])
    network.save_pretrained(folder)
    settings = {"image_processor_type": "SegformerImageProcessor", "do_resize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("head", ["shared", "by-label", "anchor"])
def test_classifiers_are_compared_by_the_names_of_their_rows(head: str, tmp_path: Path) -> None:
    first, second = upernet(tmp_path / "a"), upernet(tmp_path / "b", rows=(2, 0, 1))
    merge([first, second], output=tmp_path / "out", method="isotropic", head=head)
    wanted, found = load_file(first / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():  # the models are one function, and so is their merge
        assert torch.allclose(found[name].float(), tensor.float(), atol=1e-6), name


def detector(folder: Path, names: tuple[str, ...], head: str) -> Path:
    """A detector of which a layer has a row for each class, whose values tell it, and one for what is no object."""
    folder.mkdir()
    rows = [float(sum(map(ord, name))) for name in names] + [-7.0]
    tensors = {"body.weight": torch.ones(30, 30), f"{head}.bias": torch.tensor(rows)}
    tensors[f"{head}.weight"] = torch.tensor(rows)[:, None].repeat(1, 4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["DetrForObjectDetection"], "id2label": dict(enumerate(names))}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("layer", ["class_labels_classifier", "class_labels_classifier.layers.2", "class_predictor"])
def test_a_row_for_what_is_no_object_comes_after_the_classes(layer: str, tmp_path: Path) -> None:
    first = detector(tmp_path / "a", ("cat", "dog", "cow"), layer)
    second, third = detector(tmp_path / "b", ("cow", "cat", "dog"), layer), detector(tmp_path / "c", ("x", "y"), layer)
    wanted = load_file(first / "model.safetensors")
    for head, others in (("by-label", [second]), ("shared", [second]), ("by-label", [third]), ("shared", [third])):
        result = merge([first, *others], output=tmp_path / "out", overwrite=True, method="isotropic", head=head)
        found = load_file(tmp_path / "out" / "model.safetensors")
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        shared = {slot.slot for slot in result.plan.alignment.shared}
        assert (f"{layer}.bias" in shared) == (head == "by-label" and others == [second])


def test_a_choice_about_heads_is_refused_where_no_head_is_known(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        tensors = {"first.weight": torch.full((4, 4), float(seed)), "second.weight": torch.ones(4, 4)}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    models = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    with pytest.raises(PlanError, match=r"the head of a\.safetensors cannot be told from its other layers"):
        merge(models, output=tmp_path / "out", head="anchor")


def test_weights_that_are_missing_are_named_and_never_made_up(tmp_path: Path) -> None:
    folder = upernet(tmp_path / "a")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("decode_head.classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        LayoutError, match=r"2 tensors are missing \(decode_head\.classifier\.bias, decode_head\.classifier\.w"
    ):
        hf_lwmm.load(folder)


def test_a_whole_network_of_transformers_still_loads(tmp_path: Path) -> None:
    loaded = hf_lwmm.load(upernet(tmp_path / "a"))
    assert loaded.classes == NAMES
    assert np.isfinite(loaded.model(torch.zeros(1, 3, 64, 64)).logits.detach().numpy()).all()


def test_the_file_that_a_configuration_names_is_not_passed_over(models: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "a"
    shutil.copytree(models[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    shutil.copy(models[1] / "model.safetensors", folder / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"names 'other\.safetensors' as the weights.*a:other\.safetensors"):
        hf_lwmm.inspect(folder)
    merge([f"{folder}:other.safetensors", models[2]], output=tmp_path / "out")
    assert "transformers_weights" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_pictures_of_one_name_have_results_of_their_own(models: list[Path], tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("a.png", "a.bmp", "a-2.png")]
    for shade, path in enumerate(pictures):
        Image.new("RGB", (32, 32), (40 * shade,) * 3).save(path)
    done = hf_lwmm.predict(models[0], pictures, tmp_path / "out").done
    assert len({file for each in done for file in each.files}) == sum(len(each.files) for each in done)
