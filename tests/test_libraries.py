"""Repositories of timm and segmentation_models.pytorch load, run, merge, and load again as these libraries do it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from calls import lwmm, merge
from conftest import Run
from fresh import Forks
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from tiny import scene, tree
from torch import nn

import hf_lwmm
from hf_lwmm.describing.libraries import smp_pixels
from hf_lwmm.errors import CheckpointError, ExtraError, HfLwmmError, LayoutError
from hf_lwmm.evaluation.inference import segment
from hf_lwmm.planning.inputs import NetworkOptions

NAMES = ("road", "sky", "car")
ENCODER = "tu-test_resnet"  # timm's smallest, with 375,000 weights
DECODERS: Mapping[str, Mapping[str, Any]] = {
    "Unet": {"decoder_channels": (8, 8, 8, 8, 8)},
    "FPN": {"decoder_pyramid_channels": 8, "decoder_segmentation_channels": 32},
    "DeepLabV3Plus": {"decoder_channels": 8},
    "PSPNet": {"psp_out_channels": 8},
    "UPerNet": {"decoder_channels": 8},
    "Segformer": {"decoder_segmentation_channels": 8},
}


def perturbed(module: Any, seed: int) -> Any:
    """A network that looks like a training of the same beginning."""
    torch.manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = 0.05 * torch.randn_like(tensor)
            tensor += noise.abs() if name.endswith("running_var") else noise
    return module.eval()


def of_smp(folder: Path, seed: int = 1, kind: str = "Unet", **options: Any) -> Path:
    torch.manual_seed(0)
    settings = {"encoder_name": ENCODER, "encoder_weights": None, "classes": 3, **DECODERS[kind], **options}
    perturbed(getattr(smp, kind)(**settings), seed).save_pretrained(folder)
    return folder


def of_timm(folder: Path, seed: int = 1, name: str = "test_resnet", **options: Any) -> Path:
    torch.manual_seed(0)
    model = perturbed(timm.create_model(name, num_classes=3), seed)
    config = {"label_names": list(NAMES), **options}
    timm.models.save_for_hf(model, folder, model_config=config, safe_serialization=True)
    return folder


def with_entries(folder: Path, **entries: Any) -> Path:
    """The folder with other entries in its config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    return folder


def picture(width: int = 70, height: int = 51) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


# segmentation_models.pytorch


@pytest.mark.parametrize("kind", DECODERS)
def test_a_network_of_smp_has_its_own_logits_on_any_size(kind: str, tmp_path: Path) -> None:
    folder = of_smp(tmp_path / "model", kind=kind)
    loaded, own = hf_lwmm.load(folder, NetworkOptions(labels=(NAMES,))), smp.from_pretrained(str(folder)).eval()
    assert loaded.task == "semantic" and loaded.classes == NAMES and type(loaded.model) is type(own)
    stride = own.encoder.output_stride if own.requires_divisible_input_shape else 1
    pixels = torch.rand(2, 3, 51, 70)
    continued = nn.functional.pad(pixels, (0, -70 % stride, 0, -51 % stride), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(pixels).logits, own(continued)[..., :51, :70], rtol=0, atol=0)


def test_smps_pictures_are_normalised_as_its_own_function_does(tmp_path: Path) -> None:
    loaded = hf_lwmm.load(of_smp(tmp_path / "model"))
    own = smp.encoders.get_preprocessing_fn(ENCODER)(np.asarray(picture()))
    found = loaded.image_processor(picture(), return_tensors="pt")["pixel_values"][0]
    assert np.abs(found.numpy() - own.transpose(2, 0, 1)).max() < 1e-6
    assert smp_pixels("dpn68", "imagenet") != smp_pixels("resnet18", "ssl") != smp_pixels("xception", "imagenet")
    assert smp_pixels("timm-efficientnet-b0", "advprop") == smp_pixels("inceptionv4", None)


def test_pictures_are_segmented_and_scored(run: Run, tmp_path: Path) -> None:
    folder, data = of_smp(tmp_path / "model"), tree(tmp_path / "data", 2)
    assert run("predict", folder, data / "images", "--labels", "a,b,c", "--output", "out")[0] == 0
    own = smp.from_pretrained(str(folder)).eval()
    right = total = 0
    for seed in range(2):
        pixels = smp.encoders.get_preprocessing_fn(ENCODER)(np.asarray(scene(seed)[0]))
        with torch.no_grad():
            best = own(torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float())[0].argmax(0).numpy()
        assert len(np.unique(best)) > 1 and np.array_equal(np.asarray(Image.open(f"out/{seed}_labels.png")), best)
        label = scene(seed)[1]
        right, total = right + (best == label).sum(), total + (label != 255).sum()
    report = hf_lwmm.evaluate([folder], data)
    assert report is not None and report.models[0].extras["pixel accuracy"] == pytest.approx(right / total)


def test_a_head_of_one_class_is_a_sigmoid(tmp_path: Path) -> None:
    folder = of_smp(tmp_path / "model", classes=1, activation="sigmoid")
    loaded, own = hf_lwmm.load(folder, NetworkOptions(labels=(("crack",),))), smp.from_pretrained(str(folder)).eval()
    assert loaded.classes == ("background", "crack")
    pixels = loaded.image_processor(picture(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        middle = loaded.model(pixels).logits.median()
        for network in (loaded.model, own):
            network.segmentation_head[0].bias -= middle
        mask = own(pixels)[0, 0] > 0.5
    assert 0 < mask.sum() < mask.numel()
    assert np.array_equal(segment([loaded], [picture()])[0], mask.numpy())


@pytest.mark.parametrize("depth", [3, 4])
def test_an_encoder_of_another_depth_runs(depth: int, tmp_path: Path) -> None:
    folder = of_smp(tmp_path / "model", encoder_depth=depth, decoder_channels=(8,) * depth)
    assert segment([hf_lwmm.load(folder)], [picture()])[0].shape == (51, 70)


def test_a_classification_head_beside_the_masks_is_left_out_with_a_note(tmp_path: Path) -> None:
    folder = of_smp(tmp_path / "model", aux_params={"classes": 2, "pooling": "max"})
    loaded, own = hf_lwmm.load(folder), smp.from_pretrained(str(folder)).eval()
    assert "model: the outputs of its classification head (aux_params) are not used" in loaded.notes
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(pixels).logits, own(pixels)[0])


def test_weights_that_an_encoder_was_trained_from_are_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetching(*arguments: Any, **options: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", fetching)
    monkeypatch.setattr("timm.models._builder.load_pretrained", fetching)
    folder = with_entries(of_smp(tmp_path / "of_smp"), encoder_weights="imagenet")
    assert hf_lwmm.load(folder).image_processor.image_mean == [0.5, 0.5, 0.5]
    own = with_entries(of_smp(tmp_path / "own", encoder_name="resnet18"), encoder_weights="imagenet")
    assert hf_lwmm.load(own).image_processor.image_mean == [0.485, 0.456, 0.406]
    hf_lwmm.load(of_timm(tmp_path / "of_timm"))


# timm

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "center": {"crop_pct": 0.9, "interpolation": "bilinear"},
    "squash": {"crop_mode": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "border": {"crop_mode": "border", "crop_pct": 1.0, "interpolation": "bicubic"},
    "oblong": {"input_size": [3, 64, 96], "crop_pct": 0.95},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_timms_pictures_are_prepared_by_its_own_transforms(case: str, tmp_path: Path) -> None:
    folder = of_timm(tmp_path / "model")
    cfg = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    loaded = hf_lwmm.load(with_entries(folder, pretrained_cfg={**cfg, **SETTINGS[case]}))
    own = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(own), is_training=False)
    found = loaded.image_processor(picture(200, 120), return_tensors="pt")["pixel_values"]
    assert torch.equal(found[0], transform(picture(200, 120)))
    with torch.no_grad():
        assert torch.equal(loaded.model(found).logits, own(found))
    assert loaded.task == "classification" and loaded.classes == NAMES


def test_a_classifier_of_timm_is_scored_on_folders_of_classes(tmp_path: Path) -> None:
    for name in ("car", "sky"):
        (tmp_path / "data/validation" / name).mkdir(parents=True)
        for seed in range(2):
            scene(seed + 2 * (name == "sky"))[0].save(tmp_path / "data/validation" / name / f"{seed}.png")
    folder = of_timm(tmp_path / "model")
    own = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(own), is_training=False)
    with torch.no_grad():
        best = [NAMES[own(transform(scene(seed)[0])[None])[0].argmax()] for seed in range(4)]
    report = hf_lwmm.evaluate([folder], tmp_path / "data")
    assert report is not None
    right = [name == wanted for name, wanted in zip(best, ("car", "car", "sky", "sky"), strict=True)]
    assert report.models[0].extras["overall accuracy"] == pytest.approx(np.mean(right))


def test_unnamed_classes_of_timm_are_those_of_a_label_set_or_imagenets(tmp_path: Path) -> None:
    folder = of_timm(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["label_names"]
    (folder / "config.json").write_text(json.dumps(config))
    assert hf_lwmm.load(folder, NetworkOptions(labels=(("a", "b", "c"),))).classes == ("a", "b", "c")
    assert hf_lwmm.load(folder).classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    timm.models.save_for_hf(timm.create_model("test_resnet"), tmp_path / "imagenet", safe_serialization=True)
    loaded = hf_lwmm.load(tmp_path / "imagenet")
    assert len(loaded.classes) == 1000 and loaded.classes[0].startswith("tench") and "imagenet-1k" in loaded.notes[-1]


def test_settings_in_one_object_and_those_of_transformers_wrapper_are_read(tmp_path: Path) -> None:
    from transformers import TimmWrapperForImageClassification

    folder = of_timm(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    with_entries(folder, model_args=None)
    TimmWrapperForImageClassification.from_pretrained(folder).save_pretrained(tmp_path / "wrapped")
    old = {"architecture": "test_resnet", "labels": list(NAMES), **config["pretrained_cfg"]}
    (folder / "config.json").write_text(json.dumps(old))
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        first, second = (hf_lwmm.load(path).model(pixels).logits for path in (folder, tmp_path / "wrapped"))
    assert hf_lwmm.load(folder).classes == hf_lwmm.load(tmp_path / "wrapped").classes == NAMES
    torch.testing.assert_close(first, second)


# Merging and converting

SNIPPET = """
import json, sys, torch
sys.modules["hf_lwmm"] = None
for block, saved in json.loads(sys.argv[1]):
    found = {}
    exec(block, found)
    own = torch.load(saved)
    with torch.no_grad():
        torch.testing.assert_close(found["model"](own["pixels"]), own["logits"])
"""


def test_pushed_merges_and_conversions_load_as_their_cards_say(
    run: Run, api: HfApi, forks: Forks, tmp_path: Path
) -> None:
    pairs = {}
    for name, make in (("timm", of_timm), ("smp", of_smp)):
        models = [make(tmp_path / f"{name}{seed}", seed) for seed in (1, 2)]
        if name == "smp":
            models = [with_entries(model, encoder_weights="imagenet") for model in models]
        assert run("merge", *models, "--push", f"org/{name}-merged")[0] == 0
        assert run("convert", f"org/{name}-merged", "--push", f"org/{name}-converted")[0] == 0
        pairs[name] = (f"org/{name}-merged", f"org/{name}-converted")
    cases = []
    for name, repos in pairs.items():
        pixels = torch.rand(1, 3, 64, 64)
        for repo in repos:
            card = ModelCard.load(repo)
            library = {"timm": "timm", "smp": "segmentation-models-pytorch"}[name]
            assert card.data.library_name == library
            (block,) = re.findall("```python\n(.*?)\n```", card.text, re.DOTALL)
            with torch.no_grad():
                logits = hf_lwmm.load(repo).model(pixels).logits
            saved = tmp_path / f"{repo.replace('/', '-')}.pt"
            torch.save({"pixels": pixels, "logits": logits}, saved)
            cases.append((block, str(saved)))
    assert cases[0][0].count("hf-hub:org/timm-merged") == 1 and "encoder_weights=None" in cases[2][0]
    done = forks.run(SNIPPET, json.dumps(cases))
    assert done.returncode == 0, done.stderr


def test_a_merge_of_another_type_loads(tmp_path: Path) -> None:
    models = [of_smp(tmp_path / str(seed), seed) for seed in (1, 2)]
    merge(models, dtype="float16", output=tmp_path / "out")
    assert smp.from_pretrained(str(tmp_path / "out")).encoder.output_stride == 32
    loaded = hf_lwmm.load(tmp_path / "out", NetworkOptions(compute_dtype="stored"))
    assert next(loaded.model.parameters()).dtype == torch.float16


def test_the_example_says_how_pictures_are_normalised(run: Run, tmp_path: Path) -> None:
    models = [of_smp(tmp_path / str(seed), seed, encoder_name="resnet18") for seed in (1, 2)]
    assert run("merge", *models, "--output", "out")[0] == 0
    (block,) = re.findall("```python\n(.*?)\n```", Path("out/README.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(block, "the card", "exec"), found)
    own = hf_lwmm.load("out").image_processor(picture(), return_tensors="pt")["pixel_values"][0].numpy()
    assert np.abs(found["prepare"](np.asarray(picture())).transpose(2, 0, 1) - own).max() < 1e-5
    assert ModelCard.load("out/README.md").data.pipeline_tag == "image-segmentation"


# What is refused

BAD_TIMM: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "classes": ({"num_classes": 10}, r"num_classes 10, but its classifier fc\.weight has 3 rows\. Write 3 there"),
    "unknown": ({"architecture": "no_such_net"}, "architecture 'no_such_net', which timm .* does not have"),
    "path": ({"architecture": "hf-hub:org/other"}, "'hf-hub:org/other', which is no name of a network"),
    "other": ({"architecture": "test_vit"}, "does not fit the timm test_vit of its config.json: "),
    "file": ({"model_args": {"checkpoint_path": "x"}}, r"model_args\.checkpoint_path is no setting of a network"),
    "text": ({"model_args": {"act_layer": "/etc/passwd"}}, r"model_args\.act_layer is '/etc/passwd', not a number"),
    "argument": ({"model_args": {"surprise": 1}}, "does not make a timm test_resnet: .*surprise"),
    "deep": ({"model_args": {"layers": [10000, 1, 1, 1]}}, "more layers than the 92 tensors that there are"),
    "list": ({"model_args": [1]}, r"model_args is \[1\], not an object"),
    "large": ({"pretrained_cfg": {"crop_pct": 1e-5}}, "resizes pictures to 22,400,000 pixels"),
    "zero": ({"pretrained_cfg": {"crop_pct": 0}}, "crop_pct is 0, not a number above 0"),
    "filter": ({"pretrained_cfg": {"interpolation": "random"}}, "interpolation is 'random', not one of"),
    "channels": ({"pretrained_cfg": {"input_size": [1, 64, 64]}}, "pictures of 1 channels"),
    "not an object": ({"pretrained_cfg": "resnet"}, "pretrained_cfg that is no object"),
}
BAD_SMP: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "classes": ({"classes": 5}, r"classes 5, but its classifier segmentation_head\.0\.weight has 3 rows"),
    "class": ({"_model_class": "Path"}, "the network 'Path', which segmentation_models.pytorch .* does not have"),
    "not public": ({"_model_class": "create_model"}, "the network 'create_model'"),
    "encoder": ({"encoder_name": "resnet1"}, "the encoder 'resnet1', which"),
    "address": ({"encoder_name": "tu-hf-hub:org/x"}, "which is no name of a network"),
    "other": ({"encoder_name": "resnet18"}, "does not fit the Unet of segmentation_models.pytorch of its config.json"),
    "depth": ({"encoder_depth": 4}, "does not make a Unet of segmentation_models.pytorch: .*decoder_channels"),
    "text": ({"encoder_depth": "five"}, "does not make a Unet"),
    "channels": ({"in_channels": 4}, "pictures of 4 channels"),
    "file": ({"checkpoint_path": "x"}, "checkpoint_path is no setting of a network"),
    "activation": ({"activation": "tanh"}, "its network ends in 'tanh'"),
    "wide": ({"decoder_channels": [10**9] * 5}, "decoder_channels is .* not a number to 65,536"),
    "auxiliary": ({"aux_params": [2]}, r"aux_params is \[2\], not an object"),
}


@pytest.mark.parametrize("case", BAD_TIMM)
def test_a_configuration_that_timm_cannot_have_written_is_refused(case: str, tmp_path: Path) -> None:
    entries, message = BAD_TIMM[case]
    with pytest.raises((CheckpointError, LayoutError), match=f"^model.*{message}"):
        hf_lwmm.load(with_entries(of_timm(tmp_path / "model"), **entries))


@pytest.mark.parametrize("case", BAD_SMP)
def test_a_configuration_that_smp_cannot_have_written_is_refused(case: str, tmp_path: Path) -> None:
    entries, message = BAD_SMP[case]
    with pytest.raises((CheckpointError, LayoutError), match=f"^model.*{message}"):
        hf_lwmm.load(with_entries(of_smp(tmp_path / "model"), **entries))


def test_a_network_without_a_classifier_merges_and_is_not_scored(tmp_path: Path) -> None:
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=0), tmp_path / "bare", safe_serialization=True)
    with pytest.raises(LayoutError, match="is a timm test_resnet without a classifier"):
        hf_lwmm.load(tmp_path / "bare")
    assert hf_lwmm.plan([of_timm(tmp_path / "whole"), tmp_path / "bare"]).alignment.shared


@pytest.mark.parametrize(("make", "package", "extra"), [
    (of_timm, "timm", "networks"), (of_smp, "segmentation_models_pytorch", "smp"),
])  # fmt: skip
def test_a_missing_library_is_named_with_its_extra(
    make: Any, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "model")
    for name in [name for name in sys.modules if name.startswith(("hf_lwmm.networks.timm", "hf_lwmm.networks.smp"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExtraError, match=rf"{package}, which is not installed: pip install 'hf-lwmm\[{extra}\]'"):
        hf_lwmm.load(folder)


def test_options_about_other_networks_are_refused_or_noted(tmp_path: Path) -> None:
    folder = of_timm(tmp_path / "model")
    with pytest.raises(HfLwmmError, match="--system advent does not apply"):
        hf_lwmm.load(folder, NetworkOptions(system="advent"))
    loaded = hf_lwmm.load(folder, NetworkOptions(network=lambda config, outputs: None))
    assert "model: is a timm test_resnet, so --network was not used for it" in loaded.notes
    assert lwmm("predict", folder, tmp_path / "x.png").exit_code == 1
