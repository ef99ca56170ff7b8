"""Heads of one row: a sigmoid that tells one class from the background."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import lwmm, merge, plan
from huggingface_hub import ModelCard
from PIL import Image
from tiny import scene, segformer, tree
from torch import nn
from transformers import SegformerImageProcessor

import hf_lwmm
from hf_lwmm.evaluation.inference import segment
from hf_lwmm.evaluation.overlays import class_colours
from hf_lwmm.evaluation.pictures import all_views
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.networks.one_row import classes_of_one_row, with_background
from hf_lwmm.planning.images import ImageSource

BOTH = ("background", "crack")


@pytest.fixture(scope="module")
def cracks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [segformer(folder / name, seed, ("crack",)) for seed, name in enumerate(("one", "two"), 1)]


@pytest.fixture(scope="module")
def softmax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("models") / "softmax", 3, BOTH)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images with masks of 0 and 1."""
    folder = tree(tmp_path / "data", 3)
    for path in (folder / "labels").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) == 1).astype(np.uint8)).save(path)
    return folder


def sigmoid(loaded: hf_lwmm.LoadedModel, image: Image.Image) -> torch.Tensor:
    """The probability of the one class, (height, width)."""
    pixels = loaded.image_processor(image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = loaded.model(pixels).logits
    return nn.functional.interpolate(logits, (image.height, image.width), mode="bilinear")[0, 0].sigmoid()


def test_a_head_of_one_row_has_two_classes(cracks: list[Path]) -> None:
    loaded = hf_lwmm.load(cracks[0])
    assert loaded.classes == BOTH
    assert classes_of_one_row(["LABEL_0"]) == ("background", "foreground")
    assert classes_of_one_row(["Background"]) == ("foreground", "Background")
    for seed in range(3):
        image = scene(seed)[0]
        assert np.array_equal(segment([loaded], [image])[0], (sigmoid(loaded, image) > 0.5).numpy())


def test_two_rows_have_the_probabilities_of_the_sigmoid() -> None:
    logits = torch.randn(2, 1, 3, 4)
    torch.testing.assert_close(with_background(logits).softmax(1)[:, 1:], logits.sigmoid())
    torch.testing.assert_close(with_background(logits[0]).softmax(0)[1:], logits[0].sigmoid())
    several = torch.randn(2, 2, 3, 4)
    assert with_background(several) is several


def test_its_scores_are_those_counted_by_hand(cracks: list[Path], softmax: Path, data: Path) -> None:
    found = hf_lwmm.evaluate([cracks[0], softmax], data, evaluation=EvaluationSpec(ensemble=True))
    assert found is not None and found.classes == BOTH and found.confusion is not None
    one, other = map(hf_lwmm.load, (cracks[0], softmax))
    tables = np.zeros((2, 2, 2), int)
    for seed in range(3):
        image = scene(seed)[0]
        label = np.asarray(Image.open(data / "labels" / f"{seed}.png"))
        mine = sigmoid(one, image)
        pixels = other.image_processor(image, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            logits = nn.functional.interpolate(other.model(pixels).logits, (48, 64), mode="bilinear")[0]
        both = (mine + logits.softmax(0)[1]) / 2
        for table, guess in zip(tables, (mine > 0.5, both > 0.5), strict=True):
            np.add.at(table, (label, guess.numpy().astype(int)), 1)
    assert np.array_equal(found.confusion[0, :, :2], tables[0])
    assert np.abs(found.confusion[2, :, :2] - tables[1]).sum() <= 6  # pixels whose classes are a rounding apart


def test_views_and_overlays_have_both_classes(cracks: list[Path], data: Path, tmp_path: Path) -> None:
    loaded = hf_lwmm.load(cracks[0])
    (found,) = segment([loaded], [scene(0)[0]], views=all_views(flip=True))
    assert set(np.unique(found)) <= {0, 1}
    done = lwmm("predict", cracks[0], data / "images", "--output", tmp_path / "out")
    assert done.exit_code == 0 and "background " in done.stdout
    labels = Image.open(tmp_path / "out" / "0_labels.png")
    assert np.array_equal(labels, segment([loaded], [scene(0)[0]])[0])
    assert np.array_equal(np.array(labels.getpalette()).reshape(-1, 3)[:2], class_colours(BOTH)[:2])


def test_heads_of_one_row_are_merged_with_each_other_alone(
    cracks: list[Path], softmax: Path, data: Path, tmp_path: Path
) -> None:
    done = merge(cracks, output=tmp_path / "merged", method="isotropic")
    assert done.plan.alignment.shared_parameters == done.plan.alignment.anchor_parameters
    found = hf_lwmm.evaluate([tmp_path / "merged"], data)
    assert found is not None and found.classes == BOTH
    for head in ("shared", "by-label"):
        for models in ([cracks[0], softmax], [softmax, cracks[0]]):
            unshared = {each.slot: each.reason for each in plan(models, head=head).alignment.unshared}
            for slot in ("segformer.classifier.weight", "segformer.classifier.bias"):
                assert "the one row of one is for a sigmoid" in unshared[slot]


def test_cards_turn_off_a_widget_that_would_find_the_one_class_everywhere(
    cracks: list[Path], softmax: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(cracks[0], tmp_path / "crack"))
    (folder / "README.md").write_text("---\nwidget:\n- src: https://example.org/a.jpg\n---\n")
    merge([folder, cracks[1]], output=tmp_path / "merged", method="isotropic")
    hf_lwmm.export(tmp_path / "merged", tmp_path / "converted")
    for name in ("merged", "converted"):
        data = ModelCard.load(tmp_path / name / "README.md").data.to_dict()
        assert data["pipeline_tag"] == "image-segmentation" and data["inference"] is False and "widget" not in data
    merge([softmax, softmax], output=tmp_path / "two", method="isotropic")
    assert "inference" not in ModelCard.load(tmp_path / "two/README.md").data.to_dict()


def test_fisher_information_is_that_of_the_sigmoid(cracks: list[Path], data: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    measured = hf_lwmm.measure(cracks[0], ImageSource(data, "validation"), tmp_path / "f.safetensors")
    loaded, squares = hf_lwmm.load(cracks[0]), []
    for seed in range(3):
        label = np.asarray(Image.open(data / "labels" / f"{seed}.png"))
        squares.append(float((sigmoid(loaded, scene(seed)[0]).numpy() - label).mean()) ** 2)
    (bias,) = load_file(measured.path)["segformer.classifier.bias"]
    assert bias == pytest.approx(np.mean(squares), rel=1e-4)


def test_layer_weights_are_tuned_on_both_classes(cracks: list[Path], data: Path, tmp_path: Path) -> None:
    few = {"images": 2, "passes": 3}
    done = merge(
        cracks, output=tmp_path / "tuned", method="adaptive", option=few, tune_images=ImageSource(data / "images")
    )
    assert done.plan.tuning is not None
    weights = np.asarray(done.plan.tuning.weights)
    assert np.isfinite(weights).all() and np.ptp(weights[:, 1]) > 0  # the entropy of one row would be 0 for any weights


@pytest.mark.parametrize("configured", [True, False])
def test_the_example_on_the_card_finds_what_the_sigmoid_does(
    configured: bool, cracks: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline of transformers would find the class everywhere, whether the anchor has a config.json or not."""
    monkeypatch.chdir(tmp_path)
    files = []
    for number, folder in enumerate(cracks):
        files.append(tmp_path / f"{number}")
        if configured:
            shutil.copytree(folder, files[-1])
            SegformerImageProcessor(do_resize=False).save_pretrained(files[-1])
        else:
            files[-1].mkdir()
            shutil.copy(folder / "model.safetensors", files[-1])
    done = merge(files, output="out", method="isotropic")
    (example,) = re.findall("```python\n(.*?)\n```", done.card, re.DOTALL)
    image = scene(0)[0]
    image.save("street.jpg")
    found: dict[str, Any] = {}
    exec(compile(example, "example", "exec"), found)
    loaded = hf_lwmm.load("out")
    pixels = loaded.image_processor(Image.open("street.jpg"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = with_background(loaded.model(pixels).logits)[0]
    assert torch.equal(found["mask"], logits.argmax(0) == 1) and 0 < found["mask"].sum() < found["mask"].numel()
